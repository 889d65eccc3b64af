"""No DAG: fails to import while config/sources.toml has errors, so that Airflow shows them above its list of DAGs.

The sources without errors have their DAGs from ingest.py all the same. (Airflow reads only files that name airflow and dag.)
"""

from spectralize_sources import require_usable_sources

require_usable_sources()
