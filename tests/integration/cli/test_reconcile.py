"""`penstock billing reconcile` as an operator uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

from penstock_engines.receipt_log import Line, ReceiptLog, now_ms

Command = Callable[..., Awaitable[Any]]


async def test_books_that_agree_have_status_0(
    penstock: Command, acme: int, use: Command, tmp_path: Path
) -> None:
    made = await use(acme, 5, 6)
    engine = tmp_path / "engines" / made[0].replica
    engine.mkdir(parents=True)
    log = ReceiptLog(engine / "engine.sock")
    for one in made:
        log.add(Line(one.request_id, now_ms(), one.input_tokens, 0, 0, 1, False, one.input_tokens, 0, 0))
    log.close()
    shown = (await penstock("billing", "reconcile", "--everything", "--until", "2099-01-01")).stdout
    assert "2 events, 2 journal records, 2 requests at 1 starts of engines" in shown
    assert "No differences." in shown


async def test_a_difference_is_named_with_its_request_and_has_status_1(
    penstock: Command, acme: int, use: Command, database: asyncpg.Pool
) -> None:
    made = await use(acme, 5, 6)
    async with database.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute("delete from billing.usage_event where request_id = $1", made[0].request_id)
    command = ("billing", "reconcile", "--everything", "--until", "2099-01-01")
    shown = (await penstock(*command, status=1, columns=200)).stdout
    assert made[0].request_id in shown
    assert "ops/runbooks/reconcile.md" in shown
    told = (await penstock(*command, "--json", status=1)).stdout
    assert made[0].request_id in told


async def test_a_window_that_makes_no_sense_is_refused_in_a_sentence(penstock: Command) -> None:
    refused = await penstock(
        "billing", "reconcile", "--since", "2026-02-01", "--until", "2026-01-01", status=2
    )
    assert "--since 2026-02-01 00:00 is not before --until 2026-01-01 00:00 (UTC)" in refused.output
    refused = await penstock("billing", "reconcile", "--since", "2026-01-01", "--everything", status=2)
    assert "give one of them" in refused.output
    assert "write a day as" in (await penstock("billing", "reconcile", "--since", "soon", status=2)).output
