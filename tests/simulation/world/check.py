"""What must hold when everything has recovered: DESIGN.md's invariants, over a whole run."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from world import credit
from world.client import Client, End
from world.disk import Place
from world.engine import Ask
from world.statements import EPOCH, FIELDS, MEASURES, add, earned, earned_at, slot

from penstock.serving.notes import NOTE_TOKENS
from penstock_billing import frames, rating, record
from penstock_billing.record import Outcome, UsageRecord

if TYPE_CHECKING:
    from world.simulation import Host, Simulation

EXACT = {Outcome.DONE, Outcome.CLIENT_GONE, Outcome.CREDIT_ENDED}
"""Charged as the engine counted."""


def journal_files(host: Host) -> list[Place]:
    return [Place(path) for path in host.disk.entries if path.endswith((".journal", ".quarantined"))]


def journalled(host: Host) -> set[str]:
    """The requests whose records a host's journals hold."""
    found = set()
    for path in journal_files(host):
        for frame in frames.frames(path):  # type: ignore[arg-type]
            try:
                found.add(record.decode(frame.body).request_id)
            except ValueError:
                continue
    return found


def all_shipped(world: Simulation) -> bool:
    """Whether the database's cursors stand at the last whole frame of every journal."""
    cursors = world.database.tables.get("journal_cursor", {})
    for host in world.hosts:
        for path in journal_files(host):
            if path.name.endswith(".quarantined"):
                continue
            end = max((frame.end for frame in frames.frames(path)), default=0)  # type: ignore[arg-type]
            if end and (name := frames.read_name(path)) and cursors.get(name, (0,))[0] < end:  # type: ignore[arg-type]
                return False
    return True


def events(world: Simulation) -> dict[str, list[UsageRecord]]:
    """The database's events by request."""
    found: dict[str, list[UsageRecord]] = defaultdict(list)
    for row in world.database.tables.get("usage_event", {}).values():
        usage = UsageRecord(bytes(row[0].bytes), *row[1:-1])
        found[usage.request_id].append(usage)
    return found


def check(world: Simulation) -> None:
    """Find everything that is not as it must be."""
    found = events(world)
    for request_id, several in found.items():
        if len(several) > 1:
            world.problem(f"{request_id} is in {len(several)} events")
        if request_id not in world.by_request:
            world.problem(f"{request_id} is billed and was never asked")
    first = {request_id: several[0] for request_id, several in found.items()}
    for client in world.clients:
        check_client(world, client, first.get(client.request_id))
    for usage in first.values():
        check_event(world, usage)
    for request_id in world.records.keys() - found.keys() - world.may_be_lost:
        world.problem(f"{request_id} was in the journal and has no event")
    check_books(world)
    credit.check(world)
    if world.conflicts:
        world.problem(f"{world.conflicts} records came twice to the database")
    if rejected := world.database.tables.get("rejected_frame"):
        world.problem(f"frames were rejected: {list(rejected.values())}")


def check_client(world: Simulation, client: Client, usage: UsageRecord | None) -> None:
    """What a client saw against what it is billed."""
    name = f"{client.request_id} (request {client.asked.number}, {client.end.name})"
    if client.end is End.ACKNOWLEDGED:
        if usage is None:
            if client.request_id not in world.may_be_lost:
                world.problem(f"{name} was acknowledged and is in no event")
            return
        if usage.outcome is Outcome.RECOVERED and client.request_id in world.may_be_lost:
            return  # a power cut took its record, and not what had been noted before
        if usage.outcome is not Outcome.DONE:
            world.problem(f"{name} was acknowledged and is recorded as {usage.outcome}")
        if usage.output_tokens != client.tokens and client.asked.ask.stream:
            world.problem(f"{name} got {client.tokens} tokens and pays {usage.output_tokens}")
        told = client.usage
        if told is not None and (told["prompt_tokens"], told["completion_tokens"]) != (
            usage.input_tokens,
            usage.output_tokens,
        ):
            world.problem(f"{name} was told {told} and pays {usage.input_tokens}+{usage.output_tokens}")
    elif client.end is End.FAILED:
        if usage is not None and usage.cost_nano_usd and usage.outcome is not Outcome.CREDIT_ENDED:
            world.problem(f"{name} failed ({client.why}) and costs {usage.cost_nano_usd}")
    elif usage is None and client.request_id in world.made and not excused(world, client):
        world.problem(f"{name} reached an engine and ended in no record")
    how = world.killed_with.get(client.request_id)
    # A full or failing disk costs notes, and never a request.
    kept = how is not None and how != "power cut" and not world.disk_trouble
    if kept and client.request_id not in world.may_be_lost:
        check_killed(world, client, usage)


