"""An installation after a month of use: people, keys, hundreds of models, millions of requests."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
from benchmarks.figures import Unmeasurable
from benchmarks.registry import Run
from benchmarks.rig import books, servers
from benchmarks.rig.books import Books

from penstock.access import people
from penstock.access.roles import Role
from penstock_catalog.shelf import BUILTIN
from penstock_engines.pool_settings import PoolSettings

MODELS = 500
DAYS = 30
ENDPOINTS = 12
MEMBERS = 60
EMAIL, PASSWORD = "bench@penstock.example", "benchmarks read and write here"
# The largest tenant of the invented usage is number 1, which the rig has made as `bench`.
NAMES = """
insert into access.organisation (id, name) overriding system value
select id, format('Tenant %s', id) from generate_series(2, $1::integer) as id;
"""
PROJECTS = """
insert into access.project (id, organisation_id, name) overriding system value
select 4 * tenant + part, tenant, format('Project %s', part)
from generate_series(1, $1::integer) as tenant, generate_series(0, 3) as part
"""
KEYS = """
insert into access.api_key (id, organisation_id, project_id, name, digest, last_four)
select format('key_%s_%s', tenant, key), tenant, 4 * tenant + key % 4, format('Service %s', key), '', 'abcd'
from generate_series(1, $1::integer) as tenant, generate_series(0, 39) as key
"""


@dataclass(frozen=True)
class World:
    """A gateway with that behind it, and somebody who has signed in to its portal."""

    gateway: servers.Gateway
    browser: httpx.AsyncClient
    """Of an operator who owns the largest tenant."""
    events: int


def write_cards(folder: Path) -> None:
    """Write model cards: each of those that ship again and again, under other names."""
    folder.mkdir()
    shipped = [(path, path.read_text()) for path in sorted(BUILTIN.glob("*.yaml"))]
    for number in range(MODELS):
        path, text = shipped[number % len(shipped)]
        for pattern, told in (
            (r"^id: .*", f"id: bench/model-{number}"),
            (r"^publisher: .*", "publisher: bench"),
            (r"^name: (.*)", rf"name: \1 number {number}"),
            (r"^  path: (.*)", rf"  path: {path.parent}/\1"),
        ):
            text = re.sub(pattern, told, text, flags=re.MULTILINE)
        (folder / f"bench--model-{number}.yaml").write_text(text)


@contextlib.asynccontextmanager
async def open_world(run: Run, events: int) -> AsyncIterator[World]:
    """Make it all, and sign in."""
    write_cards(run.folder / "cards")
    async with (
        servers.gateway(run.folder, cards=run.folder / "cards") as gateway,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateway.port}",
            headers={"sec-fetch-site": "same-origin", "accept-encoding": "gzip"},
            timeout=30,
        ) as browser,
        gateway.pool.acquire() as pooled,
    ):
        connection = cast("asyncpg.Connection", pooled)
        with run.steps.step(f"{events:,} requests of {DAYS} days"):
            await _people(connection)
            own = Books(gateway.database.server, connection, gateway.versions)
            await books.make_history(own, events, DAYS, lambda _: None, searchable=True)
            await connection.execute("vacuum (analyze)")
        with run.steps.step("models with pools, endpoints, a person who signs in"):
            for model in books.MODELS:
                await gateway.make_pool(model, PoolSettings())
            await _endpoints(gateway)
            # As old as the requests that were invented for them.
            await connection.execute(
                "update endpoints.serverless set created_at = now() - interval '60 days'"
            )
            signed_in = await browser.post("/portal/sign-in", data={"email": EMAIL, "password": PASSWORD})
            if signed_in.status_code != httpx.codes.SEE_OTHER:
                raise Unmeasurable(f"nobody can sign in: {signed_in.status_code}")
        yield World(gateway, browser, events)


async def _people(connection: asyncpg.Connection) -> None:
    for sql in (NAMES, PROJECTS, KEYS):
        await connection.execute(sql, books.ORGANISATIONS)
    person = await people.create(
        connection, email=EMAIL, name="Bench Operator", password=PASSWORD, operator=True
    )
    await people.join(connection, person, 1, Role.OWNER)
    await connection.execute(
        "insert into access.person (email, name, password_hash) "
        "select format('member-%s@penstock.example', n), format('Member %s', n), '' "
        "from generate_series(1, $1::integer) as n",
        MEMBERS,
    )
    await connection.execute(
        "insert into access.membership (person_id, organisation_id, role) "
        "select id, 1, 'viewer' from access.person where not operator"
    )


async def _endpoints(gateway: servers.Gateway) -> None:
    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"http://127.0.0.1:{gateway.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        for number in range(ENDPOINTS):
            wanted: dict[str, Any] = {"name": f"desk-{number}", "model": books.MODELS[number]}
            answer = await client.post("/api/v1/serverless-endpoints", json=wanted)
            if answer.is_error:
                raise Unmeasurable(f"an endpoint could not be made: {answer.text[:200]}")
