"""The command behind `bash ops/bench`."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import asyncpg
import click
from benchmarks import figures, registry
from benchmarks.figures import Figure, Unmeasurable
from rich.console import Console

from penstock.local.problems import LocalError
from penstock.local.steps import Steps
from penstock_engines.failures import EngineFailure

INTERRUPTED = 130


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead of a table.")
@click.option("--peers", is_flag=True, help="Also measure peers, installed beside Penstock where missing.")
@click.option("--full", is_flag=True, help="At the size of the bars, which takes half an hour; see `how`.")
def command(names: tuple[str, ...], as_json: bool, peers: bool, full: bool) -> None:
    """Measure Penstock on this machine; without a NAME, everything there is to measure.

    A bar that does not hold is a result like any other: the exit status is 0 whenever all was measured.
    """
    known = registry.names()
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"no benchmark is named {unknown[0]!r}; there are {', '.join(known)}")
    try:
        measured = asyncio.run(_measure(list(names) or known, peers, full))
    except (Unmeasurable, LocalError, EngineFailure, OSError, asyncpg.PostgresError) as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(figures.as_json(measured))
    else:
        figures.show(measured, Console(highlight=False))


async def _measure(names: list[str], peers: bool, full: bool) -> list[Figure]:
    """Run the benchmarks one after the other; SIGTERM ends them as Ctrl-C does, children included."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    measured = []
    for name in names:
        folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        try:
            measured += await registry.load(name).measure(registry.Run(folder, Steps(), peers, full))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return measured


command(prog_name="bench")
