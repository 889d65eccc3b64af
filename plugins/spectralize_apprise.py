"""Sending through Apprise: Slack, e-mail, PagerDuty, webhooks and a hundred more, as Airflow connections name them.

A connection of type Apprise, `alerts_<owner>` or else `alerts_default`, holds the addresses:
`{"config": [{"path": "mailto://…"}, {"path": "slack://…"}]}`.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Collection
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from spectralize.alerts import Sent
from spectralize.errors import ConfigError

if TYPE_CHECKING:
    from apprise import Apprise, NotifyBase

    from spectralize_messages import Message

logger = logging.getLogger(__name__)

ALERTS_CONN_ID = "alerts_default"

#: How long all receivers of a message may take together. A callback of a DAG has 50 s, and an answer may drip for ever.
_DEADLINE_S = 20.0

_TYPES = {"failed": "failure", "late": "warning", "away": "failure", "recovered": "success"}


def send_message(owner: str, message: Message, reached: Collection[str]) -> Sent:
    """Send a message to every receiver of an owner that does not have it yet.

    What goes wrong with a receiver, or with how they are written down, is a line of the answer. With nobody to send to, the
    message goes to the log, and counts as sent: it would be old when somebody is found.
    """
    conn_id = connection_of(owner)
    try:
        addresses = _addresses(conn_id)
    except ConfigError as error:
        logger.warning("%s; this is what its receivers would read:\n%s", error, message.text)
        return Sent(errors=[str(error)])
    if not addresses:
        logger.warning("no receivers in connection %s; this is what they would read:\n%s", conn_id, message.text)
        return Sent()
    posts = list[_Letter | str]()
    for number, address in enumerate(addresses, start=1):
        receivers = _receivers(address)
        if receivers is None:
            # An address may hold a password, and is not shown.
            posts.append(f"connection {conn_id}: address {number} of {len(addresses)} is none that Apprise knows")
            continue
        for position, receiver in enumerate(receivers):
            # Not Apprise's own `url_id`: that is the same for two mailboxes, or channels, of one account.
            name = sha256(f"{position} {address}".encode()).hexdigest()
            if name not in reached:
                where = f"connection {conn_id}: address {number} of {len(addresses)} ({receiver.service_name})"
                posts.append(_Letter(name, where, receiver, message))
    ends_at = time.monotonic() + _DEADLINE_S
    reached_now, errors = [], []
    for post in posts:
        # What arrives after the deadline counts as not sent, and is sent again.
        error = post if isinstance(post, str) else post.wait(max(ends_at - time.monotonic(), 0.0))
        if error is not None:
            logger.warning("%s", error)
            errors.append(error)
        elif isinstance(post, _Letter):
            reached_now.append(post.name)
    return Sent(reached_now, errors)


class _Letter(threading.Thread):
    """A message on its way to one receiver, beside the others: one that hangs takes nobody's time but its own."""

    def __init__(self, receiver_id: str, where: str, receiver: NotifyBase, message: Message) -> None:
        super().__init__(name=receiver_id, daemon=True)
        self._where = where
        self._answer: str | None = f"no answer within {_DEADLINE_S:g} s"
        self._receiver, self._message = receiver, message
        self.start()

    def run(self) -> None:
        """Send it, and keep why it could not be done, or None."""
        try:
            self._answer = _notify(self._receiver, self._message)
        except Exception as error:
            logger.exception("%s", self._where)
            self._answer = f"{type(error).__name__}: {error}"

    def wait(self, timeout_s: float) -> str | None:
        """Wait until it has arrived; return why it has not, or None."""
        self.join(timeout_s)
        answer = self._answer
        return None if answer is None else f"{self._where}: {answer}"


def connection_of(owner: str) -> str:
    """Return the id of the connection that an owner is told by."""
    own = f"alerts_{re.sub(r'[^A-Za-z0-9_.-]+', '_', owner)}"
    try:
        BaseHook.get_connection(own)
    except AirflowNotFoundException:
        return ALERTS_CONN_ID
    return own


def _addresses(conn_id: str) -> list[str]:
    """Return the addresses of a connection, one that is no text as an empty one; none if there is no such connection.

    Raises
    ------
    ConfigError
        If it does not say where they are. Nothing of it is quoted: it may hold a password.
    """
    try:
        extra = BaseHook.get_connection(conn_id).extra_dejson
    except AirflowNotFoundException:
        return []
    config = extra.get("config") if isinstance(extra, dict) else None
    try:
        config = json.loads(config) if isinstance(config, str) else config
    except ValueError:
        config = None
    if not isinstance(config, list | dict):
        raise ConfigError(f'connection {conn_id}: its extra must be {{"config": [{{"path": "an address"}}, …]}}')
    paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in _as_list(config)]
    return [address if isinstance(address, str) else "" for path in paths for address in _as_list(path)]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _receivers(address: str) -> Apprise | None:
    import apprise

    # The deadline is ours: Apprise's own leaves a thread behind that the process waits for when it ends.
    receivers = apprise.Apprise(asset=apprise.AppriseAsset(service_timeout=0))
    with apprise.LogCapture():
        if not receivers.add(address):
            return None
    for receiver in receivers:
        # Some services refuse what is longer than they take (Discord: 2,000 letters), and would refuse it each time.
        if not _is_mail(receiver) and "overflow=" not in address:
            receiver.overflow_mode = apprise.OverflowMode.SPLIT
    return receivers


def _notify(receiver: NotifyBase, message: Message) -> str | None:
    """Send to one receiver; return why it could not be done, or None.

    Mail is HTML. Everybody else gets plain text, which Apprise turns into what the service takes: keys and reasons are hostile,
    and not every service's markup is HTML's.
    """
    import apprise

    is_mail = _is_mail(receiver)
    own = f"{threading.get_ident()} "
    one = apprise.Apprise()
    one.add(receiver)
    with apprise.LogCapture(level=apprise.logging.WARNING, fmt="%(thread)d %(message)s") as log:
        is_sent = one.notify(
            title=message.title,
            body=message.html if is_mail else message.text,
            body_format=apprise.NotifyFormat.HTML if is_mail else apprise.NotifyFormat.TEXT,
            notify_type=apprise.NotifyType(_TYPES[message.kind]),
            # What looks like an escape in a key is none.
            interpret_escapes=False,
        )
        # Others send beside this one, and the log is everybody's.
        said = [line.removeprefix(own).strip() for line in log.getvalue().splitlines() if line.startswith(own)]
    return None if is_sent else (said or ["it was not sent, and Apprise does not say why"])[0]


def _is_mail(receiver: NotifyBase) -> bool:
    return any("mailto" in _as_list(names) for names in (receiver.protocol, receiver.secure_protocol))
