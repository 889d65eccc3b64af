"""Health of the service named on the command line: exit code 0, or 1 and a line that says what is missing.

Asks over HTTP, with the standard library alone: `airflow jobs check` would import Airflow, seconds of a core at each check.
"""

import json
import os
import sys
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

#: Service name → its name in Airflow's health report.
IN_HEALTH_REPORT = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}

# A proxy for the internet must not be asked for services of this network.
_open = build_opener(ProxyHandler({})).open


def fetch(url: str) -> dict:
    """Return the JSON object found at ``url``."""
    with _open(url, timeout=50) as response:
        return json.load(response)


def find_fault(service: str) -> str | None:
    """Return what is wrong with the service, or None."""
    if service == "explorer":
        # Anything but a 200 is an error.
        _open("http://127.0.0.1:8050/healthz", timeout=50).close()
        return None
    if service == "spark-master":
        status = fetch("http://127.0.0.1:8080/json/")["status"]
        return None if status == "ALIVE" else f"the master is {status}"
    if service == "spark-worker":
        # Known to the worker only once the master has accepted it.
        return None if fetch("http://127.0.0.1:8081/json/")["masterwebuiurl"] else "not registered at a master"
    api = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
    if service == "api-server":
        # The API of the tasks builds itself at its first request, for longer than a task waits for an answer.
        fetch(f"{api}/execution/health")
    name = IN_HEALTH_REPORT.get(service, "metadatabase")
    status = fetch(f"{api}/api/v2/monitor/health")[name]["status"]
    return None if status == "healthy" else f"{name} is {status}"


def main() -> int:
    """Check one service."""
    try:
        fault = find_fault(sys.argv[1])
    except (URLError, OSError, ValueError, KeyError) as error:
        fault = repr(error)
    if fault:
        print(fault)
    return int(fault is not None)


if __name__ == "__main__":
    sys.exit(main())
