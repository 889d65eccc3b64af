"""### Ingest one source

**What.** Brings every new object of one source of `config/sources.toml` into TimescaleDB as Mel frames, waveform and
metadata, and records in the ledger what became of each.

**When.** On the source's schedule (daily by default) for the data interval that has just ended. The interval only bounds
backfills: a scheduled or manual run takes *every* settled object without a final outcome, so late uploads are never lost.

**Inputs.** The source's bucket and prefix; connections `aws_default`, `timescale_default`, `spark_default`.

**Outputs.** Tables of schema `spectralize`; a manifest in S3; one row in `batches`, one per object in `batch_objects`.

**On failure.** Every step can be retried or cleared at any moment: the job is idempotent, an object is loaded whole or not
at all. `gate` fails when an object failed for our reasons, or when too many were rejected; its message names the first ones,
`spectralize status` all of them. Failed objects are planned again by the next run. Clearing a finished run opens a new batch
for it and keeps the old one.

**Backfill.** From the UI, the REST API or `airflow backfill create`: each run does the objects whose `partition_at` (the date
in the key, else last_modified as first seen) lies in [start, end) of its interval, and leaves alone what has an outcome.
With the param `force` it computes them again, as a new generation.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, TaskGroup

from spectralize.sources import Source, load_sources
from spectralize_connections import TIMESCALE_CONN_ID
from spectralize_operators import (
    CloseBatchOperator,
    GateOperator,
    MelSpectrogramOperator,
    MigrateOperator,
    NewObjectsSensor,
    PlanBatchOperator,
)

REPOSITORY = Path(__file__).resolve().parents[1]


def make_ingest_dag(source: Source) -> DAG:
    """Wire the DAG of one source."""
    with DAG(
        dag_id=f"ingest_{source.name}",
        description=f"s3://{source.bucket}/{source.prefix} into Mel frames, waveform and metadata",
        doc_md=__doc__,
        schedule=CronDataIntervalTimetable(source.schedule, timezone="UTC"),
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=4,
        tags=["ingest", "audio"],
        template_searchpath=[str(REPOSITORY / "sql")],
        params={
            "force": Param(
                False, type="boolean", description="Compute again what has a spectrogram, as a new generation."
            ),
            "max_objects": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                description="Most objects of this batch; empty means the source's own limit. The rest waits for the next run.",
            ),
        },
        default_args={"owner": source.owner, "retries": 2, "retry_delay": timedelta(seconds=15)},
    ) as dag:
        ensure_schema = MigrateOperator(task_id="ensure_schema")
        sense = NewObjectsSensor(
            task_id="sense", source=source.name, poke_interval=60, timeout=source.sense_window_s + 3600
        )
        plan_batch = PlanBatchOperator(task_id="plan_batch", source=source.name).as_setup()
        mel_spectrogram = MelSpectrogramOperator(
            task_id="mel_spectrogram",
            name=f"ingest_{source.name}",
            application=str(REPOSITORY / "spark_jobs" / "mel_spectrogram.py"),
            properties_file=str(REPOSITORY / "config" / "spark-defaults.conf"),
        )
        gate = GateOperator(task_id="gate", source=source.name, trigger_rule="all_done", retries=1)
        with TaskGroup("index", prefix_group_id=False) as index:
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
        close_batch = CloseBatchOperator(task_id="close_batch", source=source.name).as_teardown(
            setups=plan_batch, on_failure_fail_dagrun=True
        )
        ensure_schema >> sense >> plan_batch >> mel_spectrogram >> gate >> index >> close_batch
    return dag


_sources = load_sources()
for _source in _sources.sources.values():
    globals()[f"ingest_{_source.name}"] = make_ingest_dag(_source)

if _sources.errors:
    # The good sources have their DAGs by now; Airflow shows this line as an import error beside them.
    import warnings

    for _line in _sources.errors.values():
        warnings.warn(_line, stacklevel=1)
