"""Which ports a stack takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import ports


@pytest.fixture
def busy() -> Iterator[list[int]]:
    """Three ports that somebody listens on, on all interfaces."""
    with ExitStack() as sockets:
        found = []
        for _ in range(3):
            server = sockets.enter_context(socket.create_server(("", 0)))
            found.append(server.getsockname()[1])
        yield found


def test_takes_the_usual_ports_when_free(monkeypatch: pytest.MonkeyPatch) -> None:
    (free,) = ports.choose(["timescale"], recorded={}, ephemeral=True).values()
    monkeypatch.setattr(ports, "USUAL", {"timescale": free})

    assert ports.choose(["timescale"], recorded={}) == {"timescale": free}


def test_goes_elsewhere_when_the_usual_port_is_taken(busy: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "USUAL", {"timescale": busy[0], "airflow": busy[1]})

    chosen = ports.choose(["timescale", "airflow"], recorded={"airflow": busy[2]})

    assert not set(chosen.values()) & set(busy)
    assert all(map(ports.is_free, chosen.values()))


def test_a_taken_grpc_port_rules_out_its_http_port(monkeypatch: pytest.MonkeyPatch) -> None:
    (usual,) = ports.choose(["s3"], recorded={}, ephemeral=True).values()
    monkeypatch.setattr(ports, "USUAL", {"s3": usual})
    with socket.create_server(("127.0.0.1", usual + ports.GRPC_OFFSET)):
        assert ports.choose(["s3"], recorded={})["s3"] != usual


def test_a_recorded_port_comes_before_the_usual_one() -> None:
    recorded = ports.choose(ports.USUAL, recorded={}, ephemeral=True)

    assert ports.choose(ports.USUAL, recorded=recorded) == recorded


@given(recorded=st.dictionaries(st.sampled_from(sorted(ports.USUAL)), st.sampled_from(ports.SPARE_RANGE[:40])))
def test_no_port_is_given_twice(recorded: dict[str, int]) -> None:
    reserved = set(ports.SPARE_RANGE[:5])

    chosen = ports.choose(ports.USUAL, recorded=recorded, reserved=reserved, ephemeral=True)

    occupied = [port for role, number in chosen.items() for port in ports.needs(role, number)]
    assert len(occupied) == len(set(occupied))
    assert reserved.isdisjoint(occupied)
    assert set(ports.USUAL.values()).isdisjoint(chosen.values())
