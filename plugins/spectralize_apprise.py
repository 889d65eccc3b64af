"""Sending through Apprise: Slack, e-mail, PagerDuty, webhooks and a hundred more, as Airflow connections name them.

A connection of type Apprise, `alerts_<owner>` or else `alerts_default`, holds the addresses:
`{"config": [{"path": "mailto://…"}, {"path": "slack://…"}]}`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from spectralize.alerts import Sent

if TYPE_CHECKING:
    from apprise import Apprise, NotifyBase

    from spectralize_messages import Message

logger = logging.getLogger(__name__)

ALERTS_CONN_ID = "alerts_default"

_TYPES = {"failed": "failure", "late": "warning", "away": "failure", "recovered": "success"}


def send_message(owner: str, message: Message, reached: Collection[str]) -> Sent:
    """Send a message to every receiver of an owner that does not have it yet.

    Nothing is raised: what goes wrong with a receiver is a line of the answer. With nobody to send to, the message goes to the
    log, and counts as sent: it would be old when somebody is found.
    """
    conn_id = connection_of(owner)
    addresses = _addresses(conn_id)
    if not addresses:
        logger.warning("no receivers in connection %s; this is what they would read:\n%s", conn_id, message.text)
        return Sent()
    now_reached, errors = [], []
    for number, address in enumerate(addresses, start=1):
        receivers = _receivers(address)
        if receivers is None:
            # An address may hold a password, and is not shown.
            errors.append(f"connection {conn_id}: address {number} of {len(addresses)} is none that Apprise knows")
            continue
        for receiver in receivers:
            name = receiver.url_id()
            if name in reached:
                continue
            error = _notify(receiver, message)
            if error is None:
                now_reached.append(name)
            else:
                errors.append(
                    f"connection {conn_id}: address {number} of {len(addresses)} ({receiver.service_name}): {error}"
                )
    for error in errors:
        logger.warning("%s", error)
    return Sent(now_reached, errors)


def connection_of(owner: str) -> str:
    """Return the id of the connection that an owner is told by."""
    own = f"alerts_{re.sub(r'[^A-Za-z0-9_.-]+', '_', owner)}"
    try:
        BaseHook.get_connection(own)
    except AirflowNotFoundException:
        return ALERTS_CONN_ID
    return own


def _addresses(conn_id: str) -> list[str]:
    try:
        extra = BaseHook.get_connection(conn_id).extra_dejson
    except AirflowNotFoundException:
        return []
    config = extra.get("config") or []
    config = json.loads(config) if isinstance(config, str) else config
    entries = [config] if isinstance(config, dict) else config
    return [str(path) for entry in entries for path in _as_list(entry.get("path"))]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _receivers(address: str) -> Apprise | None:
    import apprise

    receivers = apprise.Apprise()
    with apprise.LogCapture():
        return receivers if receivers.add(address) else None


def _notify(receiver: NotifyBase, message: Message) -> str | None:
    """Send to one receiver; return why it could not be done, or None.

    Mail is HTML. Everybody else gets plain text, which Apprise turns into what the service takes: keys and reasons are hostile,
    and not every service's markup is HTML's.
    """
    import apprise

    is_mail = "mailto" in _schemas(receiver)
    one = apprise.Apprise()
    one.add(receiver)
    with apprise.LogCapture(level=apprise.logging.WARNING, fmt="%(message)s") as log:
        is_sent = one.notify(
            title=message.title,
            body=message.html if is_mail else message.text,
            body_format=apprise.NotifyFormat.HTML if is_mail else apprise.NotifyFormat.TEXT,
            notify_type=apprise.NotifyType(_TYPES[message.kind]),
            # What looks like an escape in a key is none.
            interpret_escapes=False,
        )
        said = [line.strip() for line in log.getvalue().splitlines() if line.strip()]
    return None if is_sent else (said or ["it was not sent, and Apprise does not say why"])[0]


def _schemas(receiver: NotifyBase) -> set[str]:
    return {name for names in (receiver.protocol, receiver.secure_protocol) for name in _as_list(names) or ()}
