"""`penstock members`, `projects` and `keys` change who may do what; `penstock audit` tells of it."""

from __future__ import annotations

import csv
import getpass
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from click.testing import Result

from penstock.access import keys, people
from penstock.access.roles import Role

Command = Callable[..., Awaitable[Result]]
Asked = Callable[..., Awaitable[Any]]


@pytest.fixture
async def ada(database: asyncpg.Pool) -> str:
    """An account that belongs nowhere, and an organisation."""
    async with database.acquire() as connection:
        await keys.create(connection, b"p" * 32, name="first", organisation="default")
        await people.create(connection, email="ada@example.org", name="Ada", password="correct horse battery")
    return "ada@example.org"


async def test_a_membership_begins_changes_and_ends(
    penstock: Command, asked: Asked, ada: str, database: asyncpg.Pool
) -> None:
    await penstock("members", "add", ada, "--role", "owner")
    assert "already, as owner" in (await penstock("members", "add", ada, status=1)).output
    (member,) = await asked("members", "list")
    assert (member["email"], member["role"]) == (ada, "owner")
    assert "only owner" in (await penstock("members", "role", ada, "viewer", status=1)).output
    assert "only owner" in (await penstock("members", "remove", ada, status=1)).output
    async with database.acquire() as connection:
        bob = await people.create(
            connection, email="bob@example.org", name="Bob", password="correct horse battery"
        )
        organisation = await keys.find_organisation(connection, "default")
        await people.join(connection, bob, organisation, Role.OWNER)
    assert (await asked("members", "role", ada, "viewer"))["role"] == "viewer"
    assert "Ada <ada@example.org>" in (await penstock("members", "remove", ada)).output
    assert [each["email"] for each in await asked("members", "list")] == ["bob@example.org"]
    assert "nobody has an account" in (await penstock("members", "remove", "x@example.org", status=1)).output


async def test_projects_are_made_and_renamed(penstock: Command, asked: Asked, ada: str) -> None:
    assert "without keys" in (await penstock("projects", "create", "search")).output
    assert "already" in (await penstock("projects", "create", "search", status=1)).output
    assert (await asked("projects", "rename", "search", "finding"))["name"] == "finding"
    assert {each["name"] for each in await asked("projects", "list")} == {"default", "finding"}
    assert "no slash" in (await penstock("projects", "create", "a/b", status=1)).output


async def test_a_key_has_the_role_it_was_given(penstock: Command, asked: Asked, ada: str) -> None:
    await penstock("keys", "create", "reader", "--role", "viewer")
    await penstock("keys", "create", "plain")
    roles = {each["name"]: each["role"] for each in await asked("keys", "list")}
    assert (roles["reader"], roles["plain"]) == ("viewer", "developer")
    assert "viewer" in (await penstock("keys", "list", columns=60)).output


async def test_the_audit_log_tells_which_account_ran_a_command(
    penstock: Command, asked: Asked, ada: str
) -> None:
    await penstock("projects", "create", "=search")
    (entry,) = await asked("audit", "--organisation", "default", "--what", "project", "--name", "=search")
    assert (entry["actor_kind"], entry["actor_name"]) == ("command", getpass.getuser())
    assert "created the project =search" in (await penstock("audit", "--organisation", "default")).output
    for columns in (60, 120):
        assert "=search" in (await penstock("audit", columns=columns)).output
    table = list(csv.DictReader((await penstock("audit", "--csv", "--what", "project")).stdout.splitlines()))
    assert table[0]["object_name"] == "'=search"  # no spreadsheet calculates it
    assert table[0]["organisation"] == "default"
    rest = await asked("audit", "--after", table[0]["place"])
    assert all(each["id"] < entry["id"] for each in rest)
    assert "place" in (await penstock("audit", "--after", "x", status=2)).output
