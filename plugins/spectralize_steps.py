"""The steps from a planned batch to a closed one, which ingest and reprocess share."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.sql.operators.sql import (
    SQLCheckOperator,
    SQLExecuteQueryOperator,
    SQLTableCheckOperator,
)
from airflow.sdk import BaseOperator, TaskGroup

from spectralize_connections import TIMESCALE_CONN_ID
from spectralize_operators import CloseBatchOperator, GateOperator, MelSpectrogramOperator, PlanBatchOperator

REPOSITORY = Path(__file__).resolve().parents[1]

#: Where the DAGs look for their SQL.
SQL_FOLDER = str(REPOSITORY / "sql")

#: The pool whose slots bound how many Spark jobs run at once, over all DAGs.
SPARK_POOL = "spark_jobs"

_OF_BATCH = f"batch_id = {{{{ ti.xcom_pull(task_ids='{PlanBatchOperator.TASK_ID}')['batch_id'] }}}}"

#: What must be true of each spectrogram of a batch, and of its first and last frame. `verify` reads every frame.
_CHECKS = {
    "lengths_agree": "n_seconds = ceil(n_samples::numeric / sr) AND n_hops IN (0, ceil(n_samples::numeric / hop_length))",
    "times_are_sane": "recorded_at BETWEEN '1970-01-01' AND loaded_at + INTERVAL '2 days'",
    "levels_are_numbers": "peak_db > '-Infinity' AND peak_db < 'Infinity'",
    "frames_are_stored": """
        (SELECT count(*) = least(2, n_frames) FROM spectralize.mel_frames AS f WHERE f.spectrogram_id = s.spectrogram_id
         AND f.frame_time IN (recorded_at, spectralize.frame_time(recorded_at, n_frames - 1, hop_length, sr)))""",
}

#: Frames are looked up one spectrogram at a time: of a large batch, the last thousand do.
_SAMPLE = (
    "spectrogram_id IN (SELECT spectrogram_id FROM spectralize.spectrograms "
    f"WHERE {_OF_BATCH} ORDER BY spectrogram_id DESC LIMIT 1000)"
)


def add_batch_steps(ensure_schema: BaseOperator, plan_batch: PlanBatchOperator, *, source: str, job_name: str) -> None:
    """Wire job, gate, indexes and closing behind `plan_batch`, in the DAG that is being defined.

    `plan_batch` is their setup. So clearing any step clears it too (a closed batch takes nothing more), and no step runs
    without a batch of this very try: the gate, which does not mind a failed job, could only judge an older one. `ensure_schema`
    is a setup, too, so that `close_batch` runs, and fails, even if nothing was planned: a last step that is skipped, as when a
    waiting run is marked failed, would turn the run green.
    """
    ensure_schema.as_setup()
    plan_batch.as_setup()
    mel_spectrogram = MelSpectrogramOperator(
        task_id="mel_spectrogram",
        name=job_name,
        application=str(REPOSITORY / "spark_jobs" / "mel_spectrogram.py"),
        properties_file=str(REPOSITORY / "config" / "spark-defaults.conf"),
        pool=SPARK_POOL,
    )
    gate = GateOperator(task_id="gate", source=source, trigger_rule="all_done", retries=1)
    with TaskGroup("index", prefix_group_id=False, tooltip="Indexes and statistics of the features database") as index:
        SQLCheckOperator(
            task_id="require_valid_indexes", conn_id=TIMESCALE_CONN_ID, sql="ingest/require_valid_indexes.sql"
        )
        SQLExecuteQueryOperator(
            task_id="analyze_tables",
            conn_id=TIMESCALE_CONN_ID,
            sql="ingest/analyze_tables.sql",
            split_statements=True,
            autocommit=True,
        )
    check_batch = SQLTableCheckOperator(
        task_id="check_batch",
        conn_id=TIMESCALE_CONN_ID,
        table="spectralize.spectrograms AS s",
        partition_clause=_OF_BATCH,
        # Of nothing, all is true.
        checks={
            name: {"check_statement": f"coalesce(bool_and({check}), true)"}
            | ({"partition_clause": _SAMPLE} if name == "frames_are_stored" else {})
            for name, check in _CHECKS.items()
        },
        doc_md="What the batch has stored must be whole and sane.",
    )
    close_batch = CloseBatchOperator(task_id="close_batch", source=source).as_teardown(
        setups=[ensure_schema, plan_batch], on_failure_fail_dagrun=True
    )
    plan_batch >> mel_spectrogram >> gate >> [check_batch, index] >> close_batch
