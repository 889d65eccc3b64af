"""How an explorer is set up: by its command line and the environment, where its secrets are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from spectralize.errors import ConfigError

LOOPBACK = "127.0.0.1"
PORT = 8050

#: Shorter ones can be guessed by whoever reaches us; sign-in is slow for them, but never closed.
_PASSWORD_LENGTH = 12
_KEY_LENGTH = 32
#: Of a file with a password. A longer one is some other file.
_LONGEST_FILE = 4096

_VARIABLES = {
    "host": "SPECTRALIZE_EXPLORER_HOST",
    "port": "SPECTRALIZE_EXPLORER_PORT",
    "dsn": "SPECTRALIZE_DSN",
    "airflow_url": "SPECTRALIZE_AIRFLOW_URL",
    "password": "SPECTRALIZE_EXPLORER_PASSWORD",
    "proxy_header": "SPECTRALIZE_EXPLORER_PROXY_HEADER",
    "trusted_proxies": "SPECTRALIZE_EXPLORER_TRUSTED_PROXIES",
    "hosts": "SPECTRALIZE_EXPLORER_HOSTS",
    "secret_key": "SPECTRALIZE_EXPLORER_SECRET_KEY",
}
_PASSWORD_FILE = "SPECTRALIZE_EXPLORER_PASSWORD_FILE"  # noqa: S105

Network = IPv4Network | IPv6Network


class Settings(BaseModel):
    """What an explorer is told.

    Attributes
    ----------
    dsn
        Address of the database, that of a role that only reads; None is that of ``SPECTRALIZE_DSN``.
    host, port
        Where it listens; port 0 is any that is free.
    airflow_url
        Airflow as people reach it, for links; empty where nobody has said.
    password
        What people sign in with; None where they need not, or a proxy does it.
    proxy_header
        In which a reverse proxy says who somebody is; empty where there is none.
    trusted_proxies
        From which addresses that header counts, and ``X-Forwarded-*``.
    hosts
        Names that are answered to; empty is those of loopback, or any where it is bound elsewhere.
    secret_key
        What sessions are signed with; without it, everyone signs in again after a restart.
    """

    # What is wrong may be a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    dsn: Annotated[str | None, Field(repr=False)] = None
    host: str = LOOPBACK
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    airflow_url: str = ""
    password: SecretStr | None = None
    proxy_header: Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9-]{0,99})?$")] = ""
    trusted_proxies: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    hosts: tuple[str, ...] = ()
    secret_key: SecretStr | None = None

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            # A name, and names may come to mean something else.
            return False

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        host = host.strip("[]").lower()
        if not re.fullmatch("[a-z0-9.:-]{1,253}", host):
            raise ValueError("must be an address or a name, such as 127.0.0.1")
        return host

    @field_validator("airflow_url")
    @classmethod
    def _check_airflow_url(cls, url: str) -> str:
        parts = urlsplit(url)
        is_web = (
            parts.scheme in {"http", "https"} and parts.hostname is not None and not (parts.query or parts.fragment)
        )
        # It becomes a link on pages: no credentials, and nothing but a place.
        if url and not (is_web and "@" not in parts.netloc and re.fullmatch(r"[!-~]+", url)):
            raise ValueError("must be an address such as https://airflow.example.org, without a password")
        return url.rstrip("/")

    @field_validator("trusted_proxies", "hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(re.split(r"[\s,]+", value.strip(", \t"))) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, networks: tuple[Network, ...]) -> tuple[Network, ...]:
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError("must not be the whole internet: anybody could say who they are")
        return networks

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower().strip("[]") for host in hosts)
        if not all(
            re.fullmatch("[a-z0-9._:-]{1,253}", host) and not re.search("^[^:]+:[0-9]+$", host) for host in hosts
        ):
            raise ValueError("must be names without ports, such as audio.example.org")
        return hosts

    @field_validator("secret_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < _KEY_LENGTH:
            raise ValueError(f"must have at least {_KEY_LENGTH} characters, such as openssl rand -hex 32 makes")
        return key

    @model_validator(mode="after")
    def _check_exposure(self) -> Self:
        if self.is_loopback:
            return self
        if self.password is None and not self.proxy_header:
            raise ValueError(
                f"bound to {self.host}, others reach it: set {_VARIABLES['password']}, or {_VARIABLES['proxy_header']} "
                "behind a reverse proxy that signs people in"
            )
        if self.password is not None and len(self.password.get_secret_value()) < _PASSWORD_LENGTH:
            raise ValueError(
                f"bound to {self.host}, others reach it: {_VARIABLES['password']} must have at least "
                f"{_PASSWORD_LENGTH} characters"
            )
        return self


def read_settings(environment: Mapping[str, str], **given: str | int | None) -> Settings:
    """Return the settings that an environment holds; what is `given` and not None counts instead.

    Raises
    ------
    ConfigError
        If they are not what they should be. The line names the variable, and never what a secret is.
    """
    # Compose hands on what is not set as empty.
    found: dict[str, Any] = {name: environment[key] for name, key in _VARIABLES.items() if environment.get(key)}
    path = environment.get(_PASSWORD_FILE)
    if path and "password" in found:
        raise ConfigError(f"{_VARIABLES['password']} and {_PASSWORD_FILE}: set one of them")
    if path:
        found["password"] = _read_password(Path(path))
    try:
        return Settings(**found | {name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(_first_line(error)) from None


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    return f"{_VARIABLES[str(first['loc'][0])]}: {reason}" if first["loc"] else reason


def _read_password(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_PASSWORD_FILE}: {path}: cannot be read ({type(error).__name__})") from error
    password = text.rstrip("\r\n")
    if not password or len(text) > _LONGEST_FILE or "\n" in password:
        raise ConfigError(f"{_PASSWORD_FILE}: {path}: must hold one line, the password")
    return password
