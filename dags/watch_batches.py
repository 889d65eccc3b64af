"""### Watch over batches and alerts

**What.** Sees what no run can tell of itself, every five minutes:

- the features database is away, or is back: said once to everybody whom it concerns;
- a batch is *late*: not closed `late_after_s` (of its source) after it was opened;
- a run has failed and left its batch open, because the database was away when it ended: the batch is closed as failed;
- alerts that could not be sent, because their receiver was away: they are sent now, and later again.

**When.** Every five minutes; it is not paused when it is new.

**Inputs.** Connections `timescale_default`, and `alerts_<owner>` or `alerts_default` of type Apprise.

**Outputs.** Alerts; rows in `spectralize.alerts`; while the database is away, the Variable `spectralize_outage`.

**On failure.** Its runs fail while the database is away. They need not be cleared: the next one does what was left.
"""

from datetime import timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, CronTriggerTimetable

from spectralize_alerts import watch

with DAG(
    dag_id="watch_batches",
    description="Late and abandoned batches, outages, and alerts that are still to be sent",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC", run_immediately=False),
    catchup=False,
    # Two at once would tell of an outage twice.
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["maintenance", "alerts"],
    default_args={"owner": "spectralize", "retries": 2, "retry_delay": timedelta(seconds=20)},
):
    PythonOperator(task_id="watch", python_callable=watch, execution_timeout=timedelta(minutes=10))
