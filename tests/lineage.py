"""A receiver of OpenLineage events, and what makes an event valid.

The structure is that of `openlineage.client.generated`, which the project generates from the JSON schemas that it publishes:
each class names the schema it was made from, and an event names the schema of each of its parts. Given a folder with the
schemas themselves (`SPECTRALIZE_OPENLINEAGE_SPEC`, the folder `spec` of a checkout of OpenLineage), events must be valid by
those, too.
"""

import importlib
import json
import os
import pkgutil
import threading
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from uuid import UUID

import attr
import openlineage.client.generated as generated
from jsonschema import Draft202012Validator, FormatChecker
from openlineage.client.generated.base import BaseFacet, RunEvent
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from local.paths import REPO

Event = dict[str, Any]

OURS = json.loads((REPO / "docs/openlineage/SpectralizeBatchRunFacet.json").read_text(encoding="utf-8"))
SPEC = os.environ.get("SPECTRALIZE_OPENLINEAGE_SPEC")

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}
#: What a generated validator calls → the format that it checks.
_FORMATS = {"isoparse": "date-time", "UUID": "uuid", "urlparse": "uri"}

#: Required by the schemas; the client fills them in, so that its classes have a default.
_ALWAYS = ("_producer", "_schemaURL", "producer", "schemaURL")

formats = FormatChecker(())


@formats.checks("date-time", raises=ValueError)
def _is_moment(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None


@formats.checks("uuid", raises=ValueError)
def _is_uuid(text: object) -> bool:
    return not isinstance(text, str) or str(UUID(text)) == text.lower()


@formats.checks("uri", raises=ValueError)
def _is_uri(text: object) -> bool:
    return not isinstance(text, str) or bool(urlparse(text).scheme)


def _document_of(kind: type) -> dict[str, Any]:
    """Return the JSON schema of a class, as the generator of the client has read it."""
    defs: dict[str, Any] = {}
    return {**_schema_of(kind, defs), "$defs": defs}


def _schema_of(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [_schema_of(argument, defs) for argument in arguments]}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0], defs)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], defs)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if not attr.has(kind):
        raise TypeError(f"{kind}: the client has types that are not known here")
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name not in defs:
        # Here before it is complete: a field of a schema may have fields of its own.
        defs[name] = {"type": "object", "properties": {}, "required": []}
        hints = typing.get_type_hints(kind)
        for field in attr.fields(kind):
            schema = dict(_schema_of(hints[field.name], defs))
            called = {called for code in _codes(field.validator) for called in code.co_names}
            for check in called & _FORMATS.keys():
                schema["format"] = _FORMATS[check]
            defs[name]["properties"][field.name] = schema
            if field.default is attr.NOTHING or field.name in _ALWAYS:
                defs[name]["required"].append(field.name)
    return {"$ref": f"#/$defs/{name}"}


def _codes(validator: Any) -> list[types.CodeType]:
    if validator is None:
        return []
    return [part.__code__ for part in getattr(validator, "_validators", (validator,)) if hasattr(part, "__code__")]


@cache
def _facet_schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of every facet that the client knows, by the address that the facet gives itself."""
    schemas = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for kind in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(kind, type) and issubclass(kind, BaseFacet):
                schemas[kind._get_schema()] = _document_of(kind)
    schemas[f"{OURS['$id']}#/$defs/SpectralizeBatchRunFacet"] = OURS | {"$ref": "#/$defs/SpectralizeBatchRunFacet"}
    return schemas


@cache
def _published() -> Registry[Any]:
    documents = (
        [json.loads(path.read_text(encoding="utf-8")) for path in Path(SPEC or "").rglob("*.json")] if SPEC else []
    )
    resources = [
        (document["$id"], Resource.from_contents(document, default_specification=DRAFT202012))
        for document in documents
        if isinstance(document, dict) and "$id" in document
    ]
    return Registry().with_resources(resources)


def _facets_of(event: Event) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in ("run", "job"):
        for name, facet in event[part].get("facets", {}).items():
            yield f"{part}.{name}", facet
    for side in ("inputs", "outputs"):
        for dataset in event.get(side, []):
            for group in ("facets", "inputFacets", "outputFacets"):
                for name, facet in (dataset.get(group) or {}).items():
                    yield f"{side}.{dataset['name']}.{name}", facet


def faults(event: Event) -> list[str]:
    """Return what is wrong with an event, one line each."""
    found = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft202012Validator(_document_of(RunEvent), format_checker=formats).iter_errors(event)
    ]
    for where, facet in _facets_of(event):
        address = facet.get("_schemaURL", "")
        # The provider's own facets have addresses in Airflow's repository, and nobody publishes a schema there.
        schema = _facet_schemas().get(address)
        if schema is None and ("openlineage.io/" in address or address.startswith("urn:spectralize:")):
            found.append(f"{where}: there is no {address}")
        if schema is not None:
            errors = Draft202012Validator(schema, format_checker=formats).iter_errors(facet)
            found += [f"{where}.{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]
        if address.partition("#")[0] in _published():
            errors = Draft202012Validator({"$ref": address}, registry=_published(), format_checker=formats).iter_errors(
                facet
            )
            found += [f"{where}, as published: {error.message}" for error in errors]
    if event["schemaURL"].partition("#")[0] in _published():
        validator = Draft202012Validator({"$ref": event["schemaURL"]}, registry=_published(), format_checker=formats)
        found += [f"as published: {error.message}" for error in validator.iter_errors(event)]
    return found


class Receiver:
    """Takes events as a lineage server does, and keeps them with the body as it came."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.bodies: list[str] = []
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def events(self) -> list[Event]:
        """Everything received so far, oldest first."""
        return [json.loads(body) for body in list(self.bodies)]

    def stop(self) -> None:
        """Go away: who sends something now is refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receive() -> Iterator[Receiver]:
    """A receiver on a port of its own, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            is_event = self.path == "/api/v1/lineage"
            if is_event:
                receiver.bodies.append(body)
            self.send_response(201 if is_event else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    receiver = Receiver(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    try:
        yield receiver
    finally:
        receiver.stop()
