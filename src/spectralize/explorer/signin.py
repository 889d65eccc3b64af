"""Signing in by password: a page that needs no script, a signed cookie, and a limit to guessing."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from html import escape
from pathlib import Path

from flask import Flask, Response, g, redirect, request, session
from flask.sessions import SecureCookieSessionInterface
from pydantic import SecretStr

from spectralize.explorer.peers import neighbourhood
from spectralize.explorer.settings import Settings

PATH = "/sign-in"
STYLE = "/sign-in.css"
END = "/sign-out"

#: What is shown to who is not signed in.
OPEN = frozenset({PATH, STYLE, END})

_LIFETIME = timedelta(hours=12)

#: Failures that one address, and all together, have in a minute. Whoever keeps the second full keeps everybody out who is
#: not in yet, so it is as high as a password of twelve characters allows.
_PER_ADDRESS, _OVERALL = 10, 60
_WINDOW_S = 60.0

#: As long as an address of ours ever is.
_LONGEST_NEXT = 8_000

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sign in · Spectralize</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{style}">
</head>
<body>
<main>
<h1>Sign in to Spectralize</h1>
{error}
<form method="post" action="{path}">
<input type="hidden" name="next" value="{next}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus{invalid}>
<button type="submit">Sign in</button>
</form>
</main>
</body>
</html>
"""


class Failures:
    """Counts what was guessed wrong in the last minute: a list as long as the limit, whoever asks and however often."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._found: deque[tuple[float, str]] = deque()

    def attempt(self, address: str, check: Callable[[], bool]) -> tuple[bool, int]:
        """Return whether `check` passed, and if it was not even asked, the seconds until it may be."""
        who = neighbourhood(address)
        # One at a time: many at once would all find the list short.
        with self._lock:
            now = self._clock()
            while self._found and self._found[0][0] <= now - _WINDOW_S:
                self._found.popleft()
            own = [at for at, address in self._found if address == who]
            full = [
                times[0] for times, limit in ((own, _PER_ADDRESS), (self._times(), _OVERALL)) if len(times) >= limit
            ]
            if full:
                return False, math.ceil(max(full) + _WINDOW_S - now)
            is_right = check()
            if not is_right:
                self._found.append((now, who))
            return is_right, 0

    def _times(self) -> list[float]:
        return [at for at, _ in self._found]


class SignIn:
    """The routes, and who has come through them."""

    def __init__(self, server: Flask, settings: Settings, password: SecretStr) -> None:
        self._password = password.get_secret_value()
        self._failures = Failures()
        #: Sessions that were ended before their time, whose cookies somebody may still have; gone with a restart.
        self._ended: dict[str, float] = {}
        key = settings.secret_key.get_secret_value() if settings.secret_key else secrets.token_hex(32)
        # With the password in it, so that a new password ends every session.
        server.secret_key = hmac.digest(key.encode(), self._password.encode(), "sha256")
        server.session_interface = _Sessions()
        server.config.update(
            # Browsers send cookies to every port of a host.
            SESSION_COOKIE_NAME=f"spectralize-{settings.port}",
            SESSION_COOKIE_HTTPONLY=True,
            SESSION_COOKIE_SAMESITE="Lax",
            SESSION_REFRESH_EACH_REQUEST=False,
            PERMANENT_SESSION_LIFETIME=_LIFETIME,
        )
        self._style = Path(__file__).with_name("signin.css").read_text(encoding="utf-8")
        server.add_url_rule(PATH, "sign-in", self.show, methods=["GET"])
        server.add_url_rule(PATH, "sign-in-post", self.enter, methods=["POST"])
        server.add_url_rule(END, "sign-out", self.leave, methods=["POST"])
        # Of a link, which anybody can put anywhere, nothing comes.
        server.add_url_rule(END, "sign-out-link", lambda: _see("/"), methods=["GET"])
        server.add_url_rule(STYLE, "sign-in-style", self.style, methods=["GET"])

    def is_signed_in(self) -> bool:
        """Tell whether this request's cookie is of somebody who knew the password and has not left since."""
        name = session.get("id")
        return isinstance(name, str) and name not in self._ended

    def show(self) -> Response:
        """Answer with the form."""
        following = own_path(request.args.get("next", ""))
        return _see(following) if self.is_signed_in() else _make_page(following)

    def enter(self) -> Response:
        """Check the password."""
        following = own_path(request.form.get("next", ""))
        given = request.form.get("password", "")
        is_right, wait_s = self._failures.attempt(g.peer.address, lambda: self._is_password(given))
        if wait_s:
            page = _make_page(following, f"Too many wrong passwords. Try again in {wait_s} s.", status=429)
            page.headers["Retry-After"] = str(wait_s)
            return page
        if not is_right:
            return _make_page(following, "That is not the password.", status=401)
        session.clear()
        session["id"] = secrets.token_hex(16)
        session.permanent = True
        return _see(following)

    def leave(self) -> Response:
        """End the session, here and for whoever has a copy of its cookie."""
        name, now = session.get("id"), time.monotonic()
        for old in [old for old, at in self._ended.items() if at < now - _LIFETIME.total_seconds()]:
            self._ended.pop(old, None)
        if isinstance(name, str):
            self._ended[name] = now
        session.clear()
        return _see(PATH)

    def style(self) -> Response:
        """Answer with the form's style sheet."""
        return Response(self._style, mimetype="text/css", headers={"Cache-Control": "max-age=3600"})

    def _is_password(self, given: str) -> bool:
        # Of one length, whatever was given; lone surrogates are text that no password has.
        one, other = (hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in (given, self._password))
        return hmac.compare_digest(one, other)


class _Sessions(SecureCookieSessionInterface):
    """Flask's, where a proxy may have ended TLS."""

    def get_cookie_secure(self, _app: Flask) -> bool:
        return bool(g.peer.is_https)


def own_path(text: str) -> str:
    """Return a path of this explorer, with its query; ``/`` for what would lead elsewhere."""
    is_own = (
        text.startswith("/")
        # Browsers take //host, and /\host, for another place, and drop tabs and line ends before they look.
        and not text.startswith("//")
        and "\\" not in text
        and text.isprintable()
        and len(text) <= _LONGEST_NEXT
        and text.partition("?")[0] not in {PATH, END}
    )
    return text if is_own else "/"


def _see(path: str) -> Response:
    # 303, or browsers would send the password on.
    response = redirect(path, 303)
    assert isinstance(response, Response)  # noqa: S101
    return response


def _make_page(following: str, error: str = "", status: int = 200) -> Response:
    text = _PAGE.format(
        style=STYLE,
        path=PATH,
        next=escape(following, quote=True),
        error=f'<p id="error" role="alert">{escape(error)}</p>' if error else "",
        invalid=' aria-invalid="true" aria-describedby="error"' if error else "",
    )
    return Response(text, status, {"Content-Security-Policy": _POLICY}, mimetype="text/html")
