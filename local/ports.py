"""Choosing ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Iterable, Mapping

from local.errors import StackError

LOOPBACK = "127.0.0.1"

#: Ports people expect; taken when free. One is kept for what comes and goes: the UI of a running Spark job.
USUAL: Mapping[str, int] = {
    "s3": 8333,
    "s3-master": 9333,
    "s3-volume": 9340,
    "s3-filer": 8888,
    "s3-admin": 23646,
    "timescale": 5433,
    "metadata": 5434,
    "airflow": 8080,
    "spark-ui": 4040,
    "explorer": 8050,
}

#: Nobody may listen on it at the moment, and yet somebody has been told of it.
KEPT = ("spark-ui",)

#: SeaweedFS serves gRPC at HTTP port + 10000, and has no simple switch for it.
GRPC_OFFSET = 10_000

#: Below the range from which Linux takes client ports, with and without the gRPC offset: a port chosen here is not lost
#: to somebody's outgoing connection while the stack is down.
SPARE_RANGE = range(10_100, 22_700)


def needs(role: str, port: int) -> tuple[int, ...]:
    """Return every port that a role occupies when it is given ``port``."""
    return (port, port + GRPC_OFFSET) if role.startswith("s3") else (port,)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` now."""
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT counts as free, one that somebody listens on does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(
    roles: Iterable[str], *, recorded: Mapping[str, int], reserved: Collection[int] = (), ephemeral: bool = False
) -> dict[str, int]:
    """Give each role its recorded port if free, else the usual one, else any free one.

    ``reserved`` are ports that must not be taken although nobody listens on them now: those of this stack's other roles
    and of its neighbours. With ``ephemeral`` the usual ports are left to others.
    """
    taken = set(reserved)
    chosen: dict[str, int] = {}
    for role in roles:
        preferred = [recorded[role]] if role in recorded else []
        if not ephemeral and role in USUAL:
            preferred.append(USUAL[role])
        spare = random.sample(SPARE_RANGE, k=200)
        for port in (*preferred, *spare):
            wanted = needs(role, port)
            if taken.isdisjoint(wanted) and all(map(is_free, wanted)):
                chosen[role] = port
                taken.update(wanted)
                break
        else:
            raise StackError(f"{role}: no free port on {LOOPBACK} between {SPARE_RANGE.start} and {SPARE_RANGE.stop}")
    return chosen
