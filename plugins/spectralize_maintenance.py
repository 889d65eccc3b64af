"""The steps of the weekly maintenance: each calls the core, logs what it did in one line, and returns it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from spectralize_connections import features_dsn, plain_errors
from spectralize_sources import usable_sources

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

#: Breaches that a failed `verify` names per invariant; `spectralize verify` names them all.
_SHOWN = 3


@contextmanager
def _features() -> Iterator[psycopg.Connection[Any]]:
    from spectralize.database import connect

    with plain_errors(), connect(features_dsn(), application="spectralize maintenance") as connection:
        yield connection


def _said(done: Any) -> dict[str, Any]:
    logger.info("%s", done)
    return asdict(done)


def remove_superseded(*, params: dict[str, Any], **_: object) -> dict[str, Any]:
    """Remove the frames of what a newer generation, or a newer object of the key, has replaced."""
    from spectralize.expiry import remove_superseded as remove

    with _features() as connection:
        return _said(remove(connection, grace=timedelta(days=params["grace_days"]), dry_run=params["dry_run"]))


def drop_expired_chunks(*, params: dict[str, Any], **_: object) -> dict[str, Any]:
    """Drop the chunks in which everything is older than its source keeps it."""
    from spectralize.retention import drop_expired_chunks as drop

    keep = {
        source.name: timedelta(days=source.keep_days) for source in usable_sources()[0] if source.keep_days is not None
    }
    if not keep:
        logger.info("no source has keep_days: everything is kept")
    with _features() as connection:
        return _said(drop(connection, keep, dry_run=params["dry_run"]))


def convert_to_columnstore(*, params: dict[str, Any], **_: object) -> dict[str, Any]:
    """Store old chunks by column, where the edition of TimescaleDB has that."""
    from spectralize.maintenance import convert_to_columnstore as convert

    after = timedelta(days=params["columnstore_after_days"])
    with _features() as connection:
        return _said(convert(connection, after=after, dry_run=params["dry_run"]))


def repair_indexes(*, params: dict[str, Any], **_: object) -> dict[str, Any]:
    """Build invalid indexes anew."""
    from spectralize.maintenance import repair_indexes as repair

    if params["dry_run"]:
        logger.info("a dry run: no index is built")
        return {}
    with _features() as connection:
        return _said(repair(connection))


def report_store(**_: object) -> dict[str, Any]:
    """Say what the store holds, in how many chunks and on how much disk."""
    from spectralize.storereport import report_store as report

    with _features() as connection:
        return _said(report(connection))


def verify_store(**_: object) -> None:
    """Check every invariant of ledger and frames; fail with those that are broken."""
    from spectralize.verify import verify_store as verify

    with _features() as connection:
        findings = verify(connection)
    broken = [finding for finding in findings if finding.n_breaches]
    for finding in broken:
        for breach in finding.breaches:
            logger.error("%s: %s: %s", finding.name, breach.what, breach.breach)
    if broken:
        named = "; ".join(
            f"{finding.statement} ({finding.n_breaches} times: {', '.join(breach.what for breach in finding.breaches[:_SHOWN])})"
            for finding in broken
        )
        raise AirflowFailException(f"{len(broken)} invariants are broken: {named}")
    logger.info("%d invariants hold", len(findings))
