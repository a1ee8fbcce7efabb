"""`penstock credit` as an operator uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock_billing import invariants
from penstock_billing.record import Funding

Command = Callable[..., Awaitable[Any]]
ACME = ("--organisation", "acme")
TOMORROW = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"


async def test_credit_is_added_given_shown_and_ended(
    penstock: Command, asked: Command, acme: int, use: Command, database: asyncpg.Pool
) -> None:
    said = await penstock("credit", "top-up", "1,250.50", *ACME, "--note", "wire 7")
    assert "Available now: 1,250.500000000 USD" in said.stdout
    assert "credit mode prepaid --organisation acme" in said.stderr
    assert (
        "It is prepaid, strict from now on"
        in (await penstock("credit", "mode", "prepaid", "--strict", *ACME)).stdout
    )
    gift = await asked("credit", "promote", "10", *ACME, "--expires", TOMORROW, "--note", "welcome")
    await use(acme, 7_000_000, funding=Funding.PREPAID)
    (wallet,) = await asked("credit", "show", *ACME)
    assert (wallet["funding"], wallet["strict"]) == ("prepaid", True)
    assert wallet["available_usd"] == "1260.493000000"
    assert wallet["burn_per_day_nano_usd"] == 1_000_000
    assert wallet["days_left"] == 1_260_493
    (promotion,) = wallet["promotions"]
    assert (promotion["left_nano_usd"], promotion["transaction_id"]) == (10**10, gift["transaction"])
    for columns in (80, 120):
        text = (await penstock("credit", "show", *ACME, columns=columns)).stdout
        assert "1,260.493000000" in text
        assert "welcome" in text
        assert max(len(line) for line in text.splitlines()) <= columns
    ended = await penstock("credit", "expire", str(promotion["id"]), *ACME)
    assert "10.000000000 USD expired" in ended.stdout
    (wallet,) = await asked("credit", "show", *ACME)
    assert (wallet["promotions"], wallet["promotional_nano_usd"]) == ([], 0)
    assert "0.000000000 USD expired" in (await penstock("credit", "expire", *ACME)).stdout
    async with database.acquire() as connection:
        assert await invariants.check(connection) == []  # type: ignore[arg-type]


async def test_a_top_up_is_booked_once_per_reference(penstock: Command, asked: Command, acme: int) -> None:
    assert acme
    first = await asked("credit", "top-up", "5", *ACME, "--reference", "wire 8")
    again = await asked("credit", "top-up", "5", *ACME, "--reference", "wire 8")
    assert again == first | {"repeated": True}
    refused = await penstock("credit", "top-up", "6", *ACME, "--reference", "wire 8", status=1)
    assert f"'wire 8' was used for transaction {first['transaction']}" in refused.stderr
    other = await penstock(
        "credit", "top-up", "5", *ACME, "--project", "web", "--reference", "wire 8", status=1
    )
    assert "which says something else" in other.stderr


async def test_a_project_gets_a_wallet_of_its_own(asked: Command, penstock: Command, acme: int) -> None:
    assert acme
    await penstock("credit", "mode", "prepaid", *ACME, "--project", "web")
    await penstock("credit", "top-up", "2", *ACME, "--project", "web")
    own, web = await asked("credit", "show", *ACME)
    assert (own["project"], own["available_nano_usd"]) == (None, 0)
    assert (web["project"], web["available_nano_usd"]) == ("web", 2_000_000_000)


async def test_a_wrong_top_up_is_corrected_as_far_as_it_is_unused(
    asked: Command, penstock: Command, acme: int, use: Command
) -> None:
    booked = await asked("credit", "top-up", "50", *ACME)
    number = str(booked["transaction"])
    await use(acme, 2_000_000_000, funding=Funding.PREPAID)
    refused = await penstock("ledger", "correct", number, "--amount", "49", "--note", "typo", status=1)
    assert "48.000000000 USD of it is left" in refused.stderr
    await penstock("ledger", "correct", number, "--amount", "45", "--note", "it was 5")
    (wallet,) = await asked("credit", "show", *ACME)
    assert wallet["available_nano_usd"] == 3_000_000_000
    await penstock("ledger", "correct", number, "--amount", "6", "--note", "again", status=1)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("top-up", "0", *ACME), 2, "0 moves nothing"),
        (("top-up", "5", "--organisation", "nobody"), 1, "no organisation named 'nobody'"),
        (("top-up", "5", *ACME, "--project", "nowhere"), 1, "no project named 'nowhere'"),
        (("top-up", "5", *ACME, "--reference", "ship:1"), 1, "choose another"),
        (("promote", "5", *ACME, "--expires", "2020-01-01"), 1, "which is over"),
        (("promote", "5", *ACME, "--expires", "soon"), 2, "does not match the format"),
        (("expire", "77", *ACME), 1, "no promotion 77"),
        (("mode", "free", *ACME), 2, "'free' is not one of"),
        (("mode", "postpaid", "--strict", *ACME), 2, "--strict goes with prepaid"),
        (("mode", "prepaid", "--owed-max", "1", *ACME), 2, "--owed-max goes with postpaid"),
    ],
)
async def test_bad_input_is_refused_in_words(
    penstock: Command, acme: int, arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert acme
    refused = await penstock("credit", *arguments, status=status)
    assert said in refused.stderr
    assert "Traceback" not in refused.output
