"""The demonstration: real recordings through the real scheduler and a real Spark job, and a look at what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
from botocore.exceptions import ClientError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, track

from local.airflow_api import AirflowApi, DagRun, TaskInstance
from local.corpus import CorpusFile, build_corpus, scan_folder
from local.errors import StackError
from local.picture import save_picture
from local.stack import Stack
from spectralize import open_store
from spectralize.cli.status import batch_sums, batch_table
from spectralize.database import connect
from spectralize.errors import LedgerError
from spectralize.keys import is_wanted
from spectralize.ledger import find_batch
from spectralize.s3 import s3_errors
from spectralize.sources import Source, load_sources
from spectralize.status import read_key_lines, read_status
from spectralize.verify import verify_store

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

DAG_ID = "ingest_audio"


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration on one stack."""

    stack: Stack
    console: Console

    def run(self, audio: Path | None) -> None:
        """Ingest the demo's own recordings, or those of a folder, and show the result.

        Raises
        ------
        StackError
            If anything came out otherwise than expected.
        """
        files = self.seed(audio)
        source = load_sources().find("audio")
        with AirflowApi(self.stack.airflow_url, self.stack.airflow_user, self.stack.airflow_password) as api:
            with self._step("DAG ingest_audio is parsed"):
                api.wait_for_dag(DAG_ID)
            run = self._trigger(api)
            api.unpause(DAG_ID)
            begun = monotonic()
            run = self._watch(api, run)
            reasons = _reasons(api, run)
        self.console.print(
            f"{DAG_ID}, run {run.run_id}: {run.state} after {monotonic() - begun:.0f} s\n", highlight=False
        )
        for reason in reasons:
            self.console.print(f"[red]✗[/] {escape(reason)}", highlight=False)
        self.show(files, source, run)

    def seed(self, audio: Path | None) -> list[CorpusFile]:
        """Put the recordings into the bucket; one that is there already, byte for byte, is left alone."""
        if audio is None:
            with self._step("real recordings in six formats"):
                cache = self.stack.layout.home / "corpus"
                files = build_corpus(cache / "audio", cache=cache / "package")
        else:
            files = scan_folder(audio)
        client = boto3.client(
            "s3", endpoint_url=self.stack.s3_endpoint, region_name="us-east-1",
            aws_access_key_id=self.stack.s3_access_key, aws_secret_access_key=self.stack.s3_secret_key,
        )  # fmt: skip
        bucket = load_sources().find("audio").bucket
        begun = monotonic()
        for file in track(files, f"uploading to s3://{bucket}", console=self.console, transient=True):
            with s3_errors(f"s3://{bucket}/{file.key}"):
                _put(client, bucket, file)
        self._done(f"{len(files)} objects in s3://{bucket}", begun)
        return files

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begun = monotonic()
        with self.console.status(f"{escape(what)} …"):
            yield
        self._done(what, begun)

    def _done(self, what: str, begun: float) -> None:
        self.console.print(f"[green]✓[/] {escape(what):<38} {monotonic() - begun:6.1f} s", highlight=False)

    def _trigger(self, api: AirflowApi) -> DagRun:
        """Start a run by hand.

        Where the scheduler is due to start one as soon as the DAG is unpaused, this run takes its logical date and so its
        place: two runs would do the same work side by side.
        """
        due = api.next_run(DAG_ID)
        taken = {run.logical_date for run in api.runs(DAG_ID)}
        if due is not None and due.run_after <= datetime.now(UTC) and due.logical_date not in taken:
            return api.trigger(DAG_ID, logical_date=due.logical_date)
        return api.trigger(DAG_ID)

    def _watch(self, api: AirflowApi, run: DagRun) -> DagRun:
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("objects"),
            TimeElapsedColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task("queued", total=None)

            def look(now: DagRun, tasks: list[TaskInstance]) -> None:
                running = [task.task_id for task in tasks if task.state in {"running", "queued", "up_for_retry"}]
                planned, done = self._progress(now)
                description = ", ".join(running) or now.state
                if running and not self.console.is_terminal and description != progress.tasks[bar].description:
                    self.console.print(f"  {description}", highlight=False)
                progress.update(bar, description=description, total=planned, completed=done)

            return api.wait_for_run(DAG_ID, run.run_id, timeout_s=3600, on_poll=look)

    def _progress(self, run: DagRun) -> tuple[int | None, int]:
        """Return how many objects the run's batch has, and how many have an outcome."""
        try:
            with connect(self.stack.dsn) as connection:
                counts = find_batch(connection, DAG_ID, run.run_id).counts
        except (LedgerError, psycopg.errors.UndefinedTable):
            # Not planned yet, or in a database that this run is still migrating.
            return None, 0
        return counts.planned_spectrograms, sum(counts.outcomes.values())

    def show(self, files: Sequence[CorpusFile], source: Source, run: DagRun) -> None:
        """Print what became of each file in a run, and the addresses.

        Raises
        ------
        StackError
            If the run failed, a file has another outcome than expected, the store breaks an invariant, or the explorer does not
            show what was loaded.
        """
        with connect(self.stack.dsn) as connection:
            found = {
                line["key"]: line for line in read_key_lines(connection, source.bucket, [file.key for file in files])
            }
            lines = [found.get(file.key) or _line_of_nothing(file, source) for file in files]
            self.console.print(batch_table(lines), "")
            batch_id = find_batch(connection, DAG_ID, run.run_id).batch_id
            [batch] = [batch for batch in read_status(connection)["batches"] if batch["batch_id"] == batch_id]
            self.console.print(batch_sums(batch), highlight=False)
            breaches = sum(finding.n_breaches for finding in verify_store(connection))
            self.console.print(f"verify: {breaches} breaches of the store's invariants", highlight=False)
            loaded = [line for line in lines if line["outcome"] == "loaded"]
            picture_of = None
            if loaded:
                picture = self.stack.layout.home / "demo" / "mel_spectrogram.png"
                with open_store(self.stack.dsn) as store:
                    recording = store.recording(f"s3://{source.bucket}/{loaded[0]['key']}")
                    save_picture(recording, loaded[0]["profile"], picture)
                    picture_of = (recording.id, loaded[0]["profile"])
                self.console.print(
                    f"\nMel-spectrogram of {escape(loaded[0]['key'])}: {picture}", highlight=False, soft_wrap=True
                )
        self._show_addresses()
        problems = [
            f"{file.key!r} is {line['outcome']}, not {file.expected}: {line['reason'] or 'no reason is known'}"
            for file, line in zip(files, lines, strict=True)
            if line["outcome"] != file.expected
            and not (file.expected is None and line["outcome"] in _GOOD_FOR_ANY_FILE)
        ]
        if run.state != "success":
            problems.insert(0, f"run {run.run_id} is {run.state}: see its tasks in the Airflow UI")
        if breaches:
            problems.append(f"verify found {breaches} breaches: spectralize verify names them")
        if fault := self.stack.explorer.find_fault(picture_of):
            problems.append(fault)
        if problems:
            raise StackError("; ".join(problems))

    def _show_addresses(self) -> None:
        self.console.print(
            f"\nExplorer      {self.stack.explorer.url}"
            f"\nAirflow UI    {self.stack.airflow_url}  user {self.stack.airflow_user}, password: make password"
            f"\nS3            {self.stack.s3_endpoint}"
            '\nTimescaleDB   eval "$(.venv/bin/python -m local env)", then psql "$SPECTRALIZE_DSN" '
            "or .venv/bin/spectralize status"
            "\nThe stack stays up; make down stops it.",
            highlight=False,
            soft_wrap=True,
        )


