"""Shippers are killed, cut off and doubled, and given events of other days (rows 8, 9, 27, 28)."""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rig.client import MODEL
from rig.proxy import Cut
from rig.room import OFFER, Room
from rig.server import until

from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord
from penstock_billing.testing import usage_record

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    "table", ["journal_cursor", "usage_event", "usage_minute", "ledger_transaction", "account", "entry"]
)
async def test_a_shipper_killed_in_its_transaction_repeats_nothing_and_skips_nothing(
    room: Room, table: str
) -> None:
    """Row 8: SIGKILL while its transaction waits, at each table that it writes to."""
    await room.start_engine()
    gateway = await room.start_gateway()
    async with room.load(clients=4) as load:
        await load.more(10)
        async with room.connect() as holder, holder.transaction():
            await holder.execute(f"lock table billing.{table} in access exclusive mode")

            async def inside() -> bool:
                return await room.sessions("wait_event_type = 'Lock'") > 0

            await until(inside, f"a shipper is inside its transaction, at {table}")
            await gateway.kill()
        await gateway.start()
        await load.more(10)
    assert len(await room.check()) >= 10


@pytest.mark.parametrize("cut", list(Cut))
async def test_a_commit_of_unknown_outcome_is_neither_lost_nor_done_twice(room: Room, cut: Cut) -> None:
    """Row 9: the connection breaks after COMMIT was sent, before it is done or before its answer came."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        for number in range(1, 5):
            room.to_postgres.cut_at(b"COMMIT", cut)

            async def has_tripped(wanted: int = number) -> bool:
                return room.to_postgres.tripped >= wanted

            await until(has_tripped, f"cut {number} happened")
            await load.more(5)
    assert len(await room.check()) >= 15


def priced(**changes: object) -> UsageRecord:
    """A record that costs what its tokens cost."""
    tokens = {"input_tokens": 10, "cached_tokens": 4, "output_tokens": 5, "reasoning_tokens": 0}
    cost_pico_usd = 6 * OFFER.input_pico_usd + 4 * OFFER.cached_input_pico_usd + 5 * OFFER.output_pico_usd
    return usage_record(model=MODEL, cost_nano_usd=round(cost_pico_usd / 1000), **tokens, **changes)


def leave_a_journal(folder: Path, records: list[UsageRecord]) -> Path:
    """What a gateway leaves that was killed with all this unshipped."""
    journal = Journal(folder)
    for each in records:
        journal.append(each)
    journal.close()
    return journal.path


async def test_two_shippers_on_one_journal_count_everything_once(room: Room) -> None:
    """Row 27: one journal lies in two state folders, where no lock of the file system tells them apart."""
    await room.start_engine()
    journal = leave_a_journal(room.journal, [priced() for _ in range(6000)])
    second = room.folder / "second"
    (second / "journal").mkdir(parents=True)
    shutil.copy(journal, second / "journal")
    await asyncio.gather(
        room.start_gateway(),
        room.start_gateway(),
        room.start_gateway(home=second),
        room.start_gateway(home=second),
    )
    for gateway in room.gateways[:2]:
        await room.ask(gateway)
    assert len(await room.check()) == 6002
    for gateway in room.gateways:
        assert "were in Postgres already" not in gateway.last_words(100_000)


async def test_a_late_event_counts_in_its_own_minute_and_one_from_the_future_is_set_aside(
    room: Room,
) -> None:
    """Row 28: three days late; two days ahead; and both among others, under load."""
    now_ms = time.time_ns() // 1_000_000
    late = [priced(ended_ms=now_ms - 3 * DAY_MS) for _ in range(3)]
    future = [priced(ended_ms=now_ms + 2 * DAY_MS) for _ in range(2)]
    present = [priced() for _ in range(20)]
    await room.start_engine()
    await room.start_gateway()
    async with room.load() as load:
        leave_a_journal(room.journal, [*present[:10], *late, *future, *present[10:]])
        await load.more(20)
        await until(lambda: room.fetchval("select count(*) = 2 from billing.rejected_frame"), "two set aside")
    events = {event["event_id"].bytes: event for event in await room.check()}
    assert {usage.event_id for usage in [*late, *present]} <= events.keys()
    assert not {usage.event_id for usage in future} & events.keys()
    minute = datetime.fromtimestamp((now_ms - 3 * DAY_MS) // 60_000 * 60, UTC)
    query = "select coalesce(sum(requests), 0) from billing.usage_minute where minute = $1"
    assert await room.fetchval(query, minute) == 3
    refused = await room.fetchval("select problem from billing.rejected_frame limit 1")
    assert "ahead of the database's clock" in refused