def check_killed(world: Simulation, client: Client, usage: UsageRecord | None) -> None:
    """What a killed gateway's streams are charged: what was noted, and nearly all that was delivered."""
    name = f"{client.request_id} (request {client.asked.number}), killed with its gateway,"
    charged = 0 if usage is None else usage.output_tokens
    noted = world.noted.get(client.request_id, -1)
    if charged < noted:
        world.problem(f"{name} had {noted} tokens noted and is charged {charged}")
    ask = client.asked.ask
    if ask.stream and usage is None and client.tokens > unnoted_max(ask):
        world.problem(f"{name} got {client.tokens} tokens and is charged nothing")
    if (
        usage is not None
        and usage.outcome is Outcome.RECOVERED
        and client.tokens > charged + unnoted_max(ask)
    ):
        world.problem(f"{name} got {client.tokens} tokens and is charged {charged}")


def unnoted_max(ask: Ask) -> int:
    """The most tokens of a stream that are not noted: 256, and those of the events between two looks."""
    return NOTE_TOKENS + ask.n * credit.looked_at_every(ask)


def excused(world: Simulation, client: Client) -> bool:
    """Whether a request that reached an engine may be without an event."""
    if client.request_id in world.killed_with or client.request_id in world.may_be_lost:
        return True
    gateway = world.by_request[client.request_id][1]
    return not hasattr(gateway, "journal") or gateway.journal._failure is not None or world.disk_trouble


def check_event(world: Simulation, usage: UsageRecord) -> None:
    """What is billed against what the engines counted, and against its price."""
    name = f"{usage.request_id} ({usage.outcome})"
    price = world.prices.version(usage.price_version)
    if price is None or usage.cost_nano_usd != rating.rerate(usage, price):
        world.problem(f"{name} costs {usage.cost_nano_usd}, which is not its tokens times its price")
    known = world.records.get(usage.request_id)
    if known is not None and known[1] != usage and usage.request_id not in world.may_be_lost:
        world.problem(f"{name} is not what the journal said")
    cut_off = world.killed_with.keys() | world.may_be_lost
    if usage.outcome is Outcome.RECOVERED and usage.request_id not in cut_off:
        world.problem(f"{name} was not under way in a process that was killed")
    if not usage.outcome.billable:
        if usage.cost_nano_usd:
            world.problem(f"{name} is our failure and costs {usage.cost_nano_usd}")
        return
    client, _ = world.by_request[usage.request_id]
    if price is not None and world.admitted_price(client) != price.id:
        world.problem(
            f"{name} is priced with version {price.id}, admitted with {world.admitted_price(client)}"
        )
    check_tokens(world, client, usage, name)


def check_tokens(world: Simulation, client: Client, usage: UsageRecord, name: str) -> None:
    """What is charged against what the engines counted and the client got."""
    if client.asked.ask.trouble == "no_usage" and usage.output_tokens == 0:
        return  # an engine that counts nothing, and then cannot be asked: there is nothing to go by
    jobs = world.made.get(usage.request_id, [])
    told = (usage.input_tokens, usage.cached_tokens, usage.output_tokens)
    truths = [(job.ask.prompt_tokens, job.ask.cached_tokens, job.tokens) for job in jobs]
    exact = usage.outcome is Outcome.DONE or (usage.outcome in EXACT and not world.engine_trouble)
    if told == (0, 0, 0) and usage.outcome is Outcome.CLIENT_GONE:
        if client.tokens:
            world.problem(f"{name} got {client.tokens} tokens for nothing")
    elif exact and told not in truths:
        world.problem(f"{name} is billed {told}, the engines counted {truths}")
    elif not any(a[0] == told[0] and told[2] <= a[2] for a in truths):
        world.problem(f"{name} is billed {told}, more than the engines made: {truths}")
    if usage.outcome in EXACT and client.tokens > usage.output_tokens:
        world.problem(f"{name} got {client.tokens} tokens and pays {usage.output_tokens}")


