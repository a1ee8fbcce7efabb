"""What must hold after every fault: the invariants I1 to I8, I10 and I11, over all there is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from rig.client import End, Seen
from rig.processes import Engine
from rig.server import until

from penstock_billing import frames, invariants, record
from penstock_billing.leases import Wallet
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.testing import credit_nano_usd

EXACT = {Outcome.DONE.value, Outcome.CLIENT_GONE.value, Outcome.CREDIT_ENDED.value}
"""Charged as the engine counted."""
FREE = {Outcome.ENGINE_FAILED.value, Outcome.STALLED.value, Outcome.SHUTDOWN.value}
"""Our own failures."""


def journalled(folder: Path) -> list[UsageRecord]:
    """Every record in a folder's journals that can be trusted; of a quarantined file, its beginning."""
    found = []
    for path in [*folder.glob("*.journal"), *folder.glob("*.quarantined")]:
        for frame in frames.frames(path):
            try:
                found.append(record.decode(frame.body))
            except ValueError:
                continue  # set aside when it is shipped
    return found


def ends(folder: Path) -> dict[str, int]:
    """Where the last whole frame of each journal ends, by the journal's name; without any, it is left out."""
    found = {}
    for path in folder.glob("*.journal"):
        end = max((frame.end for frame in frames.frames(path)), default=0)
        if end and (name := frames.read_name(path)):
            found[name] = end
    return found


async def behind(connection: asyncpg.Connection, folder: Path) -> dict[str, tuple[int, int]]:
    """Which journals are not shipped to their end: where the cursor stands, and where it should."""
    cursors = dict(await connection.fetch("select journal, shipped_bytes from billing.journal_cursor"))
    return {
        name: (cursors.get(name, 0), end) for name, end in ends(folder).items() if end > cursors.get(name, 0)
    }


async def oracle(engines: Sequence[Engine]) -> dict[str, Any]:
    """What the engines counted, by request id; of one that died, what was asked of it before."""
    made: dict[str, Any] = {}
    for engine in engines:
        made |= engine.kept
        if engine.running:
            made |= await engine.made()
    return made


async def check(
    connection: asyncpg.Connection,
    folder: Path,
    seen: Sequence[Seen],
    engines: Sequence[Engine],
    given_up: frozenset[str] = frozenset(),
) -> list[asyncpg.Record]:
    """Wait for quiet, then check everything; returns the events.

    `given_up`: requests whose records lie in a quarantined file behind its damage.
    """
    await until(lambda: _quiet(engines), "every engine is done with every request")
    made = await oracle(engines)
    await until(
        lambda: _recorded(connection, expected(seen, made) - given_up),
        "every request that must have a record has one",
    )

    async def drained() -> bool:
        return not await behind(connection, folder)

    await until(drained, "the journals are shipped to their ends (I10)")
    events = await connection.fetch("select * from billing.usage_event")
    refused = await set_aside(connection)
    check_sums([usage for usage in journalled(folder) if usage.event_id not in refused], events)
    await check_books(connection, events)
    await check_credit(connection)
    check_clients([one for one in seen if one.request_id not in given_up], events)
    check_engines(made, events)
    return events


async def set_aside(connection: asyncpg.Connection) -> set[bytes]:
    """The records that shipping refused and kept for a person to look at."""
    found = set()
    for row in await connection.fetch("select body from billing.rejected_frame"):
        try:
            found.add(record.decode(row["body"]).event_id)
        except ValueError:
            continue  # not even a record
    return found


async def _quiet(engines: Sequence[Engine]) -> bool:
    for engine in engines:
        if engine.running:
            try:
                tallies = (await engine.made()).values()
            except httpx.HTTPError:
                return False
            if any(tally["outcome"] == "running" for tally in tallies):
                return False
    return True


def expected(seen: Sequence[Seen], made: dict[str, Any]) -> set[str]:
    """The requests that must be recorded: acknowledged ones, and all that an engine worked on, but for those
    whose gateway was killed under them, or could not write."""
    acknowledged = {one.request_id for one in seen if one.end is End.FINISHED and not one.replayed}
    excused = {one.name for one in seen if one.gateway.harmed and one.end is not End.FINISHED}
    known = {one.request_id: one.name for one in seen if one.request_id}
    worked = {request for request in made if known.get(request) not in excused}
    if any(one.gateway.harmed for one in seen):
        # A client whose connection broke before the head never learnt its request's id.
        worked &= set(known)
    return acknowledged | worked


async def _recorded(connection: asyncpg.Connection, wanted: set[str]) -> bool:
    count = await connection.fetchval(
        "select count(distinct request_id) from billing.usage_event where request_id = any($1)", list(wanted)
    )
    return bool(count == len(wanted))


