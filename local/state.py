"""What a stack remembers between two commands: ports, generated secrets, where its databases are."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from local.errors import StackError
from local.paths import write_private


@dataclass(slots=True)
class Secrets:
    """Generated once, at the first ``up``; every one of them is letters, digits, '-', '_' and '=' only.

    What the file of an older stack lacks is generated when it is loaded, and kept by the next ``up``.
    """

    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    s3_secret_key: str = field(default_factory=lambda: secrets.token_hex(20))
    postgres_superuser: str = field(default_factory=lambda: secrets.token_hex(20))
    timescale: str = field(default_factory=lambda: secrets.token_hex(20))
    metadata: str = field(default_factory=lambda: secrets.token_hex(20))
    explorer_database: str = field(default_factory=lambda: secrets.token_hex(20))
    explorer_s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    explorer_s3_secret_key: str = field(default_factory=lambda: secrets.token_hex(20))
    airflow_admin: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    airflow_jwt: str = field(default_factory=lambda: secrets.token_hex(32))
    airflow_api: str = field(default_factory=lambda: secrets.token_hex(32))
    # The form that Fernet asks for: 32 random bytes, URL-safe base64.
    airflow_fernet: str = field(default_factory=lambda: base64.urlsafe_b64encode(os.urandom(32)).decode())


@dataclass(slots=True)
class PostgresPlace:
    """Which binaries serve a data folder. Chosen once: a data folder belongs to the version that made it."""

    bin_dir: str
    #: The data folder as the server sees it: inside ``chroot`` when there is one.
    data_dir: str
    #: Root folder for the server, or None for the system's own.
    chroot: str | None = None


@dataclass(slots=True)
class State:
    #: Tells this stack's database folders from those of a deleted stack of the same name.
    id: str = field(default_factory=lambda: secrets.token_hex(3))
    ports: dict[str, int] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    postgres: dict[str, PostgresPlace] = field(default_factory=dict)
    #: Folder of the process manager's socket; in /tmp when the stack's own path is too long for a socket.
    run_dir: str = ""
    #: Digest of the environment that the running process manager was started with.
    environment: str = ""
    #: Airflow version and database revision after the last migration of the metadata.
    airflow_migrated: str = ""

    @classmethod
    def load(cls, path: Path) -> State | None:
        try:
            raw = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StackError(f"{path}: not readable as JSON; `clean` starts afresh, and deletes the data") from error
        raw["secrets"] = Secrets(**raw["secrets"])
        raw["postgres"] = {server: PostgresPlace(**place) for server, place in raw["postgres"].items()}
        return cls(**raw)

    def save(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=2) + "\n")
