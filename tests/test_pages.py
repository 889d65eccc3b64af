"""The page of a run on the real api-server: who may see it, and where Airflow shows it."""

import uuid
from collections.abc import Iterator

import httpx
import pytest

from local.airflow_api import AirflowApi
from local.stack import Stack
from spectralize.database import connect
from spectralize.migrations import migrate

DAG_ID = "ingest_audio"


@pytest.fixture
def run_id(airflow: AirflowApi, stack: Stack) -> Iterator[str]:
    """A run of which the ledger knows a batch."""
    run_id = f"manual__{uuid.uuid4().hex}+00:00"
    migrate(stack.dsn)
    with connect(stack.dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO spectralize.batches (source, dag_id, run_id, try, kind, core_version) "
            "VALUES ('audio', %s, %s, 1, 'manual', '0')", (DAG_ID, run_id),
        )  # fmt: skip
        yield run_id
        connection.execute("DELETE FROM spectralize.batches WHERE run_id = %s", (run_id,))


@pytest.fixture
def browser(airflow: AirflowApi, stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.airflow_url, timeout=60, trust_env=False) as browser:
        yield browser


def token(stack: Stack) -> str:
    login = {"username": stack.airflow_user, "password": stack.airflow_password}
    response = httpx.post(f"{stack.airflow_url}/auth/token", json=login, timeout=60, trust_env=False)
    return str(response.raise_for_status().json()["access_token"])


def test_the_page_is_for_those_who_may_read_the_dag(stack: Stack, browser: httpx.Client, run_id: str) -> None:
    address = f"/spectralize/dags/{DAG_ID}/runs/{run_id}"
    known = token(stack)
    for case, headers, status in (
        ("nobody", {}, 401),
        ("a forged token", {"Authorization": f"Bearer {known[:-6]}AAAAAA"}, 403),
        ("a forged cookie", {"Cookie": f"_token={known[:-6]}AAAAAA"}, 403),
        ("a token", {"Authorization": f"Bearer {known}"}, 200),
        ("a session", {"Cookie": f"_token={known}"}, 200),
    ):
        response = browser.get(address, headers=headers)
        assert response.status_code in {status, 401 if status == 403 else status}, case
        assert ("Batch" in response.text and run_id in response.text) == (status == 200), case
        if status == 200 or case == "nobody":
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none';"), case


def test_a_run_without_a_batch_and_a_frame_in_airflow(stack: Stack, browser: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {token(stack)}"}
    response = browser.get(f"/spectralize/dags/{DAG_ID}/runs/nobody/planned+it", headers=headers)
    assert (response.status_code, "has not been planned yet" in response.text) == (200, True)
    assert "This run in Airflow" in response.text
    framed = browser.get(f"/spectralize/dags/{DAG_ID}/runs/nobody", headers=headers | {"Sec-Fetch-Dest": "iframe"})
    assert "This run in Airflow" not in framed.text


def test_the_plugins_load_and_each_run_has_a_tab(airflow: AirflowApi, stack: Stack) -> None:
    assert airflow._request("GET", "plugins/importErrors")["import_errors"] == []
    plugins = {plugin["name"]: plugin for plugin in airflow._request("GET", "plugins")["plugins"]}
    [view] = plugins["spectralize_pages"]["external_views"]
    assert view["href"] == f"{stack.airflow_url}/spectralize/dags/{{DAG_ID}}/runs/{{RUN_ID}}"
    assert view["destination"] == "dag_run"


def test_spark_jobs_have_a_pool_whose_size_is_the_operators(airflow: AirflowApi) -> None:
    pool = airflow._request("GET", "pools/spark_jobs")
    assert pool["slots"] in {1, 2}
    airflow.ensure_pool("spark_jobs", 7, "as of now")
    assert airflow._request("GET", "pools/spark_jobs")["slots"] == pool["slots"]
