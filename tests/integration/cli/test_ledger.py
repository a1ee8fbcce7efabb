"""`penstock ledger` as an operator uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from penstock_billing import invariants, leases, wallets
from penstock_billing.leases import Need, Wallet
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

Command = Callable[..., Awaitable[Any]]


async def test_balances_are_exact_and_sum_to_zero(penstock: Command, acme: int, use: Command) -> None:
    await use(acme, 123_456_789, 1)
    for columns in (80, 120):
        shown = (await penstock("ledger", "balances", columns=columns)).stdout
        assert "0.123456790" in shown
        assert "-0.123456790" in shown
        assert max(len(line) for line in shown.splitlines()) <= columns
        assert [line for line in shown.splitlines() if "Sum" in line and " 0.000000000 " in line]


async def test_a_ledger_without_money_says_what_to_do(penstock: Command, acme: int) -> None:
    assert acme
    assert "No money has moved yet" in (await penstock("ledger", "balances")).stdout
    assert "No transaction is like that" in (await penstock("ledger", "transactions")).stdout


async def test_transactions_page_from_the_latest_on(asked: Command, acme: int, use: Command) -> None:
    for cost in (5, 6, 7):
        await use(acme, cost)
    page = await asked("ledger", "transactions", "--limit", "2")
    assert [one["entries"][0]["amount_nano_usd"] for one in page] == [7, 6]
    rest = await asked("ledger", "transactions", "--before", str(page[-1]["id"]))
    assert [one["entries"][0]["amount_nano_usd"] for one in rest] == [5]


async def test_transactions_are_of_one_account_kind_and_time_where_asked(
    asked: Command, acme: int, use: Command, database: asyncpg.Pool
) -> None:
    await use(acme, 5)
    await use(acme, 6, funding=Funding.PREPAID)
    found = await asked("ledger", "transactions", "--organisation", "acme", "--account", "prepaid")
    assert [sorted(e["account"] for e in one["entries"]) for one in found] == [["prepaid", "revenue"]]
    async with database.acquire() as connection:
        need = Need(at_once_nano_usd=5)
        wish = Wish(ref="t", amount_nano_usd=5)
        await wallets.top_up(connection, wish, Wallet(acme))  # type: ignore[arg-type]
        await leases.grant(connection, "b" * 32, "host", Wallet(acme), need)  # type: ignore[arg-type]
    kinds = [one["kind"] for one in await asked("ledger", "transactions", "--account", "prepaid")]
    assert kinds == ["top_up", "usage"]
    assert len(await asked("ledger", "transactions", "--kind", "top_up", "--kind", "payment")) == 1
    assert await asked("ledger", "transactions", "--until", "2020-01-01") == []
    assert len(await asked("ledger", "transactions", "--since", "2020-01-01")) == 3


async def test_a_batch_of_usage_leads_to_its_requests(
    penstock: Command, asked: Command, acme: int, use: Command
) -> None:
    made = await use(acme, *range(1, 26))
    (booked,) = await asked("ledger", "transactions")
    number = str(booked["id"])
    shown = await asked("ledger", "show", number, "--limit", "100")
    assert {one["request_id"] for one in shown["requests"]} == {one.request_id for one in made}
    assert sum(one["cost_nano_usd"] for one in shown["requests"]) == sum(range(1, 26))
    pages = [await asked("ledger", "show", number, "--limit", "10", "--page", p) for p in ("1", "2", "3")]
    assert [len(page["requests"]) for page in pages] == [10, 10, 5]
    assert len({one["request_id"] for page in pages for one in page["requests"]}) == 25
    for columns in (80, 120):
        text = (await penstock("ledger", "show", number, columns=columns)).stdout
        assert "25 requests cost 0.000000325 USD, as booked" in text
        assert max(len(line) for line in text.splitlines()) <= columns


async def test_another_organisations_part_of_a_batch_is_not_shown(
    penstock: Command, asked: Command, acme: int, use: Command, database: asyncpg.Pool
) -> None:
    await use(acme, 5)
    (booked,) = await asked("ledger", "transactions")
    await database.execute("insert into access.organisation (name) values ('other')")
    refused = await penstock("ledger", "show", str(booked["id"]), "--organisation", "other", status=1)
    assert f"there is no ledger transaction {booked['id']} here" in refused.stderr


async def test_a_refund_returns_the_whole_cost_once(
    penstock: Command, asked: Command, acme: int, use: Command, database: asyncpg.Pool
) -> None:
    (request,) = await use(acme, 1_000)
    of_acme = ("--organisation", "acme", "--note", "it was slow")
    first = await asked("ledger", "refund", request.request_id, *of_acme)
    assert first["reference"].startswith("refund:")
    again = await asked("ledger", "refund", request.request_id, *of_acme, "--reference", first["reference"])
    assert again == first | {"repeated": True}
    refused = await penstock("ledger", "refund", request.request_id, *of_acme, status=1)
    assert "0.000000000 USD of it is left to give back" in refused.stderr
    held = {row["account"]: row["amount_nano_usd"] for row in await asked("ledger", "balances")}
    assert held == {"receivable": 0, "revenue": -1_000, "concession": 1_000}
    async with database.acquire() as connection:
        assert await invariants.check(connection) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("refund", "--note", "n"), "name a request, or an amount"),
        (("refund", "req_nowhere", "--organisation", "acme", "--note", "n"), "no request 'req_nowhere'"),
        (("refund", "--amount", "1e-10", "--note", "n"), "finer than a nano-dollar"),
        (("refund", "--amount", "ten", "--note", "n"), "is not an amount such as 12.50"),
        (("refund", "--amount", "0", "--note", "n"), "0 moves nothing"),
        (("refund", "req_x", "--organisation", "nobody", "--note", "n"), "no organisation named 'nobody'"),
        (("show", "99"), "there is no ledger transaction 99"),
        (("correct", "99", "--amount", "1", "--note", "n"), "there is no ledger transaction 99"),
        (("correct", "1"), "Missing option '--amount'"),
    ],
)
async def test_bad_input_is_refused_in_words(
    penstock: Command, acme: int, arguments: tuple[str, ...], said: str
) -> None:
    assert acme
    usage = "Missing" in said or "amount" in said or "nano" in said or "0 moves" in said
    refused = await penstock("ledger", *arguments, status=2 if usage else 1)
    assert said in refused.stderr
    assert "Traceback" not in refused.output
