"""The steps of an ingest run as operators: each finds its batch in the ledger by (dag_id, run_id) and calls the core."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from spectralize.sources import load_sources
from spectralize_connections import SPARK_CONN_ID, features_dsn, job_environment, plain_errors, s3_client

if TYPE_CHECKING:
    from airflow.sdk import Context

    from spectralize.ledger import Batch
    from spectralize.tables import BatchKind

_KINDS: dict[str, BatchKind] = {
    "scheduled": "scheduled",
    "backfill": "backfill",
    "asset_triggered": "event",
    "asset_materialization": "event",
}


def run_kind(context: Context) -> BatchKind:
    """Return the kind of batch that this DAG run asks for."""
    return _KINDS.get(str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type)), "manual")


class MigrateOperator(BaseOperator):
    """Bring the schema of the features database up to this version."""

    def execute(self, context: Context) -> list[str]:  # noqa: ARG002
        """Return the names of the migrations that were applied."""
        from spectralize.migrations import migrate

        with plain_errors():
            done = migrate(features_dsn())
        self.log.info("applied %s", ", ".join(done) or "nothing: the schema is up to date")
        return done


class NewObjectsSensor(BaseSensorOperator):
    """Wait until the source holds a settled object without a final outcome.

    Only scheduled runs wait, and at most the source's `sense_window_s`: then an empty batch is closed as a success. Manual
    runs and backfills look once and go on.
    """

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(mode="reschedule", **kwargs)
        self.source = source

    def poke(self, context: Context) -> bool:
        """Look once."""
        from spectralize.database import connect
        from spectralize.planner import has_work

        if run_kind(context) != "scheduled":
            return True
        with plain_errors():
            source = load_sources().find(self.source)
            with connect(features_dsn()) as connection:
                if has_work(connection, s3_client(), source):
                    return True
        started = context["dag_run"].start_date or datetime.now(UTC)
        waited = datetime.now(UTC) - started
        if waited >= timedelta(seconds=source.sense_window_s):
            self.log.info("nothing new in s3://%s/%s after %s: an empty batch", source.bucket, source.prefix, waited)
            return True
        return False


class PlanBatchOperator(BaseOperator):
    """List the source, subtract the ledger, and store the manifest of what is left."""

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Context) -> dict[str, Any]:
        """Return batch_id, manifest address and the number of planned objects."""
        from spectralize.database import connect
        from spectralize.ledger import Run
        from spectralize.planner import plan_batch

        run = context["dag_run"]
        interval = None
        if run.data_interval_start and run.data_interval_end:
            interval = (run.data_interval_start, run.data_interval_end)
        params = context["params"]
        with plain_errors():
            sources = load_sources()
            with connect(features_dsn()) as connection:
                batch = plan_batch(
                    connection,
                    s3_client(),
                    sources.find(self.source),
                    Run(run.dag_id, run.run_id, run_kind(context), interval, dict(params)),
                    manifests=sources.manifests,
                    force=bool(params.get("force")),
                    max_objects=params.get("max_objects"),
                )
        self.log.info("batch %d: %s", batch.batch_id, batch.counts)
        return {"batch_id": batch.batch_id, "manifest": batch.manifest_uri, "planned": batch.counts.planned}


class MelSpectrogramOperator(SparkSubmitOperator):
    """Submit spark_jobs/mel_spectrogram.py for the planned batch; skipped when nothing was planned.

    Ships the core as a zip and notes its checksum in the ledger. Secrets travel in the environment of the driver. On YARN and
    Kubernetes the hook would put that environment on a command line, so there the cluster must provide it itself.
    """

    def __init__(self, *, plan_task_id: str = "plan_batch", **kwargs: Any) -> None:
        super().__init__(
            conn_id=SPARK_CONN_ID,
            application_args=[f"{{{{ ti.xcom_pull(task_ids='{plan_task_id}')['manifest'] }}}}"],
            # Resuming would let a cleared task turn green without computing; the job itself is idempotent instead.
            durable=False,
            **kwargs,
        )
        self.plan_task_id = plan_task_id

    def execute(self, context: Context) -> None:
        """Run the job to its end."""
        from spectralize import ledger
        from spectralize.database import connect
        from spectralize.package import build_zip

        plan = context["ti"].xcom_pull(task_ids=self.plan_task_id)
        if not plan["planned"]:
            raise AirflowSkipException(f"batch {plan['batch_id']}: nothing to compute")
        with plain_errors():
            # The hook takes an unknown connection for YARN; this raises instead.
            master = BaseHook.get_connection(SPARK_CONN_ID).host or ""
            if not master:
                raise AirflowFailException(
                    f"connection {SPARK_CONN_ID}: it has no host; set the Spark master, as in local[*,4]"
                )
            path, sha256 = build_zip(Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "spectralize")
            with connect(features_dsn()) as connection:
                ledger.record_code(connection, plan["batch_id"], sha256)
            self.py_files = str(path)
            if not master.startswith(("yarn", "k8s")):
                self.env_vars = job_environment()
        try:
            super().execute(context)
        except AirflowException as error:
            # The hook quotes the last lines of the log; the job's own line says what was wrong.
            own = [line for line in str(error).splitlines() if line.startswith("mel_spectrogram: ")]
            if not own:
                raise
            raise AirflowException(own[-1]) from None


class GateOperator(BaseOperator):
    """Give every planned object an outcome and hold the batch against its source's thresholds."""

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Context) -> None:
        """Fail, with the first reasons, if the batch exceeds a threshold."""
        from spectralize import gate
        from spectralize.database import connect

        with plain_errors(), connect(features_dsn()) as connection:
            batch = _find_batch(connection, context)
            batch = gate.gate_batch(connection, batch.batch_id, load_sources().find(self.source))
        self.log.info("batch %d passed: %s", batch.batch_id, batch.counts)


class CloseBatchOperator(BaseOperator):
    """Close the batch in the ledger, whatever happened; fail if its sums do not hold."""

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Context) -> None:
        """Write the final counts."""
        from spectralize import gate
        from spectralize.database import connect

        with plain_errors(), connect(features_dsn()) as connection:
            batch = _find_batch(connection, context)
            batch = gate.close_batch(connection, batch.batch_id, load_sources().find(self.source))
        self.log.info("batch %d closed as %s: %s", batch.batch_id, batch.state, batch.counts)


def _find_batch(connection: Any, context: Context) -> Batch:
    from spectralize import ledger

    return ledger.find_batch(connection, context["dag_run"].dag_id, context["dag_run"].run_id)
