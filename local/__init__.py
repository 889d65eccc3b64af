"""The embedded stack: S3, TimescaleDB and Airflow on one machine, without Docker.

``python -m local up`` starts it; ``local.stack.Stack`` is the same from Python.
"""
