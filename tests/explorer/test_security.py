"""Who is answered, and what stands around every answer."""

import base64
import hashlib
import json
import re
from typing import Any

import pytest
from dash import Input, Output

from spectralize.errors import ReadError
from spectralize.explorer import app as application
from spectralize.explorer.callbacks import overview
from spectralize.explorer.context import BoundedSession, Explorer
from spectralize.explorer.settings import Settings
from spectralize.reader import Store
from tests.explorer.asking import AWAY, OWN, PASSWORD, Browser, ask_callback, line


@pytest.fixture(scope="module")
def open_one() -> Browser:
    """One on loopback, which asks nobody who they are."""
    return Browser(Settings(dsn=AWAY))


#: Of every explorer.
CALLBACKS = application.make_app(Settings(dsn=AWAY), Store(BoundedSession(Settings(dsn=AWAY)))).callback_map


@pytest.fixture
def locked() -> Browser:
    """One with a password."""
    return Browser(Settings(dsn=AWAY, password=PASSWORD))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8050", 200), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:8050", 200), ("127.9.9.9", 200),
        ("evil.example:8050", 400), ("localhost.evil.example", 400), ("", 400), ("127.0.0.1:8050, evil", 400),
        ("127.0.0.1@evil.example", 400), ("[::1", 400), ("10.0.0.1", 400),
    ],
)  # fmt: skip
def test_on_loopback_it_answers_to_no_foreign_name(open_one: Browser, host: str, status: int) -> None:
    answer = open_one.ask("/", headers={"Host": host})
    assert answer.status_code == status
    if status == 400:
        line(answer)


