"""The DAG files as Airflow's parser sees them, in a process of their own."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]

PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

def parse():
    bag = DagBag(sys.argv[1])
    return bag, {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in sorted(bag.dags.items())}

bag, first = parse()
_, second = parse()
ingest = bag.dags.get("ingest_audio")
print("RESULT " + json.dumps({
    "errors": bag.import_errors,
    "dags": {
        dag_id: {
            "tasks": sorted(dag.task_ids), "doc": dag.doc_md or "", "tags": sorted(dag.tags), "catchup": dag.catchup,
            "schedule": type(dag.timetable).__name__,
            "params": {name: [dag.params.get_param(name).description, dag.params.get_param(name).schema]
                       for name in dag.params},
            "pools": {task.task_id: task.pool for task in dag.tasks if task.pool != "default_pool"},
            "owners": sorted({task.owner for task in dag.tasks}),
        }
        for dag_id, dag in bag.dags.items()
    },
    "edges": sorted([task.task_id, down] for task in ingest.tasks for down in task.downstream_task_ids) if ingest else [],
    "deterministic": json.dumps(first, sort_keys=True, default=str) == json.dumps(second, sort_keys=True, default=str),
    "heavy": sorted({"librosa", "numba", "pyspark", "av", "scipy", "soxr", "psycopg", "numpy"} & set(sys.modules)),
}))
"""


def parse(folder: Path, home: Path, **environment: str) -> dict[str, Any]:
    """Load a DAG folder the way the DAG processor does."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    } | environment  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    return json.loads(results[0])


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse(REPOSITORY / "dags", tmp_path_factory.mktemp("airflow"))


def test_exactly_these_dags_load_without_errors(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert sorted(parsed["dags"]) == [
        "ingest_audio", "maintain_timescale", "migrate_timescale", "reprocess_audio", "watch_batches",
    ]  # fmt: skip


def test_parsing_imports_nothing_heavy(parsed: dict[str, Any]) -> None:
    # numpy comes with Airflow's own serialisation where it is installed; the audio stack and Spark must not.
    assert set(parsed["heavy"]) <= {"numpy"}


def test_parsing_twice_gives_the_same_dags(parsed: dict[str, Any]) -> None:
    assert parsed["deterministic"]


def test_each_dag_has_a_manual_an_owner_and_known_tags(parsed: dict[str, Any]) -> None:
    for dag_id, dag in parsed["dags"].items():
        for part in ("**What.**", "**When.**", "**On failure"):
            assert part in dag["doc"], (dag_id, part)
        assert set(dag["tags"]) <= {"ingest", "audio", "maintenance", "schema", "reprocess", "alerts"}
        assert dag["tags"]
        assert dag["owners"] == ["spectralize"]
        assert dag["catchup"] is False


def test_each_param_has_a_description_and_a_type(parsed: dict[str, Any]) -> None:
    assert sorted(parsed["dags"]["ingest_audio"]["params"]) == ["force", "max_objects", "nothing_new", "wait_s"]
    for dag_id, dag in parsed["dags"].items():
        for name, (description, schema) in dag["params"].items():
            assert description.endswith("."), (dag_id, name)
            assert schema["type"], (dag_id, name)
    reprocess = parsed["dags"]["reprocess_audio"]["params"]
    assert reprocess["source"][1]["enum"] == ["audio"]
    assert "mel128_22k" in reprocess["profile"][1]["enum"]


def test_spark_jobs_are_bounded_by_a_pool(parsed: dict[str, Any]) -> None:
    for dag_id in ("ingest_audio", "reprocess_audio"):
        assert parsed["dags"][dag_id]["pools"] == {"mel_spectrogram": "spark_jobs"}


def test_the_steps_of_an_ingest_run(parsed: dict[str, Any]) -> None:
    edges = {tuple(edge) for edge in parsed["edges"]}
    chain = ["ensure_schema", "sense", "plan_batch", "mel_spectrogram", "gate"]
    assert set(itertools.pairwise(chain)) <= edges
    for task in ("require_valid_indexes", "analyze_tables"):
        assert {("gate", task), (task, "close_batch")} <= edges
        assert (REPOSITORY / "sql" / "ingest" / f"{task}.sql").is_file()


def test_a_bad_source_leaves_the_good_ones_their_dags(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    profiles = (REPOSITORY / "config" / "mel_profiles.toml").read_text()
    (tmp_path / "config" / "mel_profiles.toml").write_text(profiles)
    (tmp_path / "config" / "sources.toml").write_text(
        "manifests = 's3://work/manifests'\n"
        "[sources.birds]\nbucket = 'birds'\nprofiles = ['mel128_22k']\n"
        "[sources.bats]\nbucket = 'bats'\nprofiles = ['nope']\n"
        "[sources.swifts]\nbucket = 'swifts'\nprofiles = ['mel128_22k']\nschedule = '0 25 * * *'\n"
        "[sources.shelf]\nbucket = 'work'\nprofiles = ['mel128_22k']\n"
        "[sources.owls]\nbucket = 'owls'\nprofiles = ['mel128_22k']\nevents_queue = 'http://127.0.0.1:9/1/owls'\n"
    )
    found = parse(REPOSITORY / "dags", tmp_path, SPECTRALIZE_CONFIG=str(tmp_path / "config"))
    assert sorted(found["dags"]) == [
        "ingest_birds",
        "ingest_owls",
        "maintain_timescale",
        "migrate_timescale",
        "reprocess_audio",
        "watch_batches",
    ]
    assert found["dags"]["reprocess_audio"]["params"]["source"][1]["enum"] == ["birds", "owls"]
    [(file, error)] = found["errors"].items()
    assert file.endswith("check_sources.py")
    lines = error.splitlines()
    assert any("source 'bats': profiles: 'nope' is not in mel_profiles.toml" in line for line in lines)
    assert any("source 'swifts': schedule = '0 25 * * *': must be five fields of cron" in line for line in lines)
    assert any("source 'shelf': it lists s3://work/, where manifests" in line for line in lines)
    assert found["deterministic"]
    assert found["dags"]["ingest_owls"]["schedule"] == "AssetOrTimeSchedule"


def test_plugins_are_flat_and_prefixed() -> None:
    """Airflow imports every file under plugins/ by its bare stem: any other name could replace a module."""
    files = [path.relative_to(REPOSITORY / "plugins") for path in (REPOSITORY / "plugins").rglob("*.py")]
    assert files
    assert all(len(path.parts) == 1 and path.name.startswith("spectralize_") for path in files)


def test_config_holds_no_python() -> None:
    """Airflow puts config/ on sys.path."""
    assert not list((REPOSITORY / "config").rglob("*.py"))
