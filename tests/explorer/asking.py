"""A client of the explorer that sends what browsers, proxies and others send."""

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from spectralize.explorer.app import make_app
from spectralize.explorer.context import BoundedSession
from spectralize.explorer.settings import Settings
from spectralize.reader import Store

#: Nothing listens there, and its password is to be seen nowhere.
AWAY = "postgresql://someone:topsecret@127.0.0.1:9/features"
PASSWORD = "correct horse battery"
OWN = "http://127.0.0.1:8050"


class Browser:
    """A client at one address that keeps its cookies."""

    def __init__(self, settings: Settings, address: str = "127.0.0.1", url: str = OWN) -> None:
        self._client: FlaskClient = make_app(settings, Store(BoundedSession(settings))).server.test_client()
        self._address, self._url = address, url

    def ask(self, path: str, method: str = "GET", *, address: str = "", **options: Any) -> TestResponse:
        return self._client.open(
            path, method=method, base_url=self._url, environ_base={"REMOTE_ADDR": address or self._address}, **options
        )

    def ask_with(self, cookie: str) -> TestResponse:
        """Ask for the first page with this cookie, and no other."""
        client = self._client.application.test_client(use_cookies=False)
        return client.get("/", base_url=self._url, headers={"Cookie": cookie.partition(";")[0]})

    def sign_in(self, password: str = PASSWORD, following: str = "", **options: Any) -> TestResponse:
        return self.ask("/sign-in", "POST", data={"password": password, "next": following}, **options)


def line(answer: TestResponse) -> str:
    text = answer.get_data(as_text=True)
    assert answer.mimetype == "text/plain"
    assert text.count("\n") == 1
    return text


def ask_callback(browser: Browser, output: str, value: Any, **options: Any) -> TestResponse:
    name, _, prop = output.partition(".")
    body = {
        "output": output,
        "outputs": {"id": name, "property": prop},
        "inputs": [{"id": "visit", "property": "data", "value": value}],
        "changedPropIds": ["visit.data"],
    }
    return browser.ask("/_dash-update-component", "POST", json=body, **options)
