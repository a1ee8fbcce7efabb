"""What the SQL of hours and days does, over the model's tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from world.postgres import Transaction
from world.statements import EPOCH, NOTHING, add, earned, earned_at, statement

from penstock_billing import partitions, roll_ups


@statement(partitions.SQL["limit_waiting"])
@statement(roll_ups.SQL["limit_waiting"])
def limit_waiting(transaction: Transaction) -> Any:
    transaction.lock_timeout_s = 2.0
    return NOTHING


@statement(roll_ups.SQL["stop_shippers"])
def stop_shippers(transaction: Transaction) -> Any:
    transaction.lock("advisory", 7306001203)
    return NOTHING


@statement(roll_ups.SQL["marks"])
def marks(transaction: Transaction) -> Any:
    return [
        {
            "hours_until": transaction.get("roll_up_mark", "hour") or EPOCH,
            "days_until": transaction.get("roll_up_mark", "day") or EPOCH,
            "now": transaction.server.now(),
        }
    ]


@statement(roll_ups.SQL["next_minute"])
def next_minute(transaction: Transaction, since: datetime) -> Any:
    found = [key[1] for key, _ in transaction.rows("usage_minute") if key[1] >= since]
    return [{"min": min(found, default=None)}]


def close(transaction: Transaction, source: str, target: str, since: datetime, until: datetime) -> str:
    """Sum up rows of one table to longer ones of another; a row that is there already is an error there."""
    sums: dict[Any, tuple[int, ...]] = {}
    for key, counts in transaction.rows(source):
        if since <= key[1] < until:
            whole = key[1].replace(minute=0) if target == "usage_hour" else key[1].replace(hour=0)
            longer = (key[0], whole, *key[2:])
            sums[longer] = add(sums[longer], counts) if longer in sums else counts
    for longer, counts in sorted(sums.items()):
        transaction.insert(target, longer, counts)
    return f"INSERT 0 {len(sums)}"


@statement(roll_ups.SQL["close_hours"])
def close_hours(transaction: Transaction, since: datetime, until: datetime) -> Any:
    return close(transaction, "usage_minute", "usage_hour", since, until)


@statement(roll_ups.SQL["close_earned"])
def close_earned(transaction: Transaction, since: datetime, until: datetime) -> Any:
    sums: dict[Any, tuple[int, ...]] = {}
    for key, counts in transaction.rows("usage_hour"):
        if since <= key[1] < until:
            for place in earned_at(key):
                sums[place] = add(sums[place], earned(counts)) if place in sums else earned(counts)
    for place, amounts in sorted(sums.items()):
        transaction.insert("earned_hour", place, amounts)
    return f"INSERT 0 {len(sums)}"


@statement(roll_ups.SQL["close_days"])
def close_days(transaction: Transaction, since: datetime, until: datetime) -> Any:
    return close(transaction, "usage_hour", "usage_day", since, until)


@statement(roll_ups.SQL["move_mark"])
def move_mark(transaction: Transaction, level: str, until: datetime) -> Any:
    transaction.put("roll_up_mark", level, until)
    return NOTHING
