"""Who asks, from where, and by which name: what the lines of a request are worth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from spectralize.explorer.settings import Settings

#: What browsers put into ``Host``: a name or an address, and perhaps a port.
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

#: What `Sec-Fetch-Site` says of a page of somebody else. Another port of this machine is ``same-site``, and somebody else.
_FOREIGN = frozenset({"cross-site", "same-site"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a request.

    Attributes
    ----------
    address
        Of the client, as far as we can know it; empty if not at all.
    is_proxy
        Whether it came from an address whose ``X-Forwarded-*`` and user's name are believed.
    is_https
        Whether the browser came by https.
    hosts
        Names that we were asked by: on the wire, and at the proxy.
    user
        As whom the proxy knows them; empty if as nobody. Hostile text.
    """

    address: str
    is_proxy: bool
    is_https: bool
    hosts: tuple[str, ...]
    user: str


def read_peer(environ: Mapping[str, Any], settings: Settings) -> Peer:
    """Read what a WSGI environment says of the other end; of forwarded lines, only those of a trusted proxy."""
    address = as_address(str(environ.get("REMOTE_ADDR", "")))
    is_proxy = address is not None and any(address in network for network in settings.trusted_proxies)

    def forwarded(name: str) -> str:
        # Each proxy adds what it saw at the end; what stands before it may be the client's invention.
        return str(environ.get(f"HTTP_X_FORWARDED_{name}", "")).rpartition(",")[2].strip() if is_proxy else ""

    client = as_address(forwarded("FOR")) or address
    variable = f"HTTP_{settings.proxy_header.upper().replace('-', '_')}"
    return Peer(
        address="" if client is None else str(client),
        is_proxy=is_proxy,
        is_https=(forwarded("PROTO") or environ.get("wsgi.url_scheme")) == "https",
        hosts=tuple(host.lower() for host in (str(environ.get("HTTP_HOST", "")), forwarded("HOST")) if host),
        user=str(environ.get(variable, "")).strip() if is_proxy and settings.proxy_header else "",
    )


def as_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address; one of IPv4 that comes in IPv6's clothes is one of IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def neighbourhood(address: str) -> str:
    """Return what one person has: an address, or with IPv6 the 64 bits of a network, which hold any number of them."""
    found = as_address(address)
    return str(IPv6Network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address


def is_answered(peer: Peer, settings: Settings) -> bool:
    """Tell whether we answer to the name we were asked by.

    A page from anywhere can have its own name lead to 127.0.0.1, and its script then reads us as its own (DNS rebinding).
    The name is all that gives it away; so what was on the wire counts as well as what a proxy says: such a script can
    write ``X-Forwarded-Host``, but not ``Host``.
    """
    return bool(peer.hosts) and all(_is_our_name(host, settings) for host in peer.hosts)


def _is_our_name(host: str, settings: Settings) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match["name"].strip("[]").rstrip(".")
    if name in settings.hosts:
        return True
    if not settings.is_loopback:
        return not settings.hosts
    address = as_address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def is_foreign(environ: Mapping[str, Any], peer: Peer, settings: Settings) -> bool:
    """Tell whether a page of somebody else has its visitor's browser ask.

    Following a link to us is not foreign; putting us into a page, and sending a form, is.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    is_reading = environ.get("REQUEST_METHOD") in {"GET", "HEAD"}
    if site in _FOREIGN:
        is_link = environ.get("HTTP_SEC_FETCH_MODE") == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        return not (is_reading and is_link)
    origin = environ.get("HTTP_ORIGIN")
    # A browser that says same-origin knows better than a name that a proxy may have changed on the way.
    if origin is None or is_reading or site == "same-origin":
        return False
    return not _is_our_origin(str(origin), peer, settings)


def _is_our_origin(origin: str, peer: Peer, settings: Settings) -> bool:
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return False
    # Whoever ends TLS for us may not say so: of the scheme nothing is known.
    place = re.sub(":(80|443)$", "", parts.netloc)
    return parts.hostname in settings.hosts or place in {re.sub(":(80|443)$", "", host) for host in peer.hosts}
