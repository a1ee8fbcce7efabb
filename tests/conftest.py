"""What every test may ask for. The database is a real PostgreSQL, started as `penstock up` starts it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

# prometheus-client decides at its import, which modules under test cause, whether it shares its figures.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="penstock-metrics-"))
# There are no packages under tests/: `benches` is found by its folder. Last, so that it hides nothing.
sys.path.append(str(Path(__file__).parent))

import asyncpg
import pytest
from benches import chromium as debian
from hypothesis import settings

from penstock.local import first_run, postgres

TEMPLATE = "penstock_template"
WITHOUT_BROWSER = os.environ.get(debian.SWITCH) == "no"
_numbers = itertools.count(1)
_left_out: list[str] = []

# No deadline: on two shared cores it says more of the neighbours than of us. CI may ask for more examples.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def url_of(server: postgres.Postgres, database: str) -> str:
    return server.url.replace("@/penstock?", f"@/{database}?")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave browser tests out only where somebody says so."""
    if WITHOUT_BROWSER:
        driven = [item for item in items if "chromium" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=driven)
        items[:] = [item for item in items if item not in driven]
        _left_out.extend(item.nodeid for item in driven)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nobody shall take a run without a browser for a whole one."""
    if _left_out:
        text = f"NOT TESTED: {len(_left_out)} browser tests were left out, because {debian.SWITCH}=no"
        terminalreporter.write_sep("!", text, yellow=True, bold=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator[str]:
    """Where a Chromium without a screen is driven; one for all tests."""
    program = debian.find()
    if program is None:
        pytest.fail(debian.MISSING, pytrace=False)
    with debian.running(program) as address:
        yield address


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """One server for all tests that do not hurt it, with a migrated template database."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))

    async def prepare() -> postgres.Postgres:
        server = await postgres.start(folder / "postgres")
        connection = await asyncpg.connect(url_of(server, "postgres"))
        await connection.execute(f"create database {TEMPLATE}")
        await connection.close()
        await first_run.migrate(url_of(server, TEMPLATE))
        return server

    server = asyncio.run(prepare())
    yield server
    # At once: nobody needs its last checkpoint.
    asyncio.run(server.child.stop(with_signal=signal.SIGQUIT, patience_s=15))
    shutil.rmtree(folder)


@pytest.fixture
async def database_url(postgres_server: postgres.Postgres) -> AsyncIterator[str]:
    """An empty, migrated database of this test's own, as a DSN that asyncpg takes."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(url_of(postgres_server, "postgres"))
    await connection.execute(f"create database {name} template {TEMPLATE}")
    yield url_of(postgres_server, name)
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool on `database_url`."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=5) as pool:
        yield pool
