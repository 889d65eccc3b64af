"""How an explorer is set up: by its command line and the environment, where its secrets are."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
PORT = 8050


@dataclass(frozen=True, slots=True)
class Settings:
    """What an explorer is told.

    Attributes
    ----------
    dsn
        Address of the database, that of a role that only reads; None is that of ``SPECTRALIZE_DSN``.
    host, port
        Where it listens.
    airflow_url
        Airflow as people reach it, for links; empty where nobody has said.
    """

    dsn: str | None = None
    host: str = LOOPBACK
    port: int = PORT
    airflow_url: str = ""
