"""What of the user's own environment reaches Airflow: where lineage goes, which is off otherwise, and who is told of failures."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import environment
from local.airflow import LINEAGE, LINEAGE_POLICY, Airflow
from local.paths import REPO
from local.state import Secrets


@pytest.fixture(autouse=True)
def nothing_given() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(LINEAGE)]:
            patch.delenv(name)
        yield


def settings(tmp_path: Path, prefixes: str | tuple[str, ...] = LINEAGE) -> dict[str, str]:
    """What Airflow's processes are given, of everything that may concern lineage, or whatever else."""
    airflow = Airflow(tmp_path, REPO / "dags", 8080, Secrets(), "postgresql://airflow@127.0.0.1/airflow")
    given = environment.for_processes(tmp_path, airflow.env())
    return {name: value for name, value in given.items() if name.startswith(prefixes)}


OFF = {
    "AIRFLOW__OPENLINEAGE__NAMESPACE": "spectralize",
    "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(LINEAGE_POLICY),
    "AIRFLOW__OPENLINEAGE__DISABLED": "True",
}
ON = OFF | {"AIRFLOW__OPENLINEAGE__DISABLED": "False"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, OFF),
        ({"OPENLINEAGE_URL": ""}, OFF),
        ({"OPENLINEAGE_API_KEY": "without an address"}, OFF),
        ({"OPENLINEAGE_URL": "http://127.0.0.1:5000"}, ON),
        ({"AIRFLOW__OPENLINEAGE__TRANSPORT": '{"type": "console"}'}, ON),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "file", "OPENLINEAGE__TRANSPORT__LOG_FILE_PATH": "/tmp/events"}, ON),
        ({"OPENLINEAGE_URL": "http://127.0.0.1:5000", "AIRFLOW__OPENLINEAGE__NAMESPACE": "studio"}, ON),
    ],
)
def test_a_transport_in_the_users_environment_turns_it_on(
    given: dict[str, str], expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert settings(tmp_path) == (expected | given if expected is ON else OFF)


def test_connections_for_alerts_reach_airflow_and_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ALERTS_BIOLOGISTS", '{"conn_type": "apprise"}')
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", "postgresql://elsewhere")
    assert settings(tmp_path, "AIRFLOW_CONN_") == {"AIRFLOW_CONN_ALERTS_BIOLOGISTS": '{"conn_type": "apprise"}'}
