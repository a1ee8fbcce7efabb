"""`penstock doctor`: what is found on this machine, and the cure for what is missing."""

from __future__ import annotations

import asyncio
import os
import sys

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.local import doctor
from penstock.local.doctor import Finding, Level

MARKS = {Level.FOUND: "[green]✓[/green]", Level.NOTE: "[yellow]![/yellow]", Level.MISSING: "[red]✗[/red]"}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, envvar="PENSTOCK_HOST")
@click.option(
    "--port", default=8088, show_default=True, envvar="PENSTOCK_PORT", type=click.IntRange(0, 65535)
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list: subject, level, found, cure.")
def command(host: str, port: int, as_json: bool) -> None:
    """Say what is found here and what is missing; ends with 1 when `penstock up` could not run."""
    findings = asyncio.run(doctor.examine(os.environ, host, port))
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        Console().print(_table(findings))
    sys.exit(any(finding.level is Level.MISSING for finding in findings))


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "What", "Found", "To do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(MARKS[finding.level], *map(escape, (finding.subject, finding.found, finding.cure)))
    return table
