"""What our steps add to the OpenLineage events that Airflow's own provider sends: datasets with counts, verdicts, the batch.

The provider asks an operator by the methods of `BatchLineage`, in a process of its own beside the task's, which it ends after
`[openlineage] execution_timeout`. Nothing here may fail or hold up a task: what cannot be told is one line in its log.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spectralize.sources import load_sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import RunFacet

    from spectralize.gate import Verdict
    from spectralize.lineagefacts import BatchFacts, TableFacts
    from spectralize.sources import Source

logger = logging.getLogger(__name__)

#: Names docs/openlineage/SpectralizeBatchRunFacet.json, which is served nowhere. A change of the facet is a new version in both.
FACET_SCHEMA = "urn:spectralize:openlineage:1-0-0:SpectralizeBatchRunFacet#/$defs/SpectralizeBatchRunFacet"
FACET_NAME = "spectralize_batch"

#: Seconds until the database must have answered the first time; the provider gives all of it ten.
_CONNECT_TIMEOUT_S = 3

_PLAN_TASK = "plan_batch"


@dataclass(frozen=True, slots=True)
class Lineage:
    """What one event says of a batch."""

    inputs: list[InputDataset] = field(default_factory=list)
    outputs: list[OutputDataset] = field(default_factory=list)
    run_facets: dict[str, RunFacet] = field(default_factory=dict)


class BatchLineage:
    """Tells the lineage of the batch that a step works on. For operators; goes before Airflow's class."""

    #: Whether the step writes features, or tells of all that was written.
    reports_outputs = True

    def get_openlineage_facets_on_start(self) -> OperatorLineage:
        """Name what will be read: nothing is known of a batch yet, and nothing is asked."""
        return _in_one_line(self, self._announce)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:
        """Tell of the batch as the ledger has it now."""
        return _in_one_line(self, lambda: self._tell(_planned_batch(task_instance), task_instance))

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage:
        """Tell as much as there is."""
        return _in_one_line(self, lambda: self._tell(_planned_batch(task_instance), task_instance))

    def _announce(self) -> Lineage:
        return Lineage(inputs=[source_dataset(load_sources().find(_source_of(self)))])

    def _tell(self, batch_id: int | None, task_instance: Any) -> Lineage:
        from psycopg.conninfo import make_conninfo

        from spectralize.database import connect
        from spectralize.lineagefacts import read_batch_facts, read_open_batch_facts
        from spectralize_connections import features_dsn

        dsn = features_dsn()
        with closing(
            connect(make_conninfo(dsn, connect_timeout=_CONNECT_TIMEOUT_S), application="spectralize lineage")
        ) as connection:
            facts = (
                read_open_batch_facts(connection, task_instance.dag_id, task_instance.run_id)
                if batch_id is None
                else read_batch_facts(connection, batch_id)
            )
        if facts is None:
            return self._announce()
        source = load_sources().find(facts.source)
        return describe_batch(facts, source, dsn, with_outputs=self.reports_outputs)


class InputLineage(BatchLineage):
    """The same for steps that write no features: what was planned, and how it fared."""

    reports_outputs = False


def describe_batch(facts: BatchFacts, source: Source, dsn: str, *, with_outputs: bool = True) -> Lineage:
    """Return datasets and facets of a batch; of the DSN, host, port and database are told, nothing else."""
    outputs = [_output_dataset(facts, table, dsn) for table in facts.tables] if with_outputs else []
    return Lineage([source_dataset(source, facts)], outputs, {FACET_NAME: _batch_facet(facts)})


