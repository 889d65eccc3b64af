"""The S3 server: SeaweedFS in one process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from local.paths import write_private
from local.ports import GRPC_OFFSET, LOOPBACK, is_free
from local.waiting import NotReady

REGION = "us-east-1"
BUCKETS = ("audio", "spectralize")


@dataclass(frozen=True, slots=True)
class S3:
    folder: Path
    run_dir: Path
    ports: Mapping[str, int]
    access_key: str
    secret_key: str
    #: The identity that can do nothing but read.
    reader_access_key: str
    reader_secret_key: str

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    @property
    def command(self) -> list[str]:
        data = self.folder / "data"
        return [
            str(Path(sys.executable).parent / "weed"),
            "-logtostderr=true",
            "mini",
            f"-dir={data}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-master.port={self.ports['s3-master']}",
            "-master.telemetry=false",
            f"-volume.port={self.ports['s3-volume']}",
            # Every bucket takes volumes of its own, and as many fit as the free disk holds of this size.
            "-master.volumeSizeLimitMB=256",
            f"-filer.port={self.ports['s3-filer']}",
            f"-filer.localSocket={self.run_dir / 'filer.sock'}",
            f"-s3.port={self.ports['s3']}",
            f"-s3.localSocket={self.run_dir / 's3.sock'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={self._config}",
            f"-admin.port={self.ports['s3-admin']}",
            "-admin.ui=false",
            "-webdav=false",
        ]

    @property
    def environment(self) -> dict[str, str]:
        return {
            # Without a limit Go's collector lets the server grow to several times what it uses; with a tight one it does
            # nothing but collect (256 MiB doubled the cost of a GET).
            "GOMEMLIMIT": "512MiB",
            # Emptied, or the server would make a second administrator of them and write that into its log.
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        }

    @property
    def _config(self) -> Path:
        return self.folder / "s3.json"

    def prepare(self) -> None:
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        identities = [
            {
                "name": "spectralize",
                "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {
                "name": "explorer",
                "credentials": [{"accessKey": self.reader_access_key, "secretKey": self.reader_secret_key}],
                "actions": ["Read", "List"],
            },
        ]
        write_private(self._config, json.dumps({"identities": identities}, indent=2))

    def remove_sockets(self) -> None:
        """Delete what a server that was killed leaves in /tmp, where it puts a socket beside each gRPC port."""
        for role, port in self.ports.items():
            if role.startswith("s3") and is_free(port + GRPC_OFFSET):
                for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + GRPC_OFFSET}.sock"):
                    socket.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `NotReady` unless the server answers; a stranger is refused with 403, which is an answer too."""
        try:
            status = httpx.get(self.endpoint, timeout=5, trust_env=False).status_code
        except httpx.TransportError as error:
            raise NotReady(f"{self.endpoint}: {error}") from error
        if status not in (200, 403):
            raise NotReady(f"{self.endpoint} answers {status}")

    def provision(self) -> None:
        """Create the buckets where missing; the first write may come before the volumes are there."""
        # Imported here: `status` and `env` need no botocore, which takes a third of a second to load.
        import boto3
        from botocore.client import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )
        try:
            present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for bucket in BUCKETS:
                if bucket not in present:
                    client.create_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as error:
            raise NotReady(str(error)) from error
