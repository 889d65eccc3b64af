"""What a page sends to have a callback called, told from what only somebody else would send: Dash itself stumbles over that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

#: What callbacks are given by these, unless it is nothing: what takes it apart. The others take anything for text.
_KINDS: Mapping[str, type] = {
    "url.pathname": str,
    "url.search": str,
    "visit.data": dict,
    "viewer-view.data": dict,
    "viewer-facts.data": dict,
    "recordings-picked.value": list,
}


def is_of_page(body: object, callbacks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether a page of ours sends this: for a callback of the server's, all that it takes, and of the right kinds.

    Parameters
    ----------
    callbacks
        Those of the application: Dash's `callback_map`.
    """
    name = body.get("output") if isinstance(body, dict) else None
    callback = callbacks.get(name, {}) if isinstance(name, str) else {}
    # Others are called in the browser.
    if not isinstance(body, dict) or "callback" not in callback:
        return False
    inputs = callback["inputs"]
    return (
        _are_outputs(body.get("outputs"), callback["output"])
        and _are_given(body.get("inputs", []), inputs)
        and _are_given(body.get("state", []), callback["state"])
        and _are_changes(body.get("changedPropIds", []), inputs)
    )


def _are_outputs(given: object, expected: Any) -> bool:
    """Tell whether these are the outputs that the callback has: a list only of several."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(given, list)
            and len(given) == len(expected)
            and all(_are_outputs(one, output) for one, output in zip(given, expected, strict=True))
        )
    prop = given.get("property") if isinstance(given, dict) else None
    return (
        isinstance(given, dict)
        and given.get("id") == expected.component_id
        and isinstance(prop, str)
        # Behind it stands which of the callbacks with the same output it is.
        and prop.partition("@")[0] == expected.component_property.partition("@")[0]
    )


def _are_given(given: object, expected: Sequence[Mapping[str, str]]) -> bool:
    return (
        isinstance(given, list)
        and len(given) == len(expected)
        and all(_is_given(one, wanted) for one, wanted in zip(given, expected, strict=True))
    )


def _is_given(given: object, expected: Mapping[str, str]) -> bool:
    if _is_pattern(expected["id"]):
        # Of a pattern there are several, in a list of their own.
        return isinstance(given, list) and all(_is_value(one, expected) for one in given)
    return _is_value(given, expected)


def _is_value(given: object, expected: Mapping[str, str]) -> bool:
    if not isinstance(given, dict) or given.get("property") != expected["property"]:
        return False
    if _is_pattern(expected["id"]):
        return _is_of_pattern(given.get("id"), expected["id"])
    kind = _KINDS.get(f"{expected['id']}.{expected['property']}", object)
    return given.get("id") == expected["id"] and (given.get("value") is None or isinstance(given["value"], kind))


def _are_changes(given: object, expected: Sequence[Mapping[str, str]]) -> bool:
    return isinstance(given, list) and all(isinstance(one, str) and _is_change(one, expected) for one in given)


def _is_change(given: str, expected: Sequence[Mapping[str, str]]) -> bool:
    name = given.rpartition(".")[0]
    if not _is_pattern(name):
        return True
    try:
        found = json.loads(name)
    except (ValueError, RecursionError):
        return False
    return any(_is_of_pattern(found, wanted["id"]) for wanted in expected if _is_pattern(wanted["id"]))


def _is_pattern(name: str) -> bool:
    return name.startswith("{")


def _is_of_pattern(given: object, pattern: str) -> bool:
    """Tell whether an id is one of a pattern's: its names, with texts; what they are, the callback looks at."""
    return (
        isinstance(given, dict)
        and given.keys() == json.loads(pattern).keys()
        and all(isinstance(value, str) for value in given.values())
    )
