"""The steps from a planned batch to a closed one, which ingest and reprocess share."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import BaseOperator, TaskGroup

from spectralize_connections import TIMESCALE_CONN_ID
from spectralize_operators import CloseBatchOperator, GateOperator, MelSpectrogramOperator, PlanBatchOperator

REPOSITORY = Path(__file__).resolve().parents[1]

#: Where the DAGs look for their SQL.
SQL_FOLDER = str(REPOSITORY / "sql")

#: The pool whose slots bound how many Spark jobs run at once, over all DAGs.
SPARK_POOL = "spark_jobs"


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
    close_batch = CloseBatchOperator(task_id="close_batch", source=source).as_teardown(
        setups=[ensure_schema, plan_batch], on_failure_fail_dagrun=True
    )
    plan_batch >> mel_spectrogram >> gate >> index >> close_batch
