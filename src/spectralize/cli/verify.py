"""`spectralize verify`."""

import typer

from spectralize.cli.common import AsJson, Dsn, app, make_console, plain, print_json, require_schema
from spectralize.database import connect
from spectralize.verify import Finding, verify_store


@app.command()
def verify(dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Check every invariant of ledger and frames; exit code 1 if one is broken."""
    with connect(dsn, application="spectralize verify") as connection:
        require_schema(connection)
        findings = verify_store(connection)
    if as_json:
        print_json(
            {
                "breaches": sum(finding.n_breaches for finding in findings),
                "invariants": {
                    finding.name: [{"what": breach.what, "breach": breach.breach} for breach in finding.breaches]
                    for finding in findings
                },
            }
        )
    else:
        _show_findings(findings)
    if any(finding.n_breaches for finding in findings):
        raise typer.Exit(1)


def _show_findings(findings: list[Finding]) -> None:
    console = make_console()
    for finding in findings:
        if not finding.n_breaches:
            console.print(f"[green]holds[/]   {finding.statement}")
            continue
        console.print(f"[bold red]broken[/]  {finding.statement} ({finding.n_breaches} times)")
        for breach in finding.breaches:
            console.print(f"          {plain(breach.what)}: {plain(breach.breach)}")
