"""Links on a task: to the page of the run's batch, to its lineage there, and to the UI of the Spark job while there is one.

Airflow asks a link for its address when the task has ended. A task that is worth watching pushes its links at its start:

    operator_extra_links = (BatchLink(), LineageLink(), SparkLink())

    def execute(self, context):
        push_links(self, context)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseHook, BaseOperatorLink
from airflow.sdk.exceptions import AirflowNotFoundException

from spectralize.airflowlinks import lineage_address, page_address
from spectralize_connections import SPARK_CONN_ID, has_own_ui, ui_url

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Connection, Context


class BatchLink(BaseOperatorLink):
    """Leads to the page that shows what the ledger says about the run."""

    name = "Batch"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address of the run's page."""
        from airflow.configuration import conf

        return page_address(str(conf.get("api", "base_url", fallback="") or ""), ti_key.dag_id, ti_key.run_id)

    def address_while_running(self, operator: BaseOperator, ti_key: Any) -> str:
        """Return the same: the page fills while the run goes on."""
        return self.get_link(operator, ti_key=ti_key)


class LineageLink(BatchLink):
    """Leads to what the run read, wrote and ran, on the same page."""

    name = "Lineage"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address of the lineage of the run's newest try."""
        from airflow.configuration import conf

        return lineage_address(str(conf.get("api", "base_url", fallback="") or ""), ti_key.dag_id, ti_key.run_id)


class SparkLink(BaseOperatorLink):
    """Leads to the UI that the connection `spark_default` names in its extra as `ui_url`; absent where it names none.

    The UI of a driver on this machine ends with its job, and the link with the task.
    """

    name = "Spark UI"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address that is good after the task, empty if there is none."""
        connection = _spark_connection()
        return "" if connection is None or has_own_ui(connection) else ui_url(connection)

    def address_while_running(self, operator: BaseOperator, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address that is good while the task runs, empty if there is none."""
        connection = _spark_connection()
        return "" if connection is None else ui_url(connection)


def push_links(operator: BaseOperator, context: Context) -> None:
    """Show an operator's links from now on: called at the start of a task that people will want to watch."""
    ti = context["ti"]
    for link in operator.operator_extra_links:
        if isinstance(link, BatchLink | SparkLink) and (address := link.address_while_running(operator, ti)):
            ti.xcom_push(key=link.xcom_key, value=address)


def _spark_connection() -> Connection | None:
    try:
        return BaseHook.get_connection(SPARK_CONN_ID)
    except AirflowNotFoundException:
        return None


class SpectralizeLinks(AirflowPlugin):
    """Tells Airflow which links the operators here may have."""

    name = "spectralize_links"
    operator_extra_links = [BatchLink(), LineageLink(), SparkLink()]  # noqa: RUF012
