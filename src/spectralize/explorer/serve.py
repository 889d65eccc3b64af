"""The explorer as a process: waitress in front of Flask."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

from waitress.server import create_server  # type: ignore[import-untyped]

from spectralize.errors import ConfigError, ServiceError
from spectralize.explorer.app import make_app
from spectralize.explorer.context import BoundedSession, check_database
from spectralize.explorer.settings import Settings
from spectralize.reader import Store

_LOG = logging.getLogger(__name__)

#: So many requests are worked on at a time, and so many connections to the database there are.
_THREADS = 8

#: What one client, or many, can make us hold. Requests are small: the largest is what a page says of its own state.
_LIMITS = {
    "connection_limit": 200,
    "channel_timeout": 60,
    "cleanup_interval": 10,
    "max_request_header_size": 32 << 10,
    # Somewhat above Flask's, whose answer has our headers.
    "max_request_body_size": 4 << 20,
}


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Answer requests until the process is told to end; `announce` hears the address once it listens.

    Raises
    ------
    ConfigError
        If the host is not of this machine, or the database lets us write where others reach us.
    ServiceError
        If the port is taken.
    """
    signal.signal(signal.SIGTERM, _end)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # A browser asks for more things at once than there are threads: they wait for a moment, which is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    store = Store(BoundedSession(settings))
    reason = check_database(store.session)
    if reason:
        # It may come up after us. Pages say it until then.
        _LOG.warning("%s", reason)
    # This thread asks for nothing more.
    store.close()
    app = make_app(settings, store)
    with _listen(settings) as listening:
        port = listening.getsockname()[1]
        server = create_server(
            app.server,
            sockets=[listening],
            threads=_THREADS,
            ident=None,
            # Whom to believe what such headers say is decided by `security`, which knows networks.
            clear_untrusted_proxy_headers=False,
            expose_tracebacks=False,
            **_LIMITS,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        announce(f"http://{host}:{port}")
        # Returns when interrupted, after what is under way or five seconds.
        server.run()
    store.close()


def _end(_number: int, _frame: FrameType | None) -> None:
    # What waitress waits for.
    raise SystemExit(0)


def _listen(settings: Settings) -> socket.socket:
    where = f"port {settings.port} of {settings.host}"
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        is_both = settings.host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, dualstack_ipv6=is_both)
    except socket.gaierror as error:
        raise ConfigError(f"{settings.host}: no address of this machine ({error.strerror})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ServiceError(f"{where} cannot be listened on: {reason}; --port or --host names another") from error