def check_books(world: Simulation) -> None:
    """Roll-ups are the sums of the events, the ledger balances and says what the events say."""
    tables = world.database.tables
    rows = list(tables.get("usage_event", {}).values())
    minutes: Counter[Any] = Counter()
    for row in rows:
        ended_at = EPOCH + timedelta(milliseconds=row[FIELDS["ended_ms"]])
        key = slot(row, ended_at.replace(second=0, microsecond=0))
        for place, amount in enumerate((1, *[row[each] for each in MEASURES])):
            minutes[key, place] += amount
    kept = {
        (key, place): amount
        for key, sums in tables.get("usage_minute", {}).items()
        for place, amount in enumerate(sums)
    }
    if +minutes != +Counter(kept):
        world.problem(f"minutes are not the sums of their events: {(+minutes) - Counter(kept)}")
    check_longer(world, "usage_hour", "hour")
    check_longer(world, "usage_day", "day")
    check_earned(world)
    spent: Counter[Any] = Counter()
    revenue: Counter[int] = Counter()
    for row in rows:
        revenue[row[FIELDS["organisation_id"]]] += row[FIELDS["cost_nano_usd"]]
        spent[row[FIELDS["key_id"]]] += row[FIELDS["cost_nano_usd"]]
    by_key: Counter[Any] = Counter()
    for (_, _, key_id, _), (cost,) in tables.get("spend_month", {}).items():
        by_key[key_id] += cost
    if +spent != +by_key:
        world.problem(f"spending by key is {by_key}, the events say {spent}")
    check_ledger(world, revenue)


def check_longer(world: Simulation, table: str, level: str) -> None:
    """Hours and days before their mark are the sums of their minutes, and nothing is behind it."""
    tables = world.database.tables
    mark = tables.get("roll_up_mark", {}).get(level, EPOCH)
    sums: Counter[Any] = Counter()
    for key, counts in tables.get("usage_minute", {}).items():
        if key[1] < mark:
            since = key[1].replace(minute=0) if level == "hour" else key[1].replace(hour=0, minute=0)
            for place, amount in enumerate(counts):
                sums[(key[0], since, *key[2:]), place] += amount
    kept = Counter(
        {
            (key, place): amount
            for key, counts in tables.get(table, {}).items()
            for place, amount in enumerate(counts)
        }
    )
    if +sums != +kept:
        world.problem(f"{table} is not the sum of its minutes: {(+sums) - kept} and {(+kept) - sums}")


def check_earned(world: Simulation) -> None:
    """What all tenants paid in closed hours is the sum of those."""
    tables = world.database.tables
    sums: dict[Any, tuple[int, ...]] = {}
    for key, counts in tables.get("usage_hour", {}).items():
        for place in earned_at(key):
            sums[place] = add(sums[place], earned(counts)) if place in sums else earned(counts)
    if sums != tables.get("earned_hour", {}):
        world.problem(f"earned is {tables.get('earned_hour')}, its hours say {sums}")


def check_ledger(world: Simulation, revenue: Counter[int]) -> None:
    """Every transaction sums to zero, every balance to its entries, revenue to the events."""
    tables = world.database.tables
    by_transaction: Counter[int] = Counter()
    balances: Counter[Any] = Counter()
    for (transaction_id, account), amount in tables.get("entry", {}).items():
        by_transaction[transaction_id] += amount
        balances[account] += amount
    for transaction_id in tables.get("ledger_transaction", {}):
        if by_transaction[transaction_id] != 0:
            world.problem(f"ledger transaction {transaction_id} sums to {by_transaction[transaction_id]}")
    for account, posted in tables.get("account", {}).items():
        if balances[account] != posted:
            world.problem(f"account {account} has {posted}, its entries sum to {balances[account]}")
    earned = Counter({account[0]: -posted for account, posted in balances.items() if account[2] == "revenue"})
    if +earned != +revenue:
        world.problem(f"revenue is {earned}, the events cost {revenue}")
