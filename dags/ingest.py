"""### Ingest one source

**What.** Brings every new object of one source of `config/sources.toml` into TimescaleDB as Mel frames, waveform and
metadata, and records in the ledger what became of each.

**When.** On the source's schedule (daily by default) for the data interval that has just ended, and, where the source has an
events queue, when its bucket tells of something new. The interval only bounds backfills: a scheduled, manual or event run takes
*every* settled object without a final outcome, so late uploads are never lost.

**Inputs.** The source's bucket and prefix; connections `aws_default`, `timescale_default`, `spark_default`; the pool
`spark_jobs`, whose slots bound how many Spark jobs run at once.

**Outputs.** Tables of schema `spectralize`; a manifest in S3; one row in `batches`, one per object in `batch_objects`; an
event of the asset `mel_frames_<source>` if something was loaded.

**The steps.** `sense` waits, deferred, for something new (scheduled runs: as long as the source's `sense_window_s`; manual
runs: the param `wait_s`; backfills: not at all). `plan_batch` lists the whole source and subtracts the ledger.
`mel_spectrogram` is the Spark job; it is skipped when there is nothing to compute. `gate` judges the batch, `check_batch`
looks at what it stored, `index` after indexes and statistics, `close_batch` closes it for good.

**On failure.** The source's owner is told once, and once that it works again (docs/alerts.md). Every step can be retried or
cleared at any moment: the job is idempotent, an object is loaded whole or not at all. `gate` fails when an object failed for
our reasons, or when too many were rejected; its message names the first ones, the run's tab *Batch* and `spectralize status
<batch>` all of them. Failed objects are planned again by the next run. What waiting cannot mend (a bucket that is not there,
refused credentials, an unknown connection) is not retried. Clearing a finished run opens a new batch for it and keeps the old
one.

**Backfill.** From the UI (Trigger, Backfill), the REST API or `airflow backfill create`: each run does the objects whose
`partition_at` (the date in the key, else last_modified as first seen) lies in [start, end) of its interval, and leaves alone
what has an outcome. Runs may go in any order and side by side. With the param `force` they compute it again, as a new
generation; the old one and its lineage stay. Choose *All Runs* under Reprocess Behavior to have days done again that have a
run already, and tick *Override parameters on existing runs*: without it the form sends no params, not even for new runs.

**Recompute by other criteria** than a date (a batch, rejects of a class, an old version): the DAG `reprocess_audio`.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from spectralize.sources import Source
from spectralize_alerts import AlertNotifier
from spectralize_errors import keep_error
from spectralize_operators import MigrateOperator, PlanBatchOperator
from spectralize_sensors import NewObjectsSensor
from spectralize_sources import schedule_of, usable_sources
from spectralize_steps import SQL_FOLDER, add_batch_steps


def make_ingest_dag(source: Source) -> DAG:
    """Wire the DAG of one source."""
    with DAG(
        dag_id=f"ingest_{source.name}",
        description=f"{source.address} into Mel frames, waveform and metadata",
        doc_md=__doc__,
        schedule=schedule_of(source),
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=4,
        tags=["ingest", "audio"],
        template_searchpath=[SQL_FOLDER],
        params={
            "force": Param(
                False,
                type="boolean",
                description="Compute again what has a spectrogram, as a new generation. In the backfill form, tick "
                "Override parameters on existing runs as well: it sends no parameters without it.",
            ),
            "max_objects": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                description="Most objects of this batch; empty means the source's own limit. The rest waits for the next run.",
            ),
            "wait_s": Param(
                None,
                type=["null", "number"],
                minimum=0,
                maximum=604800,
                description="Seconds to wait for something new. Empty: scheduled runs wait as long as the source says, "
                "manual runs do not. Backfills never wait.",
            ),
            "nothing_new": Param(
                None,
                type=["null", "string"],
                enum=[None, "succeed", "fail"],
                values_display={"null": "as the source says"},
                description="What a run that waited makes of an empty batch; empty means what the source says.",
            ),
        },
        on_failure_callback=AlertNotifier(source.name),
        on_success_callback=AlertNotifier(source.name),
        default_args={
            "owner": source.owner,
            "on_failure_callback": keep_error,
            "retries": source.retries,
            "retry_delay": timedelta(seconds=15),
        },
    ) as dag:
        ensure_schema = MigrateOperator(task_id="ensure_schema")
        sense = NewObjectsSensor(task_id="sense", source=source.name)
        plan_batch = PlanBatchOperator(source=source.name)
        ensure_schema >> sense >> plan_batch
        add_batch_steps(ensure_schema, plan_batch, source=source.name, job_name=f"ingest_{source.name}")
    return dag


for _source in usable_sources()[0]:
    globals()[f"ingest_{_source.name}"] = make_ingest_dag(_source)
