"""The data checks of a batch, as Airflow's operator asks them: each is broken once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.paths import REPO
from tests.store import Store, wav

#: In a process of its own: Airflow is imported once per process, with the settings it finds then.
STATEMENT = """
import json
from airflow.sdk import DAG, BaseOperator
from spectralize_operators import MigrateOperator, PlanBatchOperator
from spectralize_steps import SQL_FOLDER, add_batch_steps
with DAG("checks", template_searchpath=[SQL_FOLDER]) as dag:
    first, plan = MigrateOperator(task_id="ensure_schema"), PlanBatchOperator(source="audio")
    first >> plan
    add_batch_steps(first, plan, source="audio", job_name="checks")
print("RESULT " + json.dumps(dag.get_task("check_batch").sql))
"""


@pytest.fixture(scope="module")
def statement(tmp_path_factory: pytest.TempPathFactory) -> str:
    home: Path = tmp_path_factory.mktemp("airflow")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        "PYTHONPATH": str(REPO / "plugins"), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", STATEMENT], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    return str(json.loads(results[0]))


def broken(store: Store, statement: str, batch_id: int) -> list[str]:
    query = statement.replace("{{ ti.xcom_pull(task_ids='plan_batch')['batch_id'] }}", str(batch_id))
    assert "{{" not in query
    return sorted(
        name
        for name, result in store.rows(
            query.replace("%", "%%"),
        )
        if result != 1
    )


def test_a_sound_batch_and_an_empty_one_pass(store: Store, statement: str) -> None:
    store.put("a.wav", wav(1.0))
    store.put("shorter than a hop.wav", wav(0.01))
    assert broken(store, statement, store.ingest().batch_id) == []
    assert broken(store, statement, store.ingest().batch_id) == []


@pytest.mark.parametrize(
    ("breach", "check"),
    [
        ("UPDATE spectralize.spectrograms SET n_seconds = n_seconds + 1 WHERE batch_id = %s", "lengths_agree"),
        ("UPDATE spectralize.spectrograms SET recorded_at = '2155-01-01' WHERE batch_id = %s", "times_are_sane"),
        ("UPDATE spectralize.spectrograms SET peak_db = 'NaN' WHERE batch_id = %s", "levels_are_numbers"),
        ("DELETE FROM spectralize.mel_frames AS f USING spectralize.spectrograms AS s WHERE s.batch_id = %s "
         "AND f.spectrogram_id = s.spectrogram_id AND f.frame_index = s.n_frames - 1", "frames_are_stored"),
    ],
)  # fmt: skip
def test_each_check_finds_its_breach(store: Store, statement: str, breach: str, check: str) -> None:
    store.put("a.wav", wav(2.0))
    batch = store.ingest()
    store.connection.execute(breach, (batch.batch_id,))
    assert check in broken(store, statement, batch.batch_id)
