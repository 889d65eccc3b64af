"""Where alerts go in tests: a webhook and a mail server on loopback that keep what they are sent."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

#: Looked for where it must not be.
SECRET = "9f1c-webhook-secret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Receivers:
    """A webhook and a mail server, both of which can be away for a while, at the same address."""

    webhook_port: int = field(default_factory=free_port)
    mail_port: int = field(default_factory=free_port)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    _http: ThreadingHTTPServer | None = None
    _smtp: Controller | None = None

    @property
    def webhook(self) -> str:
        return f"json://hook:{SECRET}@127.0.0.1:{self.webhook_port}/hook"

    @property
    def mail(self) -> str:
        return f"mailto://127.0.0.1:{self.mail_port}?from=spectralize@example.org&to=on-call@example.org&mode=insecure"

    def up(self) -> None:
        receivers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receivers.payloads.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                # Not 204, which not every service's plugin takes for an answer.
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Mailbox:
            async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
                receivers.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
                return "250 OK"

        ThreadingHTTPServer.allow_reuse_address = True
        self._http = ThreadingHTTPServer(("127.0.0.1", self.webhook_port), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self._smtp = Controller(Mailbox(), hostname="127.0.0.1", port=self.mail_port)
        self._smtp.start()

    def down(self) -> None:
        if self._http:
            self._http.shutdown()
            self._http.server_close()
        if self._smtp:
            self._smtp.stop()
        self._http = self._smtp = None

    @property
    def titles(self) -> list[str]:
        return [payload["title"] for payload in self.payloads]

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


@contextmanager
def open_receivers() -> Iterator[Receivers]:
    receivers = Receivers()
    receivers.up()
    try:
        yield receivers
    finally:
        receivers.down()