def source_dataset(source: Source, facts: BatchFacts | None = None) -> InputDataset:
    """Return a source as one dataset, its prefix, however many objects it holds; with what a batch has planned of it."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import data_quality_assertions_dataset, input_statistics_input_dataset

    # OpenLineage's name for the root of a bucket is "/"; other names begin without it.
    dataset = InputDataset(namespace=f"s3://{source.bucket}", name=source.root.strip("/") or "/")
    if facts is None:
        return dataset
    dataset.inputFacets = {
        "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=facts.n_objects, size=facts.size_bytes, fileCount=facts.n_objects
        )
    }
    verdicts = _verdicts(facts, source)
    if verdicts:
        dataset.inputFacets["dataQualityAssertions"] = (
            data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
                assertions=[
                    data_quality_assertions_dataset.Assertion(
                        assertion=verdict.rule,
                        success=verdict.holds,
                        severity="error",
                        name=verdict.rule,
                        description=verdict.description,
                        expected=verdict.expected,
                        actual=verdict.actual,
                    )
                    for verdict in verdicts
                ]
            )
        )
    return dataset


def _verdicts(facts: BatchFacts, source: Source) -> list[Verdict]:
    """Return how a batch meets each rule, and what came of it; nothing before the gate has judged it."""
    from spectralize.gate import Verdict, list_verdicts

    if not facts.is_gated:
        return []
    passed = Verdict(
        rule="gate_passed",
        holds=facts.failure is None,
        description="The verdict on the batch",
        expected="passed",
        actual=facts.failure or "passed",
        failure=facts.failure or "",
    )
    return [*list_verdicts(facts.counts, source), passed]


def _output_dataset(facts: BatchFacts, table: TableFacts, dsn: str) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        data_quality_metrics_dataset,
        output_statistics_output_dataset,
        schema_dataset,
    )

    from spectralize.tables import SCHEMA

    address = urlsplit(dsn)
    dataset = OutputDataset(
        namespace=f"postgres://{address.hostname}:{address.port or 5432}",
        name=f"{address.path.lstrip('/')}.{SCHEMA}.{table.name}",
        facets={
            "schema": schema_dataset.SchemaDatasetFacet(
                fields=[schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in table.columns]
            )
        },
        outputFacets={
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=table.rows, size=table.size_bytes
            )
        },
    )
    if table.name == "mel_frames" and facts.peak_db is not None and dataset.facets is not None:
        # Of the rows of this batch. The column is NOT NULL, and its type holds no NaN.
        dataset.facets["dataQualityMetrics"] = data_quality_metrics_dataset.DataQualityMetricsDatasetFacet(
            columnMetrics={
                "mel": data_quality_metrics_dataset.ColumnMetrics(nullCount=0, count=table.rows, max=facts.peak_db)
            },
            rowCount=table.rows,
            bytes=table.size_bytes,
        )
    return dataset


@cache
def _facet_class() -> type[RunFacet]:
    from openlineage.client.facet_v2 import RunFacet

    class SpectralizeBatchRunFacet(RunFacet):
        @staticmethod
        def _get_schema() -> str:
            return FACET_SCHEMA

    return SpectralizeBatchRunFacet


def _batch_facet(facts: BatchFacts) -> RunFacet:
    from spectralize.version import CORE_VERSION

    counts = facts.counts
    interval = (
        {"start": facts.interval[0].isoformat(), "end": facts.interval[1].isoformat()} if facts.interval else None
    )
    facet: RunFacet = _facet_class()(producer=f"urn:spectralize:core:{CORE_VERSION}").with_additional_properties(
        batchId=facts.batch_id,
        source=facts.source,
        dagId=facts.dag_id,
        runId=facts.run_id,
        tryNumber=facts.try_number,
        kind=facts.kind,
        interval=interval,
        state=facts.state,
        failure=facts.failure,
        isGated=facts.is_gated,
        manifest=facts.manifest_uri,
        listing={
            "listed": counts.listed,
            "unchanged": counts.unchanged,
            "planned": counts.planned,
            "unsettled": counts.unsettled,
            "ignored": counts.ignored,
            "overCap": counts.over_cap,
        },
        plannedSpectrograms=counts.planned_spectrograms,
        outcomes=dict(counts.outcomes),
        rejectClasses=dict(facts.reject_classes),
        failureClasses=dict(facts.failure_classes),
        coreVersion=facts.core_version,
        codeZipSha256=facts.code_zip_sha256,
        profiles=[{"name": name, "fingerprint": fingerprint} for name, fingerprint in facts.profiles],
    )
    return facet


def _in_one_line(operator: Any, tell: Callable[[], Lineage]) -> OperatorLineage:
    from airflow.providers.openlineage.extractors import OperatorLineage

    try:
        lineage = tell()
    # Whatever it is, the task is worth more than its lineage.
    except Exception as error:  # noqa: BLE001
        # Its first line: psycopg's others quote the server.
        line = (str(error).splitlines() or [""])[0]
        logger.warning("%s: no lineage of its batch is told: %s: %s", operator.task_id, type(error).__name__, line)
        return OperatorLineage()
    return OperatorLineage(inputs=lineage.inputs, outputs=lineage.outputs, run_facets=lineage.run_facets)


def _planned_batch(task_instance: Any) -> int | None:
    """Return the batch that plan_batch of this very try has left; None while it has left none."""
    plan = task_instance.xcom_pull(task_ids=_PLAN_TASK)
    return int(plan["batch_id"]) if plan else None


def _source_of(operator: Any) -> str:
    source = getattr(operator, "source", None)
    if source:
        return str(source)
    # The Spark step is given the address of its manifest alone, <manifests>/<source>/<batch_id>.jsonl.
    manifest = PurePosixPath(operator.application_args[0])
    return manifest.parent.name
