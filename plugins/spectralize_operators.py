"""The steps of a run as operators: each works on the batch that plan_batch has left, and calls the core."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from spectralize.sources import load_sources
from spectralize_connections import (
    SPARK_CONN_ID,
    features_dsn,
    job_environment,
    plain_errors,
    require_spark_master,
    s3_client,
    spark_ui_conf,
)
from spectralize_errors import task_errors
from spectralize_links import BatchLink, LineageLink, SparkLink, push_links
from spectralize_openlineage import BatchLineage, InputLineage

if TYPE_CHECKING:
    from airflow.sdk import Context

    from spectralize.sources import Source
    from spectralize.tables import BatchKind

logger = logging.getLogger(__name__)

#: What the job says before an error that waiting cannot mend.
PERMANENT = "mel_spectrogram: permanent: "

_KINDS: dict[str, BatchKind] = {
    "scheduled": "scheduled",
    "backfill": "backfill",
    "asset_triggered": "event",
    "asset_materialization": "event",
}


def run_kind(context: Context) -> BatchKind:
    """Return the kind of batch that this DAG run asks for."""
    return _KINDS.get(str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type)), "manual")


def waiting_s(source: Source, context: Context) -> float:
    """Return how long this DAG run waits for something new, in seconds."""
    kind = run_kind(context)
    given = context["params"].get("wait_s")
    if kind == "backfill":
        return 0.0
    if given is not None:
        return float(given)
    # What woke an event's run is a moment old, and there for certain.
    return {"scheduled": source.sense_window_s, "event": source.settle_s + source.sense_poll_s[0]}.get(kind, 0.0)


class MigrateOperator(BaseOperator):
    """Bring the schema of the features database up to this version."""

    def execute(self, context: Context) -> list[str]:  # noqa: ARG002
        """Return the names of the migrations that were applied."""
        from spectralize.migrations import migrate

        with plain_errors():
            done = migrate(features_dsn())
        self.log.info("applied %s", ", ".join(done) or "nothing: the schema is up to date")
        return done


class SourceOperator(BaseOperator):
    """A step that belongs to one source, by its name."""

    template_fields: Sequence[str] = ("source",)
    operator_extra_links = (BatchLink(), LineageLink())

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source


class PlanBatchOperator(InputLineage, SourceOperator):
    """Store the manifest of what is to be computed: listing minus ledger or, with `reprocess`, what the form selects."""

    TASK_ID: ClassVar[str] = "plan_batch"

    def __init__(self, *, reprocess: bool = False, **kwargs: Any) -> None:
        super().__init__(task_id=self.TASK_ID, **kwargs)
        self.reprocess = reprocess

    def execute(self, context: Context) -> dict[str, Any]:
        """Return batch_id, manifest address and the number of planned objects."""
        from spectralize.database import connect
        from spectralize.ledger import Run
        from spectralize.planner import plan_batch
        from spectralize.selection import Selection

        run, params = context["dag_run"], context["params"]
        interval = None
        if run.data_interval_start and run.data_interval_end:
            interval = (run.data_interval_start, run.data_interval_end)
        kind = "reprocess" if self.reprocess else run_kind(context)
        with plain_errors():
            sources = load_sources()
            with connect(features_dsn()) as connection:
                batch = plan_batch(
                    connection,
                    s3_client(),
                    sources.find(self.source),
                    Run(run.dag_id, run.run_id, kind, interval, dict(params)),
                    manifests=sources.manifests,
                    force=bool(params.get("force")),
                    max_objects=params.get("max_objects"),
                    selection=Selection.from_form(params) if self.reprocess else None,
                    profile=params.get("profile"),
                )
        self.log.info("batch %d: %s", batch.batch_id, batch.counts)
        return {"batch_id": batch.batch_id, "manifest": batch.manifest_uri, "planned": batch.counts.planned}


def log_plan(*, source: str, params: dict[str, Any], ti: Any, **_: object) -> bool:
    """Log what the form selects and what it would take; tell whether to go on and do it."""
    from spectralize.database import connect
    from spectralize.preview import preview_batch
    from spectralize.selection import Selection

    with plain_errors(), connect(features_dsn()) as connection:
        seen = preview_batch(
            connection,
            s3_client(),
            load_sources().find(source),
            selection=Selection.from_form(params),
            profile=params.get("profile"),
            max_objects=params.get("max_objects"),
        )
    for line in seen.lines():
        logger.info("%s", line)
    ti.xcom_push("plan", seen.lines())
    if params["dry_run"]:
        logger.info("a dry run: nothing is computed. Trigger it again with dry_run off to have it done")
    return not params["dry_run"]


class MelSpectrogramOperator(BatchLineage, SparkSubmitOperator):
    """Submit spark_jobs/mel_spectrogram.py for the planned batch; skipped when nothing was planned.

    Ships the core as a zip and notes its checksum in the ledger. Secrets travel in the environment of the driver. On YARN and
    Kubernetes the hook would put that environment on a command line, so there the cluster must provide it itself.
    """

    operator_extra_links = (BatchLink(), LineageLink(), SparkLink())

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            conn_id=SPARK_CONN_ID,
            application_args=[
                f"{{{{ (ti.xcom_pull(task_ids='{PlanBatchOperator.TASK_ID}') or {{}}).get('manifest') }}}}"
            ],
            # Resuming would let a cleared task turn green without computing; the job itself is idempotent instead.
            durable=False,
            **kwargs,
        )

    def execute(self, context: Context) -> None:
        """Run the job to its end."""
        from spectralize import ledger
        from spectralize.database import connect
        from spectralize.package import build_zip

        plan = _require_plan(context)
        if not plan["planned"]:
            raise AirflowSkipException(f"batch {plan['batch_id']}: nothing to compute")
        with plain_errors():
            spark = require_spark_master()
            path, sha256 = build_zip(Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "spectralize")
            with connect(features_dsn()) as connection:
                ledger.record_code(connection, plan["batch_id"], sha256)
            self.py_files = str(path)
            self.conf = {**(self.conf or {}), **spark_ui_conf(spark)}
            if not (spark.host or "").startswith(("yarn", "k8s")):
                self.env_vars = job_environment()
        push_links(self, context)
        try:
            super().execute(context)
        except AirflowException as error:
            # The hook quotes the last lines of the log; the job's own line says what was wrong.
            own = [line for line in str(error).splitlines() if line.startswith("mel_spectrogram: ")]
            if not own:
                raise
            may_pass = PERMANENT not in own[-1]
            raise (AirflowException if may_pass else AirflowFailException)(own[-1]) from None


class GateOperator(InputLineage, SourceOperator):
    """Give every planned object an outcome and hold the batch against its source's thresholds."""

    def execute(self, context: Context) -> None:
        """Fail, with the first reasons, if the batch exceeds a threshold."""
        from spectralize import gate, ledger
        from spectralize.database import connect

        plan = _require_plan(context)
        with plain_errors(), connect(features_dsn()) as connection:
            batch = ledger.read_batch(connection, plan["batch_id"])
            if batch.state in {"success", "failed"}:
                # Only by marking plan_batch by hand: this try has planned nothing, and an older batch says nothing about it.
                raise AirflowFailException(f"batch {batch.batch_id} is closed: this try has none to judge")
            source = load_sources().find(self.source)
            waited_s = waiting_s(source, context)
            # An event may be false, or about what another run has done already.
            must_find = (context["params"].get("nothing_new") or source.nothing_new) == "fail" and run_kind(
                context
            ) != "event"
            batch = gate.gate_batch(connection, batch.batch_id, source, waited_s=waited_s if must_find else 0.0)
        self.log.info("batch %d passed: %s", batch.batch_id, batch.counts)


