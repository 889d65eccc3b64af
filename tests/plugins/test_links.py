"""Links and Spark's UI, and what the plugins cost a process that needs none of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.paths import REPO

#: In a process of its own: Airflow is imported once per process, with the settings it finds then.
LOOK = """
import json, os, sys
import airflow.plugins_manager, airflow.sdk
from types import SimpleNamespace
airflow.sdk.BaseHook, airflow.sdk.BaseOperatorLink, airflow.sdk.Connection, airflow.sdk.exceptions
before = set(sys.modules)
import spectralize_links, spectralize_pages
light = sorted({"fastapi", "jinja2", "psycopg", "starlette", "boto3"} & (set(sys.modules) - before))
from spectralize_connections import spark_ui_conf

key = SimpleNamespace(dag_id="ingest_audio", run_id="run+1")
found = {}
for name, (host, url) in json.loads(sys.argv[1]).items():
    os.environ["AIRFLOW_CONN_SPARK_DEFAULT"] = json.dumps({"conn_type": "spark", "host": host, "extra": {"ui_url": url}})
    link = spectralize_links.SparkLink()
    found[name] = [spark_ui_conf(airflow.sdk.BaseHook.get_connection("spark_default")),
                   link.address_while_running(None, key), link.get_link(None, ti_key=key)]
del os.environ["AIRFLOW_CONN_SPARK_DEFAULT"]
found["absent"] = [None, link.address_while_running(None, key), link.get_link(None, ti_key=key)]
batch = spectralize_links.BatchLink().get_link(None, ti_key=key)
lineage = spectralize_links.LineageLink()
shown = [link.name for link in spectralize_links.SpectralizeLinks.operator_extra_links]
lineage = [lineage.name, lineage.get_link(None, ti_key=key), lineage.address_while_running(None, key), shown]
print("RESULT " + json.dumps({"heavy": light, "spark": found, "batch": batch, "lineage": lineage}))
"""

CONNECTIONS = {
    "embedded": ("local[*,4]", "http://127.0.0.1:4040"),
    "one thread": ("local", "http://localhost:4041/"),
    "cluster": ("spark://spark-master", "http://127.0.0.1:8081"),
    "somebody else's": ("local[2]", "https://history.example.org"),
    "no page": ("local[2]", ""),
    "no address": ("local[2]", "javascript:alert(1)"),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home: Path = tmp_path_factory.mktemp("airflow")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": "http://127.0.0.1:8080",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": os.pathsep.join([str(REPO / "plugins"), str(REPO / "src")]),
    }
    command = [sys.executable, "-c", LOOK, json.dumps(CONNECTIONS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    return json.loads(results[0])


def test_a_process_that_serves_no_pages_imports_nothing_for_them(seen: dict[str, Any]) -> None:
    assert seen["heavy"] == []


def test_the_batch_link_leads_to_the_page_of_the_run(seen: dict[str, Any]) -> None:
    assert seen["batch"] == "http://127.0.0.1:8080/spectralize/dags/ingest_audio/runs/run%2B1"


def test_the_lineage_link_leads_to_its_place_on_the_page_also_while_the_task_runs(seen: dict[str, Any]) -> None:
    address = seen["batch"] + "#lineage"
    assert seen["lineage"] == ["Lineage", address, address, ["Batch", "Lineage", "Spark UI"]]


@pytest.mark.parametrize(("name", "port"), [("embedded", "4040"), ("one thread", "4041")])
def test_the_ui_of_a_driver_on_this_machine_lasts_as_long_as_the_job(
    seen: dict[str, Any], name: str, port: str
) -> None:
    conf, while_running, afterwards = seen["spark"][name]
    assert conf == {"spark.ui.enabled": "true", "spark.ui.port": port, "spark.ui.killEnabled": "false"}
    assert while_running == CONNECTIONS[name][1]
    assert afterwards == ""


@pytest.mark.parametrize("name", ["cluster", "somebody else's"])
def test_a_ui_that_is_not_the_drivers_stays(seen: dict[str, Any], name: str) -> None:
    assert seen["spark"][name] == [{}, CONNECTIONS[name][1], CONNECTIONS[name][1]]


@pytest.mark.parametrize("name", ["no page", "no address", "absent"])
def test_no_ui_no_link(seen: dict[str, Any], name: str) -> None:
    conf, while_running, afterwards = seen["spark"][name]
    assert not conf
    assert (while_running, afterwards) == ("", "")
