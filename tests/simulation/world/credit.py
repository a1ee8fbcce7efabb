"""The credit side of a run: wallets, top-ups, a controller that closes hours, what must hold of credit."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from world.engine import NOTICES_S, Ask
from world.plan import PREPAID, STRICT, TopUp
from world.statements import FIELDS

from penstock.admission.credit.charge import STEP_TOKENS
from penstock.serving.relay import CHECK_EVERY_BYTES
from penstock_billing import boots, ledger, roll_ups
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind
from penstock_billing.record import Funding
from penstock_billing.shipper import DATABASE_AWAY

if TYPE_CHECKING:
    from world.postgres import Transaction
    from world.simulation import Simulation

SILENT_S = 5.0
"""How long an engine may go on for a client that does not read."""
CREDIT = ("prepaid", "promotional", "lease")


def begin(world: Simulation) -> None:
    """Make the wallets, and have credit added as the plan says."""
    wallets = world.database.tables.setdefault("wallet", {})
    for organisation_id, wallet in PREPAID.items():
        wallets[wallet] = {
            "funding": "prepaid",
            "strict": organisation_id in STRICT,
            "owed_max_nano_usd": None,
            "changed_at": world.begun,
        }
    for number, top_up in enumerate(world.plan.top_ups):
        world.loop.outside(
            top_up.at_s, lambda each=top_up, n=number: world.loop.spawn(None, add(world, n, each))
        )
    world.loop.spawn(None, close_hours(world))
    world.database.after_commit = lambda transaction: watch(world, transaction)


async def add(world: Simulation, number: int, top_up: TopUp) -> None:
    """Book a top-up, again and again until it is in the books: its reference makes that safe."""
    kind, given, owed = TransactionKind.TOP_UP, AccountKind.CASH, AccountKind.PREPAID
    if top_up.promotional:
        kind, given, owed = TransactionKind.PROMOTION, AccountKind.PROMOTION_COST, AccountKind.PROMOTIONAL
    wallet = PREPAID[top_up.organisation_id]
    entries = {Account(*wallet, given): top_up.nano_usd, Account(*wallet, owed): -top_up.nano_usd}
    while not world.ending:
        try:
            connection: Any = await world.database.connect("operator", 5.0)
            await ledger.book(connection, Booking(ref=f"top-up:{number}", kind=kind, entries=entries))
            await connection.close()
        except DATABASE_AWAY:
            await asyncio.sleep(0.5)
        else:
            return


async def close_hours(world: Simulation) -> None:
    """What the controller does: sum up hours and days that have ended, whoever else does at the same time."""
    while not world.ending:
        with contextlib.suppress(*DATABASE_AWAY):
            connection: Any = await world.database.connect("controller", 5.0)
            now = world.database.now() + roll_ups.SETTLE * (world.plan.seed % 2)
            await roll_ups.advance(connection, now)
            await connection.close()
        await asyncio.sleep(3.0)


def watch(world: Simulation, transaction: Transaction) -> None:
    """After each commit: how little the wallets have; a strict one never less than nothing."""
    if world.restored:
        return
    for table, account in transaction.writes:
        if table == "account" and account[2] in CREDIT:
            have = available(world, account[:2])
            world.lowest[account[:2]] = min(have, world.lowest.get(account[:2], 0))
            if have < 0 and account[0] in STRICT:
                world.problem(f"strict wallet {account[:2]} has {have} nano-dollars")


def overdraft_max(world: Simulation, organisation_id: int) -> int:
    """By how much an elastic wallet may go below zero: billing/README.md, for all of its streams."""
    total = 0
    price = max(version.output_pico_usd for version in world.price_versions)
    for client in world.clients:
        ask = client.asked.ask
        if client.asked.organisation_id == organisation_id and ask.stream:
            per_s = ask.step_tokens / ask.step_s
            silent_s = SILENT_S if client.asked.slow_s else NOTICES_S[1] + 2 * ask.step_s
            unseen = looked_at_every(ask) + per_s * silent_s
            total += min(ask.n * (STEP_TOKENS + unseen), ask.n * ask.output_tokens) * price / 1000
    return int(total)


def looked_at_every(ask: Ask) -> int:
    """The most tokens of a choice that pass between two looks at a stream, of 4 KiB."""
    event_bytes = 150 + ask.step_tokens
    return (CHECK_EVERY_BYTES // event_bytes + 2) * ask.step_tokens


def available(world: Simulation, wallet: tuple[int, int]) -> int:
    """What a wallet has, lent or not."""
    accounts = world.database.tables.get("account", {})
    return -sum(accounts.get((*wallet, kind), 0) for kind in CREDIT)


def all_released(world: Simulation) -> bool:
    """Whether no process that is gone holds credit, but those whose damaged files wait for a person."""
    alive = world.living_boots()
    waiting = {
        path.rpartition("/")[2][:32]
        for host in world.hosts
        for path in host.disk.entries
        if path.endswith(boots.QUARANTINE_SUFFIX)
    }
    return not [
        lease
        for lease in world.database.tables.get("lease", {}).values()
        if lease["released_at"] is None and lease["boot_id"] not in alive | waiting
    ]


def check(world: Simulation) -> None:
    """Leases add up, and what wallets have is what they got less what their requests cost."""
    tables = world.database.tables
    left: Counter[Any] = Counter()
    for lease in tables.get("lease", {}).values():
        if lease["released_at"] is None:
            left[lease["organisation_id"], lease["project_id"]] += (
                lease["granted_nano_usd"] - lease["settled_nano_usd"]
            )
    spent: Counter[Any] = Counter()
    for row in tables.get("usage_event", {}).values():
        if str(row[FIELDS["funding"]]) == Funding.PREPAID:
            wallet = (row[FIELDS["organisation_id"]], row[FIELDS["wallet_project_id"]])
            spent[wallet] += row[FIELDS["cost_nano_usd"]]
    accounts = tables.get("account", {})
    for organisation_id, wallet in PREPAID.items():
        most = 0 if organisation_id in STRICT else overdraft_max(world, organisation_id)
        if world.lowest.get(wallet, 0) < -most:
            world.problem(f"wallet {wallet} went down to {world.lowest[wallet]}, the bound is {-most}")
        lent = -accounts.get((*wallet, "lease"), 0)
        if lent != left[wallet]:
            world.problem(f"wallet {wallet}: {lent} are lent out, its open leases have {left[wallet]} left")
        got = sum(accounts.get((*wallet, kind), 0) for kind in ("cash", "promotion_cost"))
        if available(world, wallet) != got - spent[wallet]:
            world.problem(
                f"wallet {wallet} has {available(world, wallet)}, it got {got} and spent {spent[wallet]}"
            )
