"""### Look after the features database

**What.** Makes room, mends, and checks:

1. `remove_superseded`: frames that a newer generation, or a newer object of the same key, replaced more than `grace_days` ago
   are deleted, unless a snapshot pins them. Spectrogram and ledger lines stay, as `expired`.
2. `drop_expired_chunks`: retention. Chunks in which everything is older than its source's `keep_days` are dropped whole, and
   the ledger says which recordings expired. A source without `keep_days` keeps everything.
3. `convert_to_columnstore`: old chunks are stored by column, where the edition of TimescaleDB has that; else one line says so.
4. `repair_indexes`: invalid indexes are built anew.
5. `report_store`: recordings, chunks and disk, in the log. `verify_store`: every invariant of ledger and frames.

**When.** Sundays at 04:00 UTC. Trigger it with `dry_run` to see what steps 1 to 3 would do.

**Inputs.** Connection `timescale_default`; `keep_days` of each source in `config/sources.toml`.

**Outputs.** Less disk; spectrograms with status `expired` and why; one line per step in its log and its XCom.

**On failure.** The owner of no source, `spectralize`, is told once. Every step can be retried or cleared at any moment. A
step that finds a chunk busy gives up after some seconds and says so: readers and loads go first. `verify_store` names what is
broken; it runs even if a step before it failed, and it reads every frame, which takes minutes per hundred million.

**Erasing one recording** (consent withdrawn) is a command: `spectralize forget`.
"""

from datetime import timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param

import spectralize_maintenance as steps
from spectralize_alerts import AlertNotifier
from spectralize_errors import keep_error
from spectralize_operators import MigrateOperator

with DAG(
    dag_id="maintain_timescale",
    description="Retention, superseded generations, columnstore, indexes, verify and a report",
    doc_md=__doc__,
    # Without a start date, unpausing makes up for no missed Sunday: one's first run may be the dry one.
    schedule=CronTriggerTimetable("0 4 * * 0", timezone="UTC", run_immediately=False),
    catchup=False,
    max_active_runs=1,
    tags=["maintenance"],
    params={
        "dry_run": Param(False, type="boolean", description="Only say what would be removed and converted."),
        "grace_days": Param(
            30.0,
            type="number",
            minimum=0,
            description="Days for which frames are kept after something newer has replaced them.",
        ),
        "columnstore_after_days": Param(
            30.0, type="number", minimum=0, description="Days after its end at which a chunk is stored by column."
        ),
    },
    on_failure_callback=AlertNotifier(),
    on_success_callback=AlertNotifier(),
    default_args={
        "owner": "spectralize",
        "on_failure_callback": keep_error,
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
    },
):
    ensure_schema = MigrateOperator(task_id="ensure_schema")
    remove_superseded = PythonOperator(task_id="remove_superseded", python_callable=steps.remove_superseded)
    drop_expired_chunks = PythonOperator(task_id="drop_expired_chunks", python_callable=steps.drop_expired_chunks)
    convert_to_columnstore = PythonOperator(
        task_id="convert_to_columnstore", python_callable=steps.convert_to_columnstore
    )
    repair_indexes = PythonOperator(task_id="repair_indexes", python_callable=steps.repair_indexes)
    report_store = PythonOperator(task_id="report_store", python_callable=steps.report_store)
    # Always, since it matters most when something went wrong; report_store, which is not, fails the run then.
    verify_store = PythonOperator(
        task_id="verify_store", python_callable=steps.verify_store, trigger_rule="all_done", retries=0
    )
    ensure_schema >> remove_superseded >> drop_expired_chunks >> convert_to_columnstore >> repair_indexes
    repair_indexes >> [report_store, verify_store]
