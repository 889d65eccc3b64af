"""`spectralize verify`."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from spectralize.cli.common import AsJson, Dsn, app, make_console, plain, print_json, require_schema
from spectralize.database import connect
from spectralize.errors import ConfigError, ServiceError, as_one_line
from spectralize.verify import Finding, invariant_names, verify_store

if TYPE_CHECKING:
    from spectralize.recheck import Recheck

#: Spectrograms that are computed anew unless `--sample` says how many.
_SAMPLE = 3

#: Called with what is being looked at, how many were before it, and how many there are.
Step = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """What was not checked, and why."""

    what: str
    reason: str


@app.command()
def verify(
    sample: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default=False,
            help=f"Current spectrograms, chosen at random, to fetch, decode and compute anew. Left out: {_SAMPLE}, where S3 "
            "answers and the extra audio is installed.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(show_default=False, help="Choose the same ones as an earlier run that named this seed."),
    ] = None,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Check every invariant of the store, and a sample of it against its objects; exit code 1 if one is broken.

    S3 is reached by AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a server of one's own, AWS_ENDPOINT_URL_S3.
    """
    with connect(dsn, application="spectralize verify") as connection, _steps() as step:
        require_schema(connection)
        findings = verify_store(connection, on_check=step)
        unchecked = [name for name in invariant_names() if name not in {finding.name for finding in findings}]
        left_out = [_LeftOut(name, "the schema is not that of this version") for name in unchecked]
        recheck: Recheck | None = None
        if unchecked:
            left_out.append(_LeftOut("sample", "the schema is not that of this version"))
        else:
            recheck, more = _recheck(connection, sample, secrets.randbelow(1 << 31) if seed is None else seed, step)
            left_out += more
    if recheck is not None:
        findings = [*findings, *recheck.findings]
    if as_json:
        print_json(_as_json(findings, recheck, left_out))
    else:
        _show(findings, recheck, left_out)
    if any(finding.n_breaches for finding in findings):
        raise typer.Exit(1)


def _recheck(
    connection: psycopg.Connection[Any], sample: int | None, seed: int, step: Step
) -> tuple["Recheck | None", list[_LeftOut]]:
    """Check a sample; if it cannot be done, that is an error for who has asked for it, and one line for who has not."""
    if sample == 0:
        return None, [_LeftOut("sample", "--sample 0")]
    try:
        try:
            from spectralize.recheck import recheck_sample
            from spectralize.s3 import open_s3
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"the extra audio is not installed ({error}): pip install 'spectralize[audio]'"
            ) from error
        found = recheck_sample(
            connection, open_s3(), n=_SAMPLE if sample is None else sample, seed=seed, ask_first=sample is None,
            on_object=step,
        )  # fmt: skip
    except (ConfigError, ServiceError) as error:
        if sample is not None:
            raise
        return None, [_LeftOut("sample", str(error))]
    if not found.n_sampled:
        return None, [_LeftOut("sample", "the store has no current spectrogram whose object is still listed")]
    return found, [_LeftOut(what, reason) for what, reason in found.unread]


@contextmanager
def _steps() -> Iterator[Step]:
    """Show on a terminal what is being looked at."""
    console = Console(stderr=True)
    # Drawn at each step, without a thread of its own.
    progress = Progress(
        BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"),
        console=console, transient=True, auto_refresh=False, disable=not console.is_terminal,
    )  # fmt: skip
    with progress:
        task = progress.add_task("")

        def step(what: str, n_before: int, n_all: int) -> None:
            progress.update(task, description=escape(as_one_line(what)), completed=n_before, total=n_all, refresh=True)

        yield step


def _as_json(findings: list[Finding], recheck: "Recheck | None", left_out: list[_LeftOut]) -> dict[str, Any]:
    sample = None
    if recheck is not None:
        sample = {
            "seed": recheck.seed,
            "spectrograms": recheck.n_sampled,
            "read": recheck.n_sampled - len(recheck.unread),
            "rows": recheck.n_rows,
            "equal_rows": recheck.n_equal_rows,
        }
    return {
        "breaches": sum(finding.n_breaches for finding in findings),
        "invariants": {finding.name: [asdict(breach) for breach in finding.breaches] for finding in findings},
        "sample": sample,
        "left_out": [asdict(item) for item in left_out],
    }


def _show(findings: list[Finding], recheck: "Recheck | None", left_out: list[_LeftOut]) -> None:
    console = make_console()
    for finding in findings:
        if not finding.n_breaches:
            console.print(f"[green]holds[/]     {finding.statement}", soft_wrap=True)
            continue
        times = "once" if finding.n_breaches == 1 else f"{finding.n_breaches} times"
        console.print(f"[bold red]broken[/]    {finding.statement} ({times})", soft_wrap=True)
        for breach in finding.breaches:
            console.print(f"            {plain(breach.what)}: {plain(breach.breach)}", soft_wrap=True)
    for item in left_out:
        console.print(f"[yellow]left out[/]  {plain(item.what)}: {plain(item.reason)}", soft_wrap=True)
    if recheck is not None:
        console.print(f"sample    {recheck}", highlight=False, soft_wrap=True)
