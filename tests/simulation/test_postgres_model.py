"""The model of Postgres against Postgres: the same calls of the same code leave the same rows in both."""

from __future__ import annotations

import datetime
import random
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from world import connections, statements_leases, statements_roll_ups
from world.loop import VirtualLoop
from world.postgres import Server
from world.statements import EPOCH, FIELDS

from penstock_billing import boots, frames, leases, ledger, record, roll_ups, shipping
from penstock_billing.errors import BillingError
from penstock_billing.leases import Need, Wallet
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind
from penstock_billing.record import Funding, Outcome, UsageRecord
from penstock_billing.testing import EXAMPLE

assert statements_leases
assert statements_roll_ups
assert connections

BEGUN = datetime.datetime(2026, 3, 2, 22, 30, tzinfo=datetime.UTC)
BOOTS = ["a" * 32, "b" * 32, "c" * 32]
WALLETS = [Wallet(1), Wallet(2), Wallet(2, 7)]
Step = tuple[str, tuple[Any, ...]]


def usage(rng: random.Random) -> UsageRecord:
    funding = rng.choice((Funding.PREPAID, Funding.POSTPAID))
    wallet = rng.choice(WALLETS)
    outcome = rng.choice(list(Outcome))
    ended = BEGUN + datetime.timedelta(seconds=rng.randint(0, 3 * 3600))
    return msgspec.structs.replace(
        EXAMPLE,
        event_id=rng.randbytes(16),
        ended_ms=int(ended.timestamp() * 1000),
        organisation_id=wallet.organisation_id,
        project_id=rng.randint(1, 2),
        key_id=rng.choice(("k1", "k2")),
        request_id=f"req_{rng.randint(0, 10**9)}",
        price_version=rng.randint(1, 2),
        outcome=outcome,
        output_tokens=rng.randint(0, 50),
        endpoint=rng.choice(("", "mine")),
        cost_nano_usd=rng.choice((0, rng.randint(1, 90_000))) if outcome.billable else 0,
        funding=funding,
        wallet_project_id=wallet.project_id,
        wake_us=rng.randint(0, 9_000_000),
        policy=rng.choice(("", "least_load")),
    )


def write_journals(rng: random.Random, folder: Path) -> list[tuple[str, Path]]:
    """Journals of three boots; some records are in two of them, some frames hold nonsense."""
    written = []
    told: list[UsageRecord] = []
    for boot in BOOTS:
        body = frames.header(bytes.fromhex(boot), 0)
        for _ in range(30):
            again = told and rng.random() < 0.2
            one = rng.choice(told) if again else usage(rng)
            told.append(one)
            body += frames.frame(b"nonsense" if rng.random() < 0.05 else record.encode(one))
        path = folder / f"{boot}.journal"
        path.write_bytes(body)
        written.append((frames.journal_name(bytes.fromhex(boot), 0), path))
    return written


def steps(rng: random.Random, journals: list[tuple[str, Path]]) -> list[Step]:
    """A random story."""
    kinds = {
        "top_up": 4,
        "grant": 8,
        "give_back": 4,
        "release": 4,
        "recall": 2,
        "recalled": 2,
        "recently_used": 1,
        "release_orphaned": 2,
        "settle": 1,
        "show_up": 1,
        "ship": 12,
        "forget": 1,
        "close_hours": 2,
    }
    chosen = rng.choices(list(kinds), list(kinds.values()), k=70)
    return [(kind, arguments(rng, kind, journals)) for kind in chosen]


def arguments(rng: random.Random, kind: str, journals: list[tuple[str, Path]]) -> tuple[Any, ...]:
    """With what a step is done."""
    boot, wallet = rng.choice(BOOTS), rng.choice(WALLETS)
    amount = rng.choice((1_000, 30_000, 20_000_000))
    need = Need(rng.randint(0, 1000), rng.randint(0, 10_000), amount, rng.randint(0, 50_000))
    given: dict[str, tuple[Any, ...]] = {
        "top_up": (rng.randint(0, 9), wallet, amount, rng.random() < 0.3),
        "grant": (boot, "host", wallet, need),
        "give_back": (boot, wallet, amount),
        "release": (boot, wallet, rng.choice((None, 0, amount))),
        "recall": (boot, wallet),
        "recently_used": (10,),
        "release_orphaned": (),
        "ship": (*rng.choice(journals), rng.choice((1, 4, 100))),
        "forget": (rng.choice(journals)[0],),
        "close_hours": (BEGUN + datetime.timedelta(minutes=rng.randint(0, 300)),),
    }
    return given.get(kind, (boot,))


