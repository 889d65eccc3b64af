"""The explorer as a service of the stack: it is given what it reads with, and none of the stack's other secrets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from local.paths import REPO
from local.ports import LOOPBACK
from local.processes import MARKER
from local.s3 import REGION, S3
from local.waiting import NotReady

#: The service, its role at the features database, and its identity at S3.
NAME = "explorer"

#: What of the environment of the stack's processes the explorer may see. All else may hold a secret.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONUNBUFFERED", "SPECTRALIZE_CONFIG", MARKER)
#: What its user may set beyond that, a password for example. Where it listens is given on its command line, which wins.
SETTINGS = "SPECTRALIZE_EXPLORER_"
#: The settings with which it answers those who are signed in only.
SIGN_IN = ("SPECTRALIZE_EXPLORER_PASSWORD", "SPECTRALIZE_EXPLORER_PASSWORD_FILE", "SPECTRALIZE_EXPLORER_PROXY_HEADER")

#: How a PNG file begins.
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Explorer:
    stack: Path
    port: int
    dsn: str
    s3: S3
    airflow_url: str

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def start_command(self) -> list[str]:
        """What the process manager runs, from the folder of the repository: `local.start_explorer`, which becomes `command`."""
        return [sys.executable, "-m", "local.start_explorer", str(self.stack)]

    @property
    def start_directory(self) -> Path:
        return REPO

    @property
    def command(self) -> list[str]:
        program = Path(sys.executable).parent / "spectralize"
        return [str(program), "explorer", "--host", LOOPBACK, "--port", str(self.port)]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return the whole environment of the explorer, of which ``inherited`` gives what is no secret."""
        return {
            **{name: value for name, value in inherited.items() if name in KEPT or name.startswith(SETTINGS)},
            "SPECTRALIZE_DSN": self.dsn,
            "SPECTRALIZE_AIRFLOW_URL": self.airflow_url,
            "AWS_ACCESS_KEY_ID": self.s3.reader_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.reader_secret_key,
            "AWS_ENDPOINT_URL_S3": self.s3.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def check(self) -> None:
        """Raise `NotReady` unless the explorer answers."""
        address = f"{self.url}/healthz"
        try:
            answer = httpx.get(address, timeout=5, trust_env=False)
        except httpx.TransportError as error:
            raise NotReady(f"{address}: {error}") from error
        if answer.status_code != 200 or answer.text.strip() != "ok":
            raise NotReady(f"{address} answers {answer.status_code} {answer.text[:80]!r}")

    def find_fault(self, picture_of: tuple[int, str] | None) -> str | None:
        """Return what is wrong with the explorer, or None.

        ``picture_of`` is a recording that it has to have a picture of, and a profile; those who would have to sign in look at
        its health alone.
        """
        try:
            self.check()
            if picture_of is None or any(os.environ.get(name) for name in SIGN_IN):
                return None
            path, profile = f"/recordings/{picture_of[0]}/thumbnail.png", picture_of[1]
            answer = httpx.get(f"{self.url}{path}", params={"profile": profile}, timeout=30, trust_env=False)
        except (NotReady, httpx.TransportError) as error:
            return f"the explorer does not answer: {error}"
        if answer.status_code != 200 or not answer.content.startswith(PNG):
            said = f"{answer.status_code} {answer.headers.get('content-type', '')} {answer.content[:80]!r}"
            return f"the explorer has no picture of a loaded recording: {answer.url} answers {said}"
        return None
