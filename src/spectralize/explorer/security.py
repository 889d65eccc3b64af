"""Who may ask, and what browsers may do with the answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from urllib.parse import urlencode

from dash import Dash, set_props
from dash.exceptions import DependencyException, InvalidResourceError
from flask import Flask, Response, abort, g, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from spectralize.errors import SpectralizeError, as_one_line
from spectralize.explorer import signin
from spectralize.explorer.bodies import is_of_page
from spectralize.explorer.context import Explorer, RoleError, check_database
from spectralize.explorer.layout.shell import make_trouble
from spectralize.explorer.pages import NoSuchPageError, Page, find_page
from spectralize.explorer.peers import is_answered, is_foreign, read_peer
from spectralize.explorer.settings import Settings
from spectralize.reader.session import Session

_LOG = logging.getLogger(__name__)

#: What a page says of its own state is far smaller.
_MOST_BYTES = 1 << 20

#: Asked by machines, who know no password and any name of ours.
_ALIVE, _READY = "/healthz", "/readyz"
_FOR_MACHINES = frozenset({_ALIVE, _READY})

#: Where Dash answers every path that nobody else wants: with the shell.
_SHELL_ENDPOINTS = frozenset({"/", "/<path:path>"})
_CALLBACK = "/_dash-update-component"

#: How long what was found about the database counts: whoever asks has it asked no more often than this.
_READY_S = 2.0

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    # For what is older than `frame-ancestors`.
    "X-Frame-Options": "DENY",
}

_WRONG = "Something went wrong here; the explorer's log says what."


def protect(app: Dash, explorer: Explorer, pages: tuple[Page, ...]) -> None:
    """Guard every route of the application. Called last, when all callbacks are there."""
    server: Flask = app.server
    server.config["MAX_CONTENT_LENGTH"] = _MOST_BYTES
    password = explorer.settings.password
    signing = None if password is None else signin.SignIn(server, explorer.settings, password)
    # Where nobody signs in with us, these are not there.
    is_open = _FOR_MACHINES | (frozenset() if signing is None else signin.OPEN)
    policy = _make_policy(app)

    def guard() -> AnyResponse | None:
        _refuse_strangers(explorer.settings)
        if request.path not in is_open:
            answer = _ask_who(explorer.settings, signing)
            if answer is not None:
                return answer
        _check_path(pages)
        if request.path == _CALLBACK:
            _check_callback(app)
        return None

    def finish(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Content-Security-Policy", policy)
        if "Cache-Control" not in response.headers:
            # What has a tag is asked for again, and comes only if it is another.
            response.headers["Cache-Control"] = "no-cache" if response.get_etag()[0] else "no-store"
        if _is_shell() and response.status_code == 200 and not _is_page(pages):
            response.status_code = 404
        return response

    server.before_request(guard)
    server.after_request(finish)
    server.register_error_handler(HTTPException, _as_line)
    # What Dash says of these repeats what was asked for, as HTML.
    for kind in (DependencyException, InvalidResourceError):
        server.register_error_handler(kind, lambda _: _line("There is no such file.", 404))
    server.add_url_rule(_ALIVE, "alive", lambda: _line("ok", 200))
    server.add_url_rule(_READY, "ready", _Readiness(explorer.store.session).answer)


def show_trouble(error: Exception) -> None:
    """Tell of an error in a callback, which then changes nothing: one line above the page, everything in the log."""
    if isinstance(error, SpectralizeError):
        text = as_one_line(str(error))
        _LOG.warning("callback: %s", text)
    else:
        text = _WRONG
        _LOG.error("callback", exc_info=error)
    set_props("trouble", {"children": make_trouble(text)})


def _make_policy(app: Dash) -> str:
    rules = {
        "default-src": "'none'",
        # Dash starts itself in a line of the page; its hash is that line's.
        "script-src": " ".join(["'self'", *app.csp_hashes()]),
        # Mantine and Plotly write styles into the page, and what they write depends on what is shown.
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "media-src": "'self'",
        "connect-src": "'self'",
        "font-src": "'self' data:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _refuse_strangers(settings: Settings) -> None:
    g.peer = read_peer(request.environ, settings)
    if request.path not in _FOR_MACHINES and not is_answered(g.peer, settings):
        abort(400, "This explorer does not go by that name: SPECTRALIZE_EXPLORER_HOSTS says which it answers to.")
    if is_foreign(request.environ, g.peer, settings):
        abort(403, "Another site's page asked for that.")
    if (request.content_length or 0) > _MOST_BYTES:
        abort(413)


def _ask_who(settings: Settings, signing: signin.SignIn | None) -> AnyResponse | None:
    """Return None for who may come in, and for others what they are told."""
    if g.peer.user or (signing is None and not settings.proxy_header):
        return None
    if signing is None:
        abort(401, "Come by way of the proxy that signs people in.")
    if signing.is_signed_in():
        return None
    if not _is_shell() or _looks_like_file(request.path):
        abort(401, "Sign in first.")
    asked = request.query_string.decode("latin-1")
    following = urlencode({"next": f"{request.path}?{asked}" if asked else request.path})
    return redirect(f"{signin.PATH}?{following}", 303)


def _check_path(pages: tuple[Page, ...]) -> None:
    if _is_shell() and _looks_like_file(request.path) and not _is_page(pages):
        abort(404, "There is no such file.")


def _check_callback(app: Dash) -> None:
    """Refuse what no page of ours sends, before Dash stumbles over it."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    if not is_of_page(body, app.callback_map):
        abort(400, "That is no request of a page.")


def _is_shell() -> bool:
    return request.url_rule is not None and request.endpoint in _SHELL_ENDPOINTS


def _is_page(pages: tuple[Page, ...]) -> bool:
    try:
        find_page(pages, request.path.rstrip("/") or "/")
    except NoSuchPageError:
        return False
    return True


def _looks_like_file(path: str) -> bool:
    return path.startswith("/_") or "." in path.rpartition("/")[2]


def _line(text: str, status: int) -> Response:
    return Response(f"{text}\n", status, mimetype="text/plain")


def _as_line(error: HTTPException) -> AnyResponse:
    """Say in one line what is wrong; of errors of ours, only that there was one. Flask has logged those."""
    code = error.code or 500
    if code < 400:
        return error.get_response()
    own = error.description if code in {400, 401, 403, 404} else None
    response = _line(_WRONG if code >= 500 else own or error.name, code)
    if code == 405:
        response.headers["Allow"] = error.get_response().headers.get("Allow", "GET")
    return response


class _Readiness:
    """Whether the database can be read, asked by one request at a time and not much oftener than it changes."""

    def __init__(self, session: Session, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._lock = threading.Lock()
        self._found = "the database has not been asked yet"
        self._found_at = float("-inf")

    def answer(self) -> Response:
        if self._clock() - self._found_at > _READY_S and self._lock.acquire(blocking=False):
            try:
                self._found = self._check()
                self._found_at = self._clock()
            finally:
                self._lock.release()
        return _line(f"not ready: {self._found}", 503) if self._found else _line("ready", 200)

    def _check(self) -> str:
        try:
            return check_database(self._session)
        except RoleError:
            return "the database role may write"