class Teller:
    """Plays a story over a connection, real or modelled: the code is the same."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def tell(self, story: list[Step]) -> list[Any]:
        """What each step answered, without what only clocks know."""
        await shipping.prepare(self.connection)
        answers = []
        for kind, args in story:
            try:
                answer = await getattr(self, kind)(*args)
            except (BillingError, asyncpg.PostgresError) as error:
                answer = type(error).__name__
            answers.append((kind, answer))
        return answers

    async def top_up(self, number: int, wallet: Wallet, amount: int, promotional: bool) -> Any:
        kind, given, owed = TransactionKind.TOP_UP, AccountKind.CASH, AccountKind.PREPAID
        if promotional:
            kind, given, owed = TransactionKind.PROMOTION, AccountKind.PROMOTION_COST, AccountKind.PROMOTIONAL
        key = (wallet.organisation_id, wallet.project_id)
        entries = {Account(*key, given): amount, Account(*key, owed): -amount}
        booked = await ledger.book(self.connection, Booking(ref=f"t:{number}", kind=kind, entries=entries))
        return booked.repeated

    async def grant(self, *args: Any) -> Any:
        return await leases.grant(self.connection, *args)

    async def give_back(self, *args: Any) -> Any:
        return await leases.give_back(self.connection, *args)

    async def release(self, boot: str, wallet: Wallet, spent: int | None) -> Any:
        return await leases.release(self.connection, boot, wallet, spent_nano_usd=spent)

    async def recall(self, *args: Any) -> Any:
        return await leases.recall(self.connection, *args)

    async def recalled(self, *args: Any) -> Any:
        return sorted(await leases.recalled(self.connection, *args))

    async def recently_used(self, limit: int) -> Any:
        return sorted(await leases.recently_used(self.connection, limit))

    async def release_orphaned(self) -> Any:
        return await leases.release_orphaned(self.connection)

    async def settle(self, boot: str) -> None:
        await self.connection.execute(boots.SQL["settle"], boot, "host")

    async def show_up(self, boot: str) -> Any:
        return await self.connection.fetchval(boots.SQL["show_up"], boot, "host")

    async def ship(self, journal: str, path: Path, limit: int) -> Any:
        shipment = await shipping.ship(self.connection, journal, path, limit=limit)
        return shipment.position, shipment.frames, shipment.conflicts, shipment.rejected

    async def forget(self, journal: str) -> None:
        """A cursor goes back, which nothing but a mistake can do: all is replayed, and met."""
        if isinstance(self.connection, connections.Connection):
            cursors = self.connection._server.tables.get("journal_cursor", {})
            if journal in cursors:
                cursors[journal] = (0, *cursors[journal][1:])
        else:
            await self.connection.execute(
                "update billing.journal_cursor set shipped_bytes = 0 where journal = $1", journal
            )

    async def close_hours(self, now: datetime.datetime) -> Any:
        made = await roll_ups.advance(self.connection, now)
        return made.marks, made.hours, made.days


COUNTS = (
    "requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,"
    " cost_nano_usd"
)
SLOT = "project_id, key_id, model, price_version, outcome, endpoint"


async def real_tables(connection: asyncpg.Connection) -> dict[str, Any]:
    """Everything that is in Postgres, but what only clocks know."""

    async def rows(sql: str) -> list[tuple[Any, ...]]:
        return sorted(tuple(row.values()) for row in await connection.fetch(sql))

    fields = ", ".join(name for name in FIELDS if name not in {"event_id", "ended_ms"})
    return {
        "journal_cursor": await rows("select journal, shipped_bytes, records from billing.journal_cursor"),
        "usage_event": await rows(
            f"select event_id, (extract(epoch from ended_at) * 1000)::bigint, {fields},"
            " (select ref from billing.ledger_transaction where id = ledger_transaction_id)"
            " from billing.usage_event"
        ),
        **{
            table: await rows(f"select organisation_id, {since}, {SLOT}, {COUNTS} from billing.{table}")
            for table, since in (("usage_minute", "minute"), ("usage_hour", "hour"), ("usage_day", "day"))
        },
        "earned_hour": await rows(
            "select hour, coalesce(model, ''), coalesce(organisation_id, 0), requests, tokens, cost_nano_usd"
            " from billing.earned_hour"
        ),
        "spend_month": await rows(
            "select organisation_id, project_id, key_id, month, cost_nano_usd from billing.spend_month"
        ),
        "account": await rows(
            "select organisation_id, project_id, kind, posted_nano_usd from billing.account"
        ),
        "entry": await rows(
            "select ref, organisation_id, project_id, account.kind, amount_nano_usd from billing.entry"
            " join billing.account on account.id = account_id"
            " join billing.ledger_transaction as booked on booked.id = transaction_id"
        ),
        "lease": await rows(
            "select id, boot_id, organisation_id, project_id, granted_nano_usd, promotional_granted_nano_usd,"
            " settled_nano_usd, grants, released_at is not null, recalled_at is not null from billing.lease"
        ),
        "gateway_boot": await rows("select boot_id, settled_at is not null from billing.gateway_boot"),
        "rejected_frame": await rows("select journal, position, body from billing.rejected_frame"),
    }


def model_tables(server: Server) -> dict[str, Any]:
    """The same of the model."""
    tables = server.tables
    refs = {number: row[0] for number, row in tables.get("ledger_transaction", {}).items()}

    def counts(table: str) -> list[tuple[Any, ...]]:
        return sorted((*key, *sums) for key, sums in tables.get(table, {}).items())

    events = sorted(
        (
            uuid.UUID(bytes=bytes(row[0].bytes)),
            row[1],
            *[_text(each) for each in row[2:-1]],
            refs.get(row[-1]),
        )
        for row in tables.get("usage_event", {}).values()
    )
    lease_names = ("granted_nano_usd", "promotional_granted_nano_usd", "settled_nano_usd", "grants")
    return {
        "journal_cursor": sorted((key, *row[:2]) for key, row in tables.get("journal_cursor", {}).items()),
        "usage_event": events,
        **{table: counts(table) for table in ("usage_minute", "usage_hour", "usage_day")},
        "earned_hour": counts("earned_hour"),
        "spend_month": counts("spend_month"),
        "account": sorted((*account, posted) for account, posted in tables.get("account", {}).items()),
        "entry": sorted(
            (refs[number], *account, amount) for (number, account), amount in tables.get("entry", {}).items()
        ),
        "lease": sorted(
            (
                number,
                lease["boot_id"],
                lease["organisation_id"],
                lease["project_id"],
                *[lease[name] for name in lease_names],
                lease["released_at"] is not None,
                lease["recalled_at"] is not None,
            )
            for number, lease in tables.get("lease", {}).items()
        ),
        "gateway_boot": sorted((key, row["settled"]) for key, row in tables.get("gateway_boot", {}).items()),
        "rejected_frame": sorted((*key, row[0]) for key, row in tables.get("rejected_frame", {}).items()),
    }


def _text(value: Any) -> Any:
    return value.value if isinstance(value, Outcome | Funding) else value


@pytest.mark.parametrize("seed", range(10))
async def test_the_model_does_what_postgres_does(database_url: str, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    story = steps(rng, write_journals(rng, tmp_path))

    connection = await asyncpg.connect(database_url)
    try:
        told = await Teller(connection).tell(story)
        kept = await real_tables(connection)
    finally:
        await connection.close()

    loop = VirtualLoop()
    server = Server(loop, random.Random(seed), lambda: EPOCH + (BEGUN - EPOCH))

    async def model() -> list[Any]:
        return await Teller(await server.connect("model", None)).tell(story)

    modelled = loop.run_until(loop.spawn(None, model()), 1e6)
    loop.finish()
    assert modelled == told
    found = model_tables(server)
    for table, rows in kept.items():
        assert found[table] == rows, table
    assert kept["usage_event"]
    assert kept["entry"]
    assert kept["lease"]
