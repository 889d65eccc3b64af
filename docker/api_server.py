"""Run Airflow's API server with the password of .env.

Airflow's simple authentication reads passwords from a file that it must be able to write to, and makes up those it does
not find there; so the file is written before each start.
"""

import json
import os
from pathlib import Path

path = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
os.umask(0o077)
path.write_text(json.dumps({"admin": os.environ.pop("AIRFLOW_ADMIN_PASSWORD")}) + "\n")
os.execvp("airflow", ["airflow", "api-server"])
