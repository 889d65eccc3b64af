"""### Migrate the features database

**What.** Applies the migrations of `sql/migrations/` that the database does not have yet, in order, each in one transaction.

**When.** By hand, after an upgrade. Every ingest run does the same first, so this DAG is for those who want to see it done.

**On failure.** The failing migration was rolled back, the ones before it stay; the message names it. Mend and run again.
Starting it twice at once is safe.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG

from spectralize_alerts import AlertNotifier
from spectralize_errors import keep_error
from spectralize_operators import MigrateOperator

with DAG(
    dag_id="migrate_timescale",
    description="Bring the schema of the features database up to this version",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["maintenance", "schema"],
    on_failure_callback=AlertNotifier(),
    on_success_callback=AlertNotifier(),
    default_args={"owner": "spectralize", "on_failure_callback": keep_error, "retries": 1},
):
    MigrateOperator(task_id="migrate")
