"""The page of a run, served by the api-server to those who may read its DAG, and shown there as a tab of every run.

Every Airflow process imports this file; FastAPI and the rest are imported by the api-server alone, when it asks for the app.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

from spectralize.airflowlinks import PREFIX, page_address, run_address
from spectralize_run_page import headers, render_message, render_run

if TYPE_CHECKING:
    from fastapi import FastAPI


def base_url() -> str:
    """Return the address of the api-server as people reach it, empty if nobody has configured it."""
    from airflow.configuration import conf

    return str(conf.get("api", "base_url", fallback="") or "")


def answer_run(dag_id: str, run_id: str, *, is_framed: bool) -> tuple[int, str]:
    """Return status and HTML of a run's page."""
    import psycopg
    from airflow.exceptions import AirflowException

    from spectralize.database import connect
    from spectralize.errors import SpectralizeError
    from spectralize.runreport import read_run
    from spectralize_connections import features_dsn

    try:
        with connect(features_dsn(), application="spectralize page") as connection:
            report = read_run(connection, dag_id, run_id)
    except (SpectralizeError, AirflowException, psycopg.Error) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return 503, render_message("The ledger cannot be read", line)
    # In a tab of Airflow's page of the run, a link to that page would open it inside itself.
    back = None if is_framed else run_address(base_url(), dag_id, run_id)
    return 200, render_run(report, back=back)


@cache
def make_app() -> FastAPI:
    """Build the app that the api-server mounts below `PREFIX`."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, Header
    from fastapi.responses import HTMLResponse
    from starlette.exceptions import HTTPException

    # No pages about the API: they would load scripts from elsewhere.
    app = FastAPI(title="Spectralize", openapi_url=None, docs_url=None, redoc_url=None)

    # Not async: the database is waited for in a thread.
    @app.get(
        "/dags/{dag_id}/runs/{run_id:path}",
        dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.RUN))],
        response_model=None,
    )
    def show_run(dag_id: str, run_id: str, sec_fetch_dest: str = Header("")) -> Any:
        status, page = answer_run(dag_id, run_id, is_framed=sec_fetch_dest == "iframe")
        return HTMLResponse(page, status, headers())

    @app.exception_handler(HTTPException)
    def show_error(request: Any, error: HTTPException) -> Any:
        """Say in the browser what Airflow's own check has to say."""
        link = None
        if error.status_code == 401:
            from urllib.parse import quote

            here = page_address(
                base_url(), request.path_params.get("dag_id", ""), request.path_params.get("run_id", "")
            )
            link = (f"{base_url().rstrip('/')}/api/v2/auth/login?next={quote(here, safe='')}", "Log in to Airflow")
        page = render_message(f"Error {error.status_code}", str(error.detail), link=link)
        return HTMLResponse(page, error.status_code, dict(headers()) | dict(error.headers or {}))

    return app


class SpectralizePages(AirflowPlugin):
    """The app, and a tab "Batch" on the page of each DAG run."""

    name = "spectralize_pages"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Build the app only where it is asked for: in the api-server."""
        return [{"name": "spectralize", "app": make_app(), "url_prefix": PREFIX}]

    @property
    def external_views(self) -> list[dict[str, str]]:  # type: ignore[override]
        """Describe the tab. Airflow fills in the ids, and shows the page in a frame."""
        href = f"{base_url().rstrip('/')}{PREFIX}/dags/{{DAG_ID}}/runs/{{RUN_ID}}"
        return [{"name": "Batch", "href": href, "destination": "dag_run", "url_route": "spectralize_batch"}]