def test_names_can_be_given(open_one: Browser) -> None:
    named = Browser(Settings(dsn=AWAY, hosts=("audio.example.org",)))
    assert named.ask("/", headers={"Host": "audio.example.org:8050"}).status_code == 200
    assert named.ask("/", headers={"Host": "localhost"}).status_code == 200
    assert named.ask("/", headers={"Host": "other.example.org"}).status_code == 400
    elsewhere = Settings(dsn=AWAY, host="0.0.0.0", password=PASSWORD)
    assert Browser(elsewhere).ask("/sign-in", headers={"Host": "any.example"}).status_code == 200
    only = Browser(elsewhere.model_copy(update={"hosts": ("audio.example.org",)}))
    assert only.ask("/sign-in", headers={"Host": "any.example"}).status_code == 400
    # Who asks whether we are alive knows our address only.
    assert only.ask("/healthz", headers={"Host": "10.1.2.3"}).status_code == 200
    # A page whose name leads here may say what it likes of where it came by.
    forged = {"Host": "evil.example", "X-Forwarded-Host": "localhost"}
    assert open_one.ask("/", headers=forged).status_code == 400
    assert open_one.ask("/", headers={"Host": "localhost", "X-Forwarded-Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": OWN}, 200),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://127.0.0.1:8050"}, 200),  # TLS that ends at a proxy which does not say so
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8050.evil.example"}, 403),
        ({"Origin": "http://[half"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_others_cannot_send_us_anything(
    open_one: Browser, locked: Browser, headers: dict[str, str], status: int
) -> None:
    assert ask_callback(open_one, "page.children", {"path": "/nothing"}, headers=headers).status_code == status
    assert locked.sign_in(headers=headers).status_code == (303 if status == 200 else 403)


def test_pages_of_others_may_link_to_us_but_not_show_us(open_one: Browser) -> None:
    foreign = {"Sec-Fetch-Site": "cross-site"}
    link = foreign | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert open_one.ask("/", headers=link).status_code == 200
    assert open_one.ask("/", headers=link | {"Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert open_one.ask("/_dash-layout", headers=foreign | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 200, "text/html"), ("/recordings/17", 200, "text/html"), ("/batches/", 200, "text/html"),
        ("/nothing", 404, "text/html"), ("/recordings/0", 404, "text/html"),
        ("/favicon.ico", 404, "text/plain"), ("/x.js", 404, "text/plain"), ("/_x", 404, "text/plain"),
        ("/.git/config", 404, "text/html"), ("/assets/../settings.py", 404, "text/plain"),
        ("/assets/none.css", 404, "text/plain"), ("/_dash-component-suites/%3Cb%3E/x.js", 404, "text/plain"),
        ("/_dash-component-suites/dash/none.js", 404, "text/plain"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_so(open_one: Browser, path: str, status: int, kind: str) -> None:
    answer = open_one.ask(path)
    assert (answer.status_code, answer.mimetype) == (status, kind)
    if kind == "text/plain":
        assert line(answer) == "There is no such file.\n" or path.startswith("/assets")


def test_every_answer_has_the_headers(open_one: Browser, locked: Browser) -> None:
    answers = [
        open_one.ask("/"), open_one.ask("/nothing"), open_one.ask("/x.js"), open_one.ask("/_dash-layout"),
        open_one.ask("/assets/explorer.css"), open_one.ask("/healthz"), open_one.ask("/", headers={"Host": "evil"}),
        open_one.ask("/", "POST"), open_one.ask("/_dash-update-component", "POST", data=b"x" * (2 << 20)),
        locked.ask("/"), locked.ask("/sign-in"), locked.ask("/_dash-layout"), locked.sign_in("wrong"), locked.sign_in(),
    ]  # fmt: skip
    assert [answer.status_code for answer in answers] == [
        200, 404, 404, 200, 200, 200, 400, 405, 413, 303, 200, 401, 401, 303,
    ]  # fmt: skip
    for answer in answers:
        headers = answer.headers
        policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
        assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
        assert "unsafe" not in policy.get("script-src", "")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "microphone=()" in headers["Permissions-Policy"]
        assert "Server" not in headers
        is_tagged = "ETag" in headers
        assert headers["Cache-Control"] == ("no-cache" if is_tagged else "no-store"), answer.request.path
    # The line that starts Dash may run, and no other.
    page = re.sub("<!--.*?-->", "", answers[0].text, flags=re.DOTALL)
    [text] = re.findall(r"<script(?![^>]*(?:src=|json))[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in answers[0].headers["Content-Security-Policy"]


def test_requests_that_no_page_sends(open_one: Browser) -> None:
    bodies = [
        b"", b"{", b"[]", b"[" * 100_000, b'{"output": 5}', b'{"output": "none.children"}',
        b'{"output": "page.children", "inputs": 5}', b'{"output": "page.children", "inputs": [3]}',
        b'{"output": "page.children", "inputs": [[[]]]}', b'{"output": {"a": 1}}', b"9" * 10_000,
    ]  # fmt: skip
    for body in bodies:
        answer = open_one.ask("/_dash-update-component", "POST", data=body, content_type="application/json")
        assert (answer.status_code, line(answer)) == (400, "That is no request of a page.\n"), body[:50]
    assert open_one.ask("/_dash-update-component", "POST", data=b"x" * (2 << 20)).status_code == 413


def shown(search: Any) -> dict[str, Any]:
    return {"id": "url", "property": "search", "value": search}


def sorting(ids: Any = None, changed: Any = None, **others: Any) -> dict[str, Any]:
    """What a page sends when a column's head is touched."""
    name = {"type": "recordings-sort", "column": "title"} if ids is None else ids
    output = next(
        key for key, one in CALLBACKS.items() if "callback" in one and "recordings-sort" in str(one["inputs"])
    )
    return {
        "output": output,
        "outputs": {"id": "url", "property": output.partition(".")[2]},
        "inputs": [[{"id": name, "property": "n_clicks", "value": 1}]],
        "state": [
            shown("?q=x"),
            {"id": "url", "property": "pathname", "value": "/"},
        ],
        "changedPropIds": [
            '{"column":"title","type":"recordings-sort"}.n_clicks' if changed is None else changed,
        ],
    } | others  # fmt: skip


VISITED: dict[str, Any] = {
    "output": "page.children",
    "outputs": {"id": "page", "property": "children"},
    "inputs": [{"id": "visit", "property": "data", "value": {"path": "/nothing"}}],
    "changedPropIds": ["visit.data"],
}


def visiting(value: Any) -> list[dict[str, Any]]:
    return [{"id": "visit", "property": "data", "value": value}]


@pytest.mark.parametrize(
    "body",
    [
        # Dash would look into each of these, and end with a traceback in the log.
        *(VISITED | {"outputs": outputs} for outputs in (None, 5, "page", [], {}, {"id": [], "property": "children"})),
        *(VISITED | {"outputs": {"id": "page", "property": prop}} for prop in (None, 5, "title")),
        *(VISITED | {"inputs": inputs} for inputs in ([], [[]], visiting({}) * 2, [{"id": {}, "property": "data"}])),
        *(VISITED | {"inputs": visiting(value)} for value in (True, 5, 1e308, "x", [], [1])),
        VISITED | {"state": visiting({})},
        *(VISITED | {"changedPropIds": changed} for changed in (5, [5], [[]], [{}], ["{.data"], ["{}.data"])),
        # Called in the browser.
        VISITED | {"output": "theme.data", "outputs": {"id": "theme", "property": "data"}},
        *(sorting(ids=name) for name in (5, "x", {}, {"type": "recordings-sort"}, {"type": [], "column": "title"})),
        *(sorting(changed=name) for name in ("{bad.n_clicks", "{}.n_clicks", '{"type":"x"}.n_clicks')),
        sorting(inputs=[5]), sorting(inputs=[[5]]), sorting(inputs=[]), sorting(state=[]),
        *(sorting(state=[shown(value), sorting()["state"][1]]) for value in (5, [1], {"a": 1})),
    ],
    ids=lambda body: str(body)[-60:],
)  # fmt: skip
def test_what_no_page_sends_does_not_reach_a_callback(
    open_one: Browser, caplog: pytest.LogCaptureFixture, body: dict[str, Any]
) -> None:
    answer = open_one.ask("/_dash-update-component", "POST", json=body)
    assert (answer.status_code, line(answer)) == (400, "That is no request of a page.\n")
    assert not caplog.records


def test_what_pages_send_reaches_one(open_one: Browser, caplog: pytest.LogCaptureFixture) -> None:
    def ask(body: dict[str, Any]) -> Any:
        return json.loads(open_one.ask("/_dash-update-component", "POST", json=body).data)["response"]

    assert "There is no such page" in str(ask(VISITED))
    # A component that is not there has no value.
    assert "page" in ask(VISITED | {"inputs": visiting(None)})
    assert ask(sorting()) == {"url": {"search": "?q=x&sort=title"}}
    # Of a page that is left meanwhile.
    assert ask(sorting(inputs=[[]], changedPropIds=[])) == {}
    assert not [record for record in caplog.records if record.exc_info]


def test_errors_of_callbacks_are_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def register(app: Any, _explorer: Explorer) -> None:
        @app.callback(Output("one", "children"), Input("visit", "data"))
        def stumble(data: dict[str, str]) -> str:
            if data["path"] == "/read":
                raise ReadError("recording 17: not\nin the store")
            raise ValueError(f"cannot use {AWAY}")

    monkeypatch.setattr(overview, "register", register)
    browser = Browser(Settings(dsn=AWAY))
    answer = ask_callback(browser, "one.children", {"path": "/"})
    assert answer.status_code == 200
    said = json.loads(answer.data)
    assert (said["response"], said["sideUpdate"].keys()) == ({}, {"trouble"})
    assert "Something went wrong here" in answer.text
    for secret in ("topsecret", "Traceback", "ValueError", "cannot use"):
        assert secret not in answer.text
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert r"recording 17: not\\nin the store" in ask_callback(browser, "one.children", {"path": "/read"}).text


def test_errors_of_routes_are_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def register(server: Any, _explorer: Explorer) -> None:
        @server.route("/broken")
        def stumble() -> str:
            raise ValueError(f"cannot use {AWAY}")

    monkeypatch.setattr(application.media, "register", register)
    answer = Browser(Settings(dsn=AWAY)).ask("/broken")
    assert (answer.status_code, line(answer)) == (500, "Something went wrong here; the explorer's log says what.\n")
    assert len(caplog.records) == 1
