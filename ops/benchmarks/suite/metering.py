"""What metering and billing cost: journal, shipping, admission, dashboards, and an hour without the database.

    append        CPU per record: encoded, framed, checksummed, one write(2)
    ship          CPU per record of shipper and PostgreSQL: event, roll-up, spending, ledger, cursor
    sustained     records a second that arrive in PostgreSQL while more come, from one process
    admission     CPU per request: hold of a prepaid wallet and of a budget, and settlement, all from memory
    dashboard     the largest tenant's 30 days by day and model, asked as `GET /api/v1/usage` does
    outage        a gateway at 200 requests/s while PostgreSQL is stopped

CPU is user and system time. Records come from 200 organisations of very different size, three keys each, 20
models. Without --full the sizes are small, and the column `how` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from benchmarks.figures import Figure, Unmeasurable
from benchmarks.registry import Run
from benchmarks.rig import books, outage, processes
from benchmarks.rig.books import Books

from penstock.access.keyring import Principal
from penstock.admission.budgets import Budgets
from penstock.admission.credit.lending import Lender
from penstock.admission.credit.wallets import Wallets
from penstock.admission.funds import Ask, Funds
from penstock_base import database
from penstock_billing import adoption, budgets, shipping, usage, wallets
from penstock_billing.budgets import Period, Plan, Scope
from penstock_billing.journal import Journal
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.shipper import Shipper
from penstock_billing.usage import Dimension, Question, Step
from penstock_billing.wishes import Wish

ROUNDS = 5
OFFERED_PER_S = 11_000
HISTORY_DAYS = 30


async def measure(run: Run) -> list[Figure]:
    """Take every figure of metering."""
    for name in ("books", "history", "outage"):
        (run.folder / name).mkdir()
    async with books.books(run.folder / "books") as own:
        with run.steps.step("journal"):
            figures = [_append(run.folder, own)]
        with run.steps.step("shipping"):
            figures += await _ship(run.folder, own)
        with run.steps.step("admission"):
            figures.append(await _admission(run.folder, own))
        with run.steps.step(f"{OFFERED_PER_S:,} records/s"):
            figures.append(await _sustained(run.folder, own, 60.0 if run.full else 10.0))
    async with books.books(run.folder / "history") as own:
        figures += await _dashboard(own, run, 10_000_000 if run.full else 300_000)
    return figures + await _outage(run, 600.0 if run.full else 20.0)


def _append(folder: Path, own: Books) -> Figure:
    taken = []
    with contextlib.closing(Journal(folder / "append")) as journal:
        for _ in range(ROUNDS):
            made = list(itertools.islice(books.records(own.versions), 5000))
            before = time.process_time()
            for one in made:
                journal.append(one)
            taken.append((time.process_time() - before) / len(made) * 1e6)
    return _figure("append", taken, "us", 5.0, note="5,000 records a round")


async def _ship(folder: Path, own: Books) -> list[Figure]:
    """Cost by batch: as many as wait after a pause, and as few as come in a tenth of a second."""
    figures = []
    for batch, bar in ((adoption.BATCH_FRAMES, 25.0), (1000, None)):
        ours, theirs = [], []
        with contextlib.closing(Journal(folder / f"ship-{batch}")) as journal:
            async with books.shipping_connection(own) as connection:
                # One more than counts: the first fills caches and plans.
                for _ in range(ROUNDS + 1):
                    for one in itertools.islice(books.records(own.versions), 2 * adoption.BATCH_FRAMES):
                        journal.append(one)
                    client_s, server_s = await _shipped(connection, journal, own, batch)
                    ours.append(client_s / (2 * adoption.BATCH_FRAMES) * 1e6)
                    theirs.append(server_s / (2 * adoption.BATCH_FRAMES) * 1e6)
        both = [one + other for one, other in zip(ours[1:], theirs[1:], strict=True)]
        name = "ship" if bar else f"ship_{batch}"
        note = f"batches of {batch}; {statistics.median(theirs[1:]):.1f} of it PostgreSQL's"
        figures.append(_figure(name, both, "us", bar, note=note))
    return figures


async def _shipped(
    connection: asyncpg.Connection, journal: Journal, own: Books, batch: int
) -> tuple[float, float]:
    """Ship all there is; the seconds of CPU it took here and in PostgreSQL."""
    roots = [own.server.child.pid]
    client_s, server_s = time.process_time(), processes.cpu_s(roots)
    count = batch
    while count == batch:
        shipment = await shipping.ship(
            connection, journal.name, journal.path, until=journal.position, limit=batch
        )
        count = shipment.frames
    return time.process_time() - client_s, processes.cpu_s(roots) - server_s


async def _sustained(folder: Path, own: Books, seconds: float) -> Figure:
    """Append at a steady pace while a shipper ships, as a gateway does, and see how many arrive meanwhile.

    Counted from the second second on, when the first batches are through: from there a shipper that keeps up
    brings as many as are offered, and one that does not brings fewer.
    """
    with contextlib.closing(Journal(folder / "sustained")) as journal:
        shipper = Shipper(own.server.url, journal.folder, journal)
        shipping_task = asyncio.create_task(shipper.run())
        roots = [own.server.child.pid]
        try:
            before = await _arrived(own)
            offered = asyncio.create_task(_offer(own, journal, seconds))
            await asyncio.sleep(2.0)
            counted, since_s = await _arrived(own), time.monotonic()
            cpu_s = -time.process_time() - processes.cpu_s(roots)
            made = await offered
            counted, passed_s = await _arrived(own) - counted, time.monotonic() - since_s
            cpu_s += time.process_time() + processes.cpu_s(roots)

            async def all_there() -> bool:
                return await _arrived(own) - before >= made

            try:
                rest_s = await books.until_true(all_there, 120.0)
            except TimeoutError:
                raise Unmeasurable("the shipper did not catch up within two minutes") from None
        finally:
            shipping_task.cancel()
            await asyncio.gather(shipping_task, return_exceptions=True)
            await shipper.close()
    return Figure(
        name="metering.sustained",
        figure=round(counted / passed_s),
        unit="records/s",
        bar=10_000.0,
        at_least=True,
        note=f"{made / seconds:,.0f}/s offered for {seconds:.0f} s; {cpu_s / passed_s:.2f} cores used, "
        f"machine's load {os.getloadavg()[0]:.0f}; the rest {rest_s:.1f} s later",
    )


async def _offer(own: Books, journal: Journal, seconds: float) -> int:
    """Append what is due, every few milliseconds; returns how many there were."""
    source = books.records(own.versions)
    began_s = time.monotonic()
    made = 0
    while (passed_s := time.monotonic() - began_s) < seconds:
        due = min(int(passed_s * OFFERED_PER_S) - made, 500)
        for one in itertools.islice(source, due):
            journal.append(one)
        made += due
        await asyncio.sleep(0.005)
    return made


async def _arrived(own: Books) -> int:
    count: int = await own.connection.fetchval(
        "select coalesce(sum(records), 0)::bigint from billing.journal_cursor"
    )
    return count


async def _admission(folder: Path, own: Books) -> Figure:
    """Hold and settle for a prepaid wallet with a budget over it; renewing the lease is not counted."""
    principal = Principal(organisation_id=900_001, project_id=1, key_id="key_bench")
    wallet = Wallet(principal.organisation_id)
    await wallets.set_terms(own.connection, wallet, Funding.PREPAID)
    await wallets.top_up(own.connection, Wish(ref="bench", amount_nano_usd=10**15), wallet)
    await budgets.put(
        own.connection, Scope(principal.organisation_id), Period.MONTH, Plan(limit_nano_usd=10**15)
    )
    ask = Ask(principal, own.versions[0], 10, 20, 1, True)
    cost_nano_usd = ask.cost_nano_usd(15)
    pool = await database.pool(own.server.url, "bench", size_max=2, command_timeout_s=10)
    taken = []
    async with pool:
        with contextlib.closing(Journal(folder / "admission")) as journal:
            known, limits = Wallets(), Budgets(journal)
            lender = Lender(pool, journal.boot_id, known)
            await known.refresh(pool)
            await limits.refresh(pool)
            funds = Funds(known, lender, limits)
            tending = asyncio.create_task(lender.run())
            try:
                for _ in range(ROUNDS * 10):
                    (await funds.admit(ask)).settle(cost_nano_usd)
                    await asyncio.sleep(0.02)
                    taken.append(_admit(funds, ask, cost_nano_usd, 200))
            finally:
                tending.cancel()
                await asyncio.gather(tending, return_exceptions=True)
                await lender.drain(5)
    return _figure("admission", taken, "us", 10.0, note="hold and settle; lease and budget in memory")


def _admit(funds: Funds, ask: Ask, cost_nano_usd: int, count: int) -> float:
    before = time.process_time()
    for _ in range(count):
        charge = funds.admit_now(ask)
        if charge is None:
            raise Unmeasurable("the lease was used up while admission was measured")
        charge.settle(cost_nano_usd)
    return (time.process_time() - before) / count * 1e6


async def _dashboard(own: Books, run: Run, events: int) -> list[Figure]:
    """Fill 30 days by the shipper's own SQL, close them, and ask."""
    began_s = time.monotonic()
    with run.steps.step(f"{events:,} events of {HISTORY_DAYS} days"):
        await books.make_history(own, events, HISTORY_DAYS, lambda _: None)
    filled_s = time.monotonic() - began_s
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    question = Question(
        organisation_id=1,
        since=today - timedelta(days=HISTORY_DAYS - 1),
        until=today + timedelta(days=1),
        step=Step.DAY,
        by=frozenset({Dimension.MODEL}),
    )
    taken = []
    with run.steps.step("the largest tenant's dashboard"):
        for _ in range(30):
            asked_s = time.perf_counter()
            lines = await usage.read(own.connection, question)
            taken.append((time.perf_counter() - asked_s) * 1e3)
    found = sum(line.requests + line.failed_requests for line in lines)
    there: int = await own.connection.fetchval(
        "select count(*) from billing.usage_event where organisation_id = 1"
    )
    if found != there:
        raise Unmeasurable(f"the dashboard shows {found:,} requests and there are {there:,} events")
    note = (
        f"{there:,} of {events:,} events, {len(lines)} lines; median of {len(taken)}, "
        f"{max(taken):.0f} at most; filled in {filled_s:.0f} s"
    )
    return [
        Figure(
            name="metering.dashboard",
            figure=round(statistics.median(taken), 2),
            unit="ms",
            bar=50.0,
            note=note if events == 10_000_000 else f"SMALL: {note} (--full: 10M)",
        )
    ]


async def _outage(run: Run, outage_s: float) -> list[Figure]:
    endured = await outage.endure(run.folder / "outage", outage_s, run.steps)
    size = f"{outage_s:.0f} s, {endured.requests:,} requests at {outage.RATE_PER_S:.0f}/s"
    if outage_s < 600:
        size = f"SMALL: {size} (--full: 10 min)"
    failed = f"{size}; {endured.failure[:80]}" if endured.failed else size
    return [
        Figure(name="metering.outage_failed", figure=endured.failed, unit="requests", bar=0.0, note=failed),
        Figure(name="metering.outage_lost", figure=abs(endured.lost), unit="records", bar=0.0, note=size),
        Figure(
            name="metering.outage_drained",
            figure=round(endured.drained_s, 1),
            unit="s",
            bar=60.0,
            note="after PostgreSQL answers again, while requests go on",
        ),
    ]


def _figure(name: str, taken: list[float], unit: str, bar: float | None, *, note: str) -> Figure:
    spread = f"{min(taken):.1f} … {max(taken):.1f}"
    return Figure(
        name=f"metering.{name}",
        figure=round(statistics.median(taken), 2),
        unit=unit,
        bar=bar,
        note=f"{note}; {spread}",
    )
