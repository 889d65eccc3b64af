"""Who comes in: by password, or by way of a proxy."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectralize.explorer.settings import Settings
from spectralize.explorer.signin import Failures, own_path
from tests.explorer.asking import AWAY, OWN, PASSWORD, Browser, ask_callback, line


@pytest.fixture
def locked() -> Browser:
    """One with a password."""
    return Browser(Settings(dsn=AWAY, password=PASSWORD))


def test_who_is_not_signed_in_sees_the_form_and_nothing_else(locked: Browser) -> None:
    answer = locked.ask("/recordings/17?from=1&to=2")
    assert answer.status_code == 303
    place = urlsplit(answer.headers["Location"])
    assert (place.path, parse_qs(place.query)) == ("/sign-in", {"next": ["/recordings/17?from=1&to=2"]})
    for path in (
        "/_dash-layout",
        "/_dash-dependencies",
        "/assets/explorer.js",
        "/favicon.ico",
        "/x.js",
        "/_reload-hash",
    ):
        assert (locked.ask(path).status_code, line(locked.ask(path))) == (401, "Sign in first.\n"), path
    assert ask_callback(locked, "page.children", {"path": "/"}).status_code == 401
    assert locked.ask("/sign-in.css").mimetype == "text/css"
    assert locked.ask("/healthz").data == b"ok\n"
    form = locked.ask('/sign-in?next=/compare?a="><script>').text
    for part in ("<label for=", 'autocomplete="current-password"', 'value="/compare?a=&quot;&gt;&lt;script&gt;"'):
        assert part in form
    assert "<script" not in form


def test_signing_in_and_out(locked: Browser) -> None:
    wrong = locked.sign_in("wrong", "/compare")
    assert (wrong.status_code, 'role="alert"' in wrong.text, "/compare" in wrong.text) == (401, True, True)
    assert locked.ask("/").status_code == 303
    right = locked.sign_in(following="/compare?a=1")
    assert (right.status_code, right.headers["Location"]) == (303, "/compare?a=1")
    cookie = right.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "Expires" in cookie
    assert locked.ask("/").status_code == 200
    assert "Sign out" in locked.ask("/_dash-layout").text
    assert ask_callback(locked, "page.children", {"path": "/nothing"}).status_code == 200
    assert locked.ask("/sign-in?next=/overview").headers["Location"] == "/overview"
    assert locked.ask_with(cookie).status_code == 200
    assert locked.ask_with(cookie.replace("=", "=x", 1)).status_code == 303
    assert locked.ask("/sign-out").headers["Location"] == "/"
    assert locked.ask("/sign-out", "POST", headers={"Origin": "http://evil.example"}).status_code == 403
    assert locked.ask("/").status_code == 200
    assert locked.ask("/sign-out", "POST", headers={"Origin": OWN}).headers["Location"] == "/sign-in"
    assert locked.ask("/").status_code == 303
    # Nor does a copy of the cookie open it again; and without a password there is nothing to sign out of.
    assert locked.ask_with(cookie).status_code == 303
    assert "Sign out" not in Browser(Settings(dsn=AWAY)).ask("/_dash-layout").text


def test_sessions_last_as_long_as_key_and_password() -> None:
    key = "k" * 32
    first = Browser(Settings(dsn=AWAY, password=PASSWORD, secret_key=key))
    cookie = first.sign_in().headers["Set-Cookie"]
    for settings, status in (
        (Settings(dsn=AWAY, password=PASSWORD, secret_key=key), 200),
        (Settings(dsn=AWAY, password="another password", secret_key=key), 303),
        (Settings(dsn=AWAY, password=PASSWORD, secret_key="l" * 32), 303),
        (Settings(dsn=AWAY, password=PASSWORD), 303),
    ):
        assert Browser(settings).ask_with(cookie).status_code == status, settings


def test_guessing_is_slow(locked: Browser) -> None:
    def guess(address: str) -> int:
        return locked.sign_in("wrong", address=address).status_code

    assert [guess("10.0.0.1") for _ in range(11)] == [401] * 10 + [429]
    stopped = locked.sign_in(PASSWORD, address="10.0.0.1")
    assert (stopped.status_code, 0 < int(stopped.headers["Retry-After"]) <= 60) == (429, True)
    assert locked.sign_in(PASSWORD, address="10.0.0.2").status_code == 303
    # Behind a trusted proxy, the address is the one that it adds at the end.
    forwarded = {"X-Forwarded-For": "1.1.1.1, 10.0.0.1"}
    assert locked.sign_in(PASSWORD, address="127.0.0.1", headers=forwarded).status_code == 429
    # Who has a network of IPv6 has all its addresses.
    assert [guess(f"2001:db8::{number:x}") for number in range(1, 12)] == [401] * 10 + [429]
    assert guess("2001:db8:0:1::1") == 401
    assert [guess(f"10.0.1.{number}") for number in range(60)].count(429) > 10
    assert locked.sign_in(PASSWORD, address="10.0.3.1").status_code == 429


def test_failures_are_forgotten_after_a_minute() -> None:
    now = 0.0
    failures = Failures(lambda: now)
    for _ in range(10):
        assert failures.attempt("a", lambda: False) == (False, 0)
        now += 1
    assert failures.attempt("a", lambda: pytest.fail("was asked")) == (False, 50)
    now = 60.5
    assert failures.attempt("a", lambda: True) == (True, 0)


@given(st.text(alphabet=st.sampled_from("/\\.?#%@:\t\n\r\x00ae0\u2028 "), max_size=12))
def test_signing_in_leads_nowhere_else(text: str) -> None:
    for given_text in (text, f"/{text}", f"//{text}"):
        path = own_path(given_text)
        assert path.startswith("/")
        assert not re.match(r"/[/\\]", path)
        assert path.isprintable()
        assert "\\" not in path
        assert not urlsplit(path).netloc


@pytest.mark.parametrize(
    "following",
    ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "evil", "javascript:1"],
)
def test_no_open_redirect(locked: Browser, following: str) -> None:
    assert locked.sign_in(following=following).headers["Location"] == "/"


def test_a_proxy_says_who_it_is() -> None:
    settings = Settings(
        dsn=AWAY,
        host="0.0.0.0",
        proxy_header="X-Remote-User",
        trusted_proxies="10.1.0.0/16, ::1",
        hosts=("audio.example",),
    )
    browser = Browser(settings, url="http://audio.example")
    user = {"X-Remote-User": "<script>\u00e9"}
    assert browser.ask("/", address="10.1.2.3", headers=user).status_code == 200
    assert browser.ask("/", address="::ffff:10.1.2.3", headers=user).status_code == 200
    assert browser.ask("/", address="::1", headers=user).status_code == 200
    for address, headers in (
        ("10.2.0.1", user),
        ("127.0.0.1", user),
        ("10.1.2.3", {}),
        ("10.1.2.3", {"X-Remote-User": "  "}),
        ("", user),
        ("10.2.0.1", user | {"X-Forwarded-For": "10.1.2.3"}),
    ):
        answer = browser.ask("/", address=address or "unknown", headers=headers)
        assert (answer.status_code, line(answer)) == (401, "Come by way of the proxy that signs people in.\n"), address
    assert browser.ask("/sign-in", address="10.1.2.3", headers=user).status_code == 404
    assert [browser.ask(path, address="10.1.2.3").status_code for path in ("/sign-in", "/sign-out", "/healthz")] == [
        401, 401, 200,
    ]  # fmt: skip


def test_what_a_proxy_forwards() -> None:
    settings = Settings(dsn=AWAY, password=PASSWORD, trusted_proxies="10.1.0.0/16", hosts=("audio.example",))
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "audio.example", "Origin": "https://audio.example"}
    trusted = Browser(settings).sign_in(address="10.1.2.3", headers=forwarded)
    assert "; Secure" in trusted.headers["Set-Cookie"]
    assert "; Secure" not in Browser(settings).sign_in(address="10.2.2.3", headers=forwarded).headers["Set-Cookie"]
    unnamed = settings.model_copy(update={"hosts": ()})
    assert Browser(unnamed).sign_in(address="10.2.2.3", headers=forwarded).status_code == 403
