"""### Compute recordings again

**What.** Computes again what a form selects: by source, day, key, batch, outcome, class of rejection, or version of the core.
What has a spectrogram gets a new generation, and the old one stays with its lineage; what has none (rejected, failed, or a
profile that is new) gets its first.

**When.** By hand. `dry_run` is on by default: the log of `show_plan` then says what would be done, with an estimate of hours,
minutes and disk, and nothing else happens. Read it, then trigger again with `dry_run` off.

**Inputs.** The ledger (which objects, and where they stand) and S3 (their bytes). An object that is gone, or was overwritten
since it was last listed, is not selected; if it goes meanwhile, it ends as `vanished` or `changed`.

**Outputs.** A batch of kind `reprocess` with its lines, as of any run.

**Several conditions** must hold together; an empty field selects all. `outcomes` and `reject_class` are where an object stands
now, whichever batch brought it there.

**More than fits into one batch** (`max_objects`, or the source's limit) is `over cap`: trigger the same form again. It goes on
with what was tried longest ago.

**On failure.** As in the ingest DAGs: the source's owner is told, every step can be retried or cleared, `gate` names the
first objects that failed.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, Param

from spectralize.profiles import load_profiles
from spectralize.tables import OUTCOMES, REJECT_CLASSES
from spectralize_alerts import AlertNotifier
from spectralize_errors import keep_error
from spectralize_operators import MigrateOperator, PlanBatchOperator, log_plan
from spectralize_sources import usable_sources
from spectralize_steps import SQL_FOLDER, add_batch_steps

# Never empty, or the form could not be made; what is wrong with the sources shows as an import error of its own.
_SOURCES = sorted(source.name for source in usable_sources()[0]) or [""]
_CHOSEN = "{{ params.source }}"

with DAG(
    dag_id="reprocess_audio",
    description="Compute selected recordings again",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["audio", "reprocess"],
    template_searchpath=[SQL_FOLDER],
    params={
        "dry_run": Param(True, type="boolean", description="Only say what would be done, in the log of show_plan."),
        "source": Param(
            _SOURCES[0],
            type="string",
            enum=_SOURCES,
            description="A source of config/sources.toml.",
        ),
        "profile": Param(
            None,
            type=["null", "string"],
            enum=[None, *sorted(load_profiles())],
            values_display={"null": "those of the source"},
            description="Compute this profile; empty means those of the source. One that is not the source's is computed "
            "for what is selected, and not for later recordings.",
        ),
        "first_day": Param(
            None,
            type=["null", "string"],
            format="date",
            description="First day (UTC) by partition_at: the date in the key, else when the object was modified.",
        ),
        "last_day": Param(None, type=["null", "string"], format="date", description="Last day (UTC), itself included."),
        "key_glob": Param(
            None,
            type=["null", "string"],
            maxLength=1024,
            description="A glob on the whole key, such as site-7/*.wav; * also matches /, letter case is ignored.",
        ),
        "batch_id": Param(None, type=["null", "integer"], minimum=1, description="Only what this batch has planned."),
        "outcomes": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "enum": list(OUTCOMES)},
            examples=list(OUTCOMES),
            description="Only what stands at one of these outcomes now; none means all.",
        ),
        "reject_class": Param(
            None,
            type=["null", "string"],
            enum=[None, *REJECT_CLASSES],
            values_display={"null": "any"} | {name: f"{name}: {text}" for name, text in REJECT_CLASSES.items()},
            description="Only what is rejected for this reason now.",
        ),
        "core_version_older_than": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d+(\.\d+){0,3}$",
            description="Only what an older core has computed or rejected, such as 0.3.0.",
        ),
        "max_objects": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="Most objects of this batch; empty means the source's own limit.",
        ),
    },
    on_failure_callback=AlertNotifier(),
    on_success_callback=AlertNotifier(),
    default_args={
        "owner": "spectralize",
        "on_failure_callback": keep_error,
        "retries": 2,
        "retry_delay": timedelta(seconds=15),
    },
):
    ensure_schema = MigrateOperator(task_id="ensure_schema")
    show_plan = ShortCircuitOperator(task_id="show_plan", python_callable=log_plan, op_kwargs={"source": _CHOSEN})
    plan_batch = PlanBatchOperator(source=_CHOSEN, reprocess=True)
    ensure_schema >> show_plan >> plan_batch
    add_batch_steps(ensure_schema, plan_batch, source=_CHOSEN, job_name="reprocess_audio")
