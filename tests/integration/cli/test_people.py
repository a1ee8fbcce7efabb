"""`penstock people` as an operator uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from penstock.access import people
from penstock.local import first_run

Command = Callable[..., Awaitable[Any]]
ADA = "ada@example.org"


async def test_an_account_is_made_listed_helped_and_disabled(
    penstock: Command, asked: Command, acme: int, database: asyncpg.Pool
) -> None:
    made = await asked(
        "people", "create", ADA, "--organisation", "acme", "--role", "owner", "--name", "Ada L"
    )
    assert await people.recognise(database, ADA, made["password"]) is not None
    [listed] = await asked("people", "list", "--organisation", "acme")
    assert (listed["email"], listed["name"], listed["organisations"]) == (ADA, "Ada L", {"acme": "owner"})
    assert not listed["operator"]
    reset = await asked("people", "reset-password", ADA.upper(), "--remove-second-factor")
    assert reset["password"] != made["password"]
    assert await people.recognise(database, ADA, made["password"]) is None
    assert await people.recognise(database, ADA, reset["password"]) is not None
    await penstock("people", "disable", ADA)
    assert await people.recognise(database, ADA, reset["password"]) is None
    assert "disabled" in (await penstock("people", "list")).stdout
    await penstock("people", "enable", ADA)
    person = await people.recognise(database, ADA, reset["password"])
    assert person is not None
    await penstock("people", "operator", ADA)
    assert (await people.find(database, ADA)).operator
    await penstock("people", "operator", ADA, "--no")
    assert not (await people.find(database, ADA)).operator


async def test_a_password_is_shown_in_words_once(penstock: Command, acme: int) -> None:
    said = (await penstock("people", "create", ADA, "--organisation", "acme")).stdout
    assert "is developer of acme. The password, shown this once:" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", ADA, "--organisation", "nobody"), "no organisation named 'nobody'"),
        (("create", "no address", "--organisation", "acme"), "one reads like name@example.org"),
        (("create", "a@" + "x" * 300, "--organisation", "acme"), "an address has 3 to 254 characters"),
        (("create", ADA, "--organisation", "acme", "--name", "x" * 101), "a name has 1 to 100 characters"),
        (("reset-password", ADA), "no account for 'ada@example.org'"),
        (("disable", ADA), "no account"),
        (("list", "--organisation", "nobody"), "no organisation"),
    ],
)
async def test_what_cannot_be_is_said_in_one_sentence(
    penstock: Command, acme: int, arguments: tuple[str, ...], said: str
) -> None:
    result = await penstock("people", *arguments, status=1)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


async def test_an_address_has_one_account(penstock: Command, acme: int) -> None:
    await penstock("people", "create", ADA, "--organisation", "acme")
    again = await penstock("people", "create", "ADA@example.org", "--organisation", "acme", status=1)
    assert "there is an account for ADA@example.org already" in again.stderr


async def test_the_first_start_makes_one_account_and_no_other_does(
    database_url: str, database: asyncpg.Pool
) -> None:
    made = await first_run.first_account(database_url)
    assert made is not None
    person = await people.recognise(database, made.email, made.password)
    assert person is not None
    assert person.operator
    assert (await people.account(database, person.id)).memberships == {"default": "owner"}
    assert await first_run.first_account(database_url) is None
