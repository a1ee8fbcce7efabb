"""`penstock plans`, `keys limit`, `projects`: what organisations, projects and keys are limited to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from click.testing import Result

from penstock.access import keys
from penstock.access.keyring import Keyring
from penstock.access.limits import RateLimits

Command = Callable[..., Awaitable[Result]]
Asked = Callable[..., Awaitable[Any]]
PEPPER = b"p" * 32


@pytest.fixture
async def ring(database: asyncpg.Pool, acme: int) -> tuple[Keyring, str]:
    """What a gateway knows, and a key of acme's."""
    async with database.acquire() as connection:
        key = await keys.create(connection, PEPPER, name="one", organisation="acme", project="web")
    made = Keyring(database, PEPPER)
    await made.refresh()
    return made, key


async def test_a_plan_is_made_given_and_followed_by_gateways(
    penstock: Command, asked: Asked, ring: tuple[Keyring, str]
) -> None:
    keyring, key = ring
    assert (await keyring.authenticate(key)).weight == 1
    made = await penstock("plans", "create", "gold", "--weight", "4", "--tokens-per-minute", "100000")
    assert "gold: weight 4, limits: 100,000 tokens a minute" in made.output
    await penstock("plans", "assign", "acme", "gold")
    await keyring.refresh()
    whose = await keyring.authenticate(key)
    assert (whose.weight, whose.plan_limits) == (4, RateLimits(tokens_per_minute=100_000))
    await penstock("plans", "set", "gold", "--concurrent", "7", "--tokens-per-minute", "none")
    await keyring.refresh()
    whose = await keyring.authenticate(key)
    assert (whose.weight, whose.plan_limits) == (4, RateLimits(concurrent_requests=7))
    assert (await asked("plans", "show", "gold"))["organisations"] == ["acme"]
    assert [plan["name"] for plan in await asked("plans", "list")] == ["gold", "standard"]


async def test_a_plan_that_somebody_has_stays(penstock: Command, acme: int) -> None:
    await penstock("plans", "create", "gold")
    await penstock("plans", "assign", "acme", "gold")
    refused = await penstock("plans", "remove", "gold", status=1)
    assert "gold has organisations (acme)" in refused.output
    assert "penstock plans assign acme standard" in refused.output
    await penstock("plans", "assign", "acme", "standard")
    assert "gold is gone" in (await penstock("plans", "remove", "gold")).output
    assert "cannot be removed" in (await penstock("plans", "remove", "standard", status=1)).output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("plans", "create", "x", "--weight", "-3"), 1, "the nearest is 0.01"),
        (("plans", "create", "x", "--weight", "0"), 1, "from 0.01 to 1000; the nearest is 0.01"),
        (("plans", "create", "x", "--weight", "1e9"), 1, "the nearest is 1000"),
        (("plans", "create", "x", "--weight", "nan"), 1, "from 0.01 to 1000"),
        (("plans", "create", "Gold!"), 1, "small letters"),
        (("plans", "create", "standard"), 1, "penstock plans set standard"),
        (("plans", "create", "x", "--requests-per-minute", "0"), 2, "the nearest is 1"),
        (("plans", "create", "x", "--concurrent", "many"), 2, "a whole number of 1 or more, or none"),
        (("plans", "set", "standard"), 2, "--weight"),
        (("plans", "set", "standard", "--weight", "-1"), 1, "the nearest is 0.01"),
        (("plans", "set", "nothing", "--weight", "1"), 1, "there are: standard"),
        (("plans", "assign", "acme", "nothing"), 1, "there are: standard"),
        (("plans", "assign", "nobody", "standard"), 1, "no organisation named 'nobody'"),
        (("keys", "limit", "zzz", "--organisation", "acme", "--concurrent", "1"), 1, "no live key 'zzz'"),
        (("keys", "limit", "zzz", "--none", "--concurrent", "1"), 2, "or --none"),
        (("projects", "limit", "zzz", "--organisation", "acme", "--none"), 1, "no project named 'zzz'"),
    ],
)
async def test_what_cannot_be_set_is_refused_with_what_can(
    penstock: Command, acme: int, arguments: tuple[str, ...], status: int, said: str
) -> None:
    refused = await penstock(*arguments, status=status)
    assert said in " ".join(refused.output.replace("│", " ").split())
    assert "standard: weight 1, limits: none" in (await penstock("plans", "show", "standard")).output


async def test_keys_and_projects_are_limited_and_freed(
    penstock: Command, asked: Asked, ring: tuple[Keyring, str]
) -> None:
    keyring, key = ring
    key_id = (await keyring.authenticate(key)).key_id
    own = ("--organisation", "acme")
    set_to = await asked("keys", "limit", key_id, *own, "--requests-per-minute", "60", "--concurrent", "2")
    assert set_to == {"requests_per_minute": 60, "concurrent_requests": 2}
    said = await penstock("projects", "limit", "web", *own, "--tokens-per-minute", "5000")
    assert said.output == "Limits of project web: 5,000 tokens a minute.\n"
    await keyring.refresh()
    whose = await keyring.authenticate(key)
    assert whose.key_limits == RateLimits(requests_per_minute=60, concurrent_requests=2)
    assert whose.project_limits == RateLimits(tokens_per_minute=5000)
    # What is not named stays; `none` takes one away, and --none all of them.
    kept = await asked("keys", "limit", key_id, *own, "--concurrent", "none")
    assert kept == await asked("keys", "limit", key_id, *own) == {"requests_per_minute": 60}
    assert [project["limits"] for project in await asked("projects", "list", *own)] == [
        {"tokens_per_minute": 5000}
    ]
    limited = {each["id"]: each["limits"] for each in await asked("keys", "list", *own)}
    assert limited[key_id] == {"requests_per_minute": 60}
    assert sorted(map(len, limited.values())) == [0, 1]
    await penstock("keys", "limit", key_id, *own, "--none")
    await penstock("projects", "limit", "web", *own, "--none")
    await keyring.refresh()
    whose = await keyring.authenticate(key)
    assert (whose.key_limits, whose.project_limits) == (RateLimits(), RateLimits())


@pytest.mark.parametrize("columns", [60, 80, 160])
async def test_tables_hold_whatever_the_screen(penstock: Command, acme: int, columns: int) -> None:
    await penstock("plans", "create", "gold", "--tokens-per-minute", "100000", "--concurrent", "70")
    await penstock("projects", "limit", "web", "--organisation", "acme", "--requests-per-minute", "60")
    for noun in (("plans", "list"), ("projects", "list", "--organisation", "acme")):
        lines = (await penstock(*noun, columns=columns)).output.splitlines()
        assert max(map(len, lines)) <= columns
    listed = (await penstock("keys", "list", "--organisation", "acme", columns=columns)).output
    assert max(map(len, listed.splitlines())) <= columns
    assert "…" not in listed or columns > 80