def check_sums(journal: Sequence[UsageRecord], events: Sequence[asyncpg.Record]) -> None:
    """I2 and I3: what the journals hold and what the database holds are one thing, once each."""
    twice = [what for what, count in Counter(event["request_id"] for event in events).items() if count > 1]
    assert twice == [], "requests with several events"
    ours = {usage.event_id: usage for usage in journal}
    theirs = {event["event_id"].bytes: event for event in events}
    assert ours.keys() == theirs.keys()
    for event_id, usage in ours.items():
        event = theirs[event_id]
        assert (usage.request_id, usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (
            *(event["request_id"], event["input_tokens"], event["cached_tokens"], event["output_tokens"]),
        )
        assert (usage.outcome.value, usage.cost_nano_usd) == (event["outcome"], event["cost_nano_usd"])


async def check_books(connection: asyncpg.Connection, events: Sequence[asyncpg.Record]) -> None:
    """I3, I4 and I6: events, roll-ups, ledger and leases agree, and every transaction sums to zero."""
    assert await invariants.check(connection) == []
    cost = sum(event["cost_nano_usd"] for event in events)
    assert (
        await connection.fetchval("select coalesce(sum(cost_nano_usd), 0) from billing.usage_minute") == cost
    )
    revenue = await connection.fetchval(
        "select coalesce(-sum(amount_nano_usd), 0) from billing.entry"
        " join billing.account on account.id = account_id where kind = 'revenue'"
    )
    minutes = await connection.fetchval("select coalesce(sum(cost_nano_usd), 0) from billing.minute_charge")
    assert revenue == cost + minutes


async def check_credit(connection: asyncpg.Connection) -> None:
    """I5: a prepaid wallet has what was paid in less what its requests cost; a strict one at least 0."""
    wallets = await connection.fetch(
        "select organisation_id, project_id, strict from billing.wallet where funding = 'prepaid'"
    )
    for organisation_id, project_id, strict in wallets:
        credit = await credit_nano_usd(connection, Wallet(organisation_id, project_id))
        paid_in, spent = await connection.fetchrow(
            "select (select coalesce(sum(posted_nano_usd), 0) from billing.account"
            "  where organisation_id = $1 and project_id = $2 and kind in ('cash', 'promotion_cost')),"
            " (select coalesce(sum(cost_nano_usd), 0) from billing.usage_event"
            "  where organisation_id = $1 and wallet_project_id = $2 and funding = 'prepaid')",
            *(organisation_id, project_id),
        )
        assert credit == paid_in - spent
        assert credit >= 0 or not strict, f"{-credit} nano-dollars more were spent than were there (I5)"


def check_clients(seen: Sequence[Seen], events: Sequence[asyncpg.Record]) -> None:
    """I1, I7, I11: each client's request ended in one way, and what it was told is what was recorded."""
    by_id = {event["request_id"]: event for event in events}
    by_name = Counter(event["client_request_id"] for event in events)
    for one in seen:
        assert one.end is not None, f"{one.name} never ended (I11)"
        assert one.status != 500, f"{one.name}: nobody foresaw what happened"
        assert by_name[one.name] <= 1, f"{one.name} is recorded {by_name[one.name]} times (I2)"
        event = by_id.get(one.request_id)
        if one.replayed:
            assert event is None, f"{one.request_id} was replayed and is recorded"
            first = by_id[one.headers["x-original-request-id"]]
            assert round(float(one.headers["x-original-cost-usd"]) * 1e9) == first["cost_nano_usd"]
            continue
        if one.end is End.FINISHED:
            assert event is not None, f"{one.request_id} was acknowledged and is not recorded (I1)"
            assert event["outcome"] == "done", f"{one.request_id} was whole for its client"
        if event is None:
            continue
        assert event["client_request_id"] == one.name
        if one.end is End.FINISHED and one.usage is not None:
            told = (one.usage["prompt_tokens"], one.usage["completion_tokens"])
            assert told == (event["input_tokens"], event["output_tokens"]), f"{one.request_id} (I7)"
        if one.cost_usd is not None:
            assert round(float(one.cost_usd) * 1e9) == event["cost_nano_usd"]
        if one.end in {End.FAILED, End.REFUSED} and event["outcome"] != Outcome.CREDIT_ENDED.value:
            assert event["cost_nano_usd"] == 0, f"{one.request_id} failed and is billed"
        if event["outcome"] in EXACT and one.tokens:
            assert event["output_tokens"] >= one.tokens, f"{one.request_id} got more than is billed"


def check_engines(made: dict[str, Any], events: Sequence[asyncpg.Record]) -> None:
    """I8: what is billed is what the engine counted, and nothing it did not make is billed."""
    for event in events:
        request_id, outcome = event["request_id"], event["outcome"]
        counted = made.get(request_id)
        if outcome in FREE:
            assert event["cost_nano_usd"] == 0, f"{request_id} ended as {outcome} and is billed"
        if counted is None:
            continue
        told = (event["input_tokens"], event["cached_tokens"], event["output_tokens"])
        truth = (counted["prompt_tokens"], counted["cached_tokens"], counted["completion_tokens"])
        if outcome in EXACT:
            assert told == truth, f"{request_id}: recorded and counted differ (I8)"
        else:
            assert all(a <= b for a, b in zip(told, truth, strict=True)), f"{request_id}: more than was made"


def outcomes(events: Sequence[asyncpg.Record]) -> Counter[str]:
    """How many events ended how."""
    return Counter(event["outcome"] for event in events)


async def settled(seconds: float) -> None:
    """Let something that must NOT happen have its time; never wait so for what must."""
    await asyncio.sleep(seconds)