#: What may become of a file of which nothing is known beforehand. `failed` is never good.
_GOOD_FOR_ANY_FILE = {"loaded", "partial", "rejected", "ignored"}


def _line_of_nothing(file: CorpusFile, source: Source) -> dict[str, Any]:
    """Describe a file that is not in the ledger: ignored by the source's globs, or lost."""
    is_ignored = not is_wanted(file.key, source)
    reason = "the source's globs do not select it" if is_ignored else "the ledger has no line for it"
    empty = dict.fromkeys(("duration_s", "n_frames", "fetch_s", "decode_s", "mel_s", "load_s"))
    return {"key": file.key, "outcome": "ignored" if is_ignored else "missing", "reason": reason} | empty


def _reasons(api: AirflowApi, run: DagRun) -> list[str]:
    """Return the last error of each failed task of a run."""
    reasons = []
    for task in api.task_instances(run.dag_id, run.run_id):
        if task.state == "failed":
            log = api.task_log(run.dag_id, run.run_id, task.task_id, task.try_number).splitlines()
            errors = [line for line in log if "Exception: " in line]
            reasons.append(f"{task.task_id}: {errors[-1] if errors else 'see its log in the Airflow UI'}")
    return reasons


def _put(client: S3Client, bucket: str, file: CorpusFile) -> None:
    data = file.path.read_bytes()
    try:
        known = client.head_object(Bucket=bucket, Key=file.key)
    except ClientError:
        known = None
    # The etag of an object that was put in one piece is the MD5 of its bytes.
    if known is None or known["ETag"].strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
        client.put_object(Bucket=bucket, Key=file.key, Body=data)