class CloseBatchOperator(BatchLineage, SourceOperator):
    """Close the batch in the ledger, whatever happened; fail if it failed, or any step before did.

    This step alone decides on the state of the run: Airflow judges a run by its last tasks.

    A batch that brought something updates the asset `mel_frames_<source>`: DAGs that read frames can be scheduled on it.
    """

    #: An alias, because an outlet that is an asset would be updated by empty batches too.
    ASSETS: ClassVar[AssetAlias] = AssetAlias("spectralize_mel_frames")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(outlets=[self.ASSETS], **kwargs)

    def execute(self, context: Context) -> None:
        """Write the final counts, then say how it went."""
        from spectralize import gate
        from spectralize.database import connect

        states, run = _task_states(context), context["dag_run"]
        failed = [task_id for task_id, state in states.items() if state in {"failed", "upstream_failed"}]
        is_planned = states.get(PlanBatchOperator.TASK_ID) == "success"
        errors = task_errors(context["ti"], states)
        with plain_errors(), connect(features_dsn()) as connection:
            source = load_sources().find(self.source)
            if not is_planned:
                gate.abandon_batch(connection, run.dag_id, run.run_id, errors, owner=source.owner)
                if failed:
                    raise AirflowFailException(f"no batch was planned; failed: {', '.join(failed)}")
                raise AirflowSkipException("nothing was to be planned")
            batch = gate.close_batch(connection, _require_plan(context)["batch_id"], source, errors=errors)
        logger.info("batch %d closed as %s: %s", batch.batch_id, batch.state, batch.counts)
        if batch.state != "success":
            raise AirflowFailException(f"batch {batch.batch_id} of {self.source} failed: {batch.failure}")
        outcomes = batch.counts.outcomes
        if outcomes["loaded"] + outcomes["partial"]:
            asset = Asset(name=f"mel_frames_{self.source}", uri=f"x-spectralize://mel_frames/{self.source}")
            context["outlet_events"][self.ASSETS].add(asset, extra={"batch_id": batch.batch_id, **outcomes})


def _require_plan(context: Context) -> dict[str, Any]:
    """Return what plan_batch has left in this try."""
    plan: dict[str, Any] | None = context["ti"].xcom_pull(task_ids=PlanBatchOperator.TASK_ID)
    if not plan:
        raise AirflowFailException(f"{PlanBatchOperator.TASK_ID} has left no plan: clear it, too")
    return plan


def _task_states(context: Context) -> dict[str, str | None]:
    run = context["dag_run"]
    states: dict[str, str | None] = context["ti"].get_task_states(dag_id=run.dag_id, run_ids=[run.run_id])[run.run_id]
    return states
