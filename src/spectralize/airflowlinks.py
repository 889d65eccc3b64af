"""Addresses in Airflow's own pages and in those that our plugins add to it. Knows no Airflow: the explorer links there, too."""

from urllib.parse import quote

#: Of the pages of our plugins, below the address of the api-server.
PREFIX = "/spectralize"


def page_address(base_url: str, dag_id: str, run_id: str) -> str:
    """Return the address of a run's page: its batches and their objects."""
    return f"{base_url.rstrip('/')}{PREFIX}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def lineage_address(base_url: str, dag_id: str, run_id: str) -> str:
    """Return the address of the lineage on a run's page: that of its newest try."""
    return f"{page_address(base_url, dag_id, run_id)}#lineage"


def run_address(base_url: str, dag_id: str, run_id: str) -> str:
    """Return the address of the run in Airflow's own UI."""
    return f"{dag_address(base_url, dag_id)}/runs/{quote(run_id, safe='')}"


def dag_address(base_url: str, dag_id: str) -> str:
    """Return the address of a DAG in Airflow's own UI.

    The form behind its *Trigger* button has no address of its own, and takes no values from one: Airflow 3.3 opens it on a
    click only.
    """
    return f"{base_url.rstrip('/')}/dags/{quote(dag_id, safe='')}"
