"""The sources that DAGs are made of: those whose tables are right, and one line for each whose table is not."""

from __future__ import annotations

from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher, CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid

from spectralize.errors import ConfigError
from spectralize.sources import Source, load_sources
from spectralize_connections import AWS_CONN_ID


def usable_sources() -> tuple[list[Source], list[str]]:
    """Return the sources that can have a DAG, and what is wrong with the others.

    Raises
    ------
    ConfigError
        If sources.toml itself cannot be read.
    """
    loaded = load_sources()
    sources, errors = [], list(loaded.errors.values())
    for source in loaded.sources.values():
        try:
            CronDataIntervalTimetable(source.schedule, timezone="UTC").validate()
        except AirflowTimetableInvalid as error:
            errors.append(
                f"sources.toml, source {source.name!r}: schedule = {source.schedule!r}: "
                f"must be five fields of cron such as '0 0 * * *', or '@daily': {error}"
            )
            continue
        sources.append(source)
    return sources, errors


def require_usable_sources() -> None:
    """Raise what is wrong with the sources file, a line each."""
    errors = usable_sources()[1]
    if errors:
        raise ConfigError("\n".join(errors))


def schedule_of(source: Source) -> CronDataIntervalTimetable | AssetOrTimeSchedule:
    """Return when a source's DAG runs: by its cron, and woken by its bucket's events where it has a queue."""
    timetable = CronDataIntervalTimetable(source.schedule, timezone="UTC")
    if source.events_queue is None:
        return timetable
    from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger

    trigger = SqsSensorTrigger(
        sqs_queue=source.events_queue, aws_conn_id=AWS_CONN_ID, max_messages=10, wait_time_seconds=20, waiter_delay=5
    )
    bucket = Asset(
        name=f"bucket_of_{source.name}",
        uri=f"s3://{source.bucket}/{source.root}",
        watchers=[AssetWatcher(name=f"events_of_{source.name}", trigger=trigger)],
    )
    return AssetOrTimeSchedule(timetable=timetable, assets=[bucket])
