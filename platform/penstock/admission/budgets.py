"""Budgets at one gateway, in memory: no request waits for Postgres to be let in.

    spent = what Postgres knows + what this gateway recorded and Postgres does not know yet
    a request is let in while: spent + held for requests that run here + the most it may cost <= limit

Every request holds the most it may cost, a nano-dollar at least. One that would fit if nothing else ran is
told to try again, not that the budget is used up.

What Postgres knows is read every second together with how far this gateway's own journal is shipped, in one
snapshot, so none of its requests is counted twice or not at all. One gateway alone never exceeds a hard
budget. Several exceed it by no more than what the others began, and spent, since what this one last read:
about a second, or, while Postgres is away, as long as that lasts. Each of them still stops at the limit by
itself, so N gateways together spend at most N times what was left of the budget when they last read.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import cast

import asyncpg

from penstock.access.keyring import Principal
from penstock_base import money, queries
from penstock_billing import budgets, frames
from penstock_billing.budgets import Budget, Period, Scope
from penstock_billing.journal import Journal

SQL = queries.load("penstock.admission", "budgets.sql")


class BudgetExceeded(Exception):
    """A hard budget has no room for the request; nothing was executed and nothing is billed."""

    def __init__(self, limit: Limit, worst_nano_usd: int, resets_at: datetime | None) -> None:
        super().__init__(
            f"{_spent(limit)}, and this request may cost up to {usd(worst_nano_usd)}; "
            "ask for a shorter answer (max_tokens), or have the budget raised"
            + (f". It begins anew on {resets_at:%Y-%m-%d} (UTC)" if resets_at else "")
        )
        self.scope = SCOPES[limit.level]
        self.budget = limit.budget
        self.spent_nano_usd = limit.spent
        self.needed_nano_usd = worst_nano_usd
        self.resets_at = resets_at


class BudgetHeld(Exception):
    """The room in a hard budget is held for requests that run: soon it is known what they really cost."""

    retry_after_s = 1

    def __init__(self, limit: Limit, worst_nano_usd: int) -> None:
        super().__init__(
            f"{_spent(limit)}, {usd(limit.held)} more are held for requests that are running, and this "
            f"request may cost up to {usd(worst_nano_usd)}; nothing was billed, try again shortly"
        )


def _spent(limit: Limit) -> str:
    plan = limit.budget.plan
    return (
        f"of {OF[limit.level]} {WHEN[limit.budget.period]} budget of {usd(plan.limit_nano_usd)} US dollars, "
        f"{usd(limit.spent)} are spent"
    )


SCOPES = ("organisation", "project", "key")
OF = ("the organisation's", "the project's", "this key's")
WHEN = {Period.MONTH: "monthly", Period.TOTAL: "total"}


class Limit:
    """One budget as this gateway knows it, in nano-dollars."""

    __slots__ = ("budget", "held", "level", "month", "most", "spent")

    def __init__(self, budget: Budget, month: date) -> None:
        self.budget = budget
        self.level = 2 if budget.scope.key_id is not None else 1 if budget.scope.project_id is not None else 0
        self.month = month
        """The month that `spent` is of, where the budget is monthly."""
        self.most = budget.plan.limit_nano_usd if budget.plan.enforced else math.inf
        """What may be spent: without end in a soft budget."""
        self.spent = budget.spent_nano_usd
        self.held = 0


class Reservation:
    """What a request may still cost, set aside in each of its budgets. `close` it on every way out."""

    __slots__ = ("_budgets", "_limits", "held_nano_usd", "principal")

    def __init__(self, own: Budgets, principal: Principal, limits: list[Limit], held_nano_usd: int) -> None:
        self._budgets = own
        self._limits = limits
        self.principal = principal
        self.held_nano_usd = held_nano_usd
        for limit in limits:
            limit.held += held_nano_usd

    def settle(self, cost_nano_usd: int, ended_ms: int) -> None:
        """The request's record was just appended to the journal; call it before anything else is appended."""
        self._budgets.note(self.principal, cost_nano_usd, ended_ms)
        self.close()

    def close(self) -> None:
        """Let go of what is held; safe to repeat."""
        for limit in self._limits:
            limit.held -= self.held_nano_usd
        self._limits = []
        self._budgets.forget(self)

    def hold_in(self, limits: list[Limit]) -> None:
        """Hold in these from now on: the budgets were read anew."""
        self._limits = limits
        for limit in limits:
            limit.held += self.held_nano_usd


class Unshipped:
    """A record of this gateway that Postgres did not have when it was last asked."""

    __slots__ = ("cost_nano_usd", "end", "month", "part", "principal")

    def __init__(self, principal: Principal, cost_nano_usd: int, month: date, part: int, end: int) -> None:
        self.principal = principal
        self.cost_nano_usd = cost_nano_usd
        self.month = month
        self.part = part
        self.end = end


class Budgets:
    """Every budget in force, and what this gateway spends of it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._limits: dict[Scope, list[Limit]] = {}
        self._found: dict[Principal, list[Limit]] = {}
        """What was found for a principal since the budgets were read."""
        self._organisations: set[int] = set()
        """Those with a budget: nobody else's requests are looked at twice."""
        self._unshipped: deque[Unshipped] = deque()
        self._open: set[Reservation] = set()
        self.loaded = False
        self._set_month(datetime.now(UTC))

    def reserve(
        self, principal: Principal, worst: Callable[[], int], now_s: float | None = None
    ) -> Reservation | None:
        """Set aside the most a request may cost in each of its budgets; None when it has no budget.

        Raises BudgetExceeded, or BudgetHeld where it would fit if nothing else ran, naming the narrowest hard
        budget without room; then nothing is set aside.
        """
        if principal.organisation_id not in self._organisations:
            return None
        worst_nano_usd = max(1, worst())
        now_s = time.time() if now_s is None else now_s
        if now_s >= self._month_ends_s:
            self._begin_month(datetime.fromtimestamp(now_s, UTC))
        limits = self._of(principal)
        for limit in limits:
            if limit.most - limit.spent - limit.held < worst_nano_usd:
                raise _refusal(limits, worst_nano_usd, datetime.fromtimestamp(now_s, UTC))
        reservation = Reservation(self, principal, limits, worst_nano_usd)
        self._open.add(reservation)
        return reservation

    def note(self, principal: Principal, cost_nano_usd: int, ended_ms: int) -> None:
        """Count a record that was just appended until Postgres is known to have it."""
        if not cost_nano_usd:
            return
        month = self._month
        if not self._month_begins_s <= ended_ms / 1000 < self._month_ends_s:
            month = budgets.month_of(datetime.fromtimestamp(ended_ms / 1000, UTC))
        journal = self._journal
        record = Unshipped(principal, cost_nano_usd, month, journal.part, journal.position)
        self._unshipped.append(record)
        self._count(record)

    def forget(self, reservation: Reservation) -> None:
        """It is over."""
        self._open.discard(reservation)

    async def refresh(self, pool: asyncpg.Pool, now: datetime | None = None) -> None:
        """Read every budget and what is spent, and how much of that was ours, in one snapshot."""
        now = now or datetime.now(UTC)
        async with (
            pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            part = self._journal.part
            parts = sorted({part, part + 1, *(record.part for record in self._unshipped)})
            names = [frames.journal_name(self._journal.boot_id, part) for part in parts]
            found = await budgets.live(cast("asyncpg.Connection", connection), None, now)
            cursors = {
                row["journal"]: row["shipped_bytes"] for row in await connection.fetch(SQL["cursors"], names)
            }
        shipped = {part: cursors.get(name, 0) for part, name in zip(parts, names, strict=True)}
        self._unshipped = deque(
            record for record in self._unshipped if record.end > shipped.get(record.part, 0)
        )
        self._take_over(found, now)

    def _take_over(self, found: list[Budget], now: datetime) -> None:
        self.loaded = True
        self._set_month(now)
        self._limits = {}
        self._found = {}
        for budget in found:
            self._limits.setdefault(budget.scope, []).append(Limit(budget, self._month))
        self._organisations = {budget.scope.organisation_id for budget in found}
        for record in self._unshipped:
            self._count(record)
        for reservation in self._open:
            reservation.hold_in(self._of(reservation.principal))

    def _set_month(self, now: datetime) -> None:
        self._month = budgets.month_of(now)
        self._month_begins_s = datetime.combine(self._month, datetime.min.time(), UTC).timestamp()
        self._month_ends_s = budgets.month_after(now).timestamp()

    def _begin_month(self, now: datetime) -> None:
        """A month has begun that Postgres was not asked about yet: only what is noted here is known of it."""
        self._set_month(now)
        for limits in self._limits.values():
            for limit in limits:
                if limit.budget.period is Period.MONTH:
                    limit.month, limit.spent = self._month, 0
        for record in self._unshipped:
            self._count(record, only=Period.MONTH)

    def _count(self, record: Unshipped, only: Period | None = None) -> None:
        for limit in self._of(record.principal):
            period = limit.budget.period
            if only in {None, period} and (period is Period.TOTAL or limit.month == record.month):
                limit.spent += record.cost_nano_usd

    def _of(self, principal: Principal) -> list[Limit]:
        """The budgets of a principal, the widest first."""
        found = self._found.get(principal)
        if found is None:
            organisation_id = principal.organisation_id
            limits = self._limits
            found = self._found[principal] = [
                *limits.get(Scope(organisation_id), ()),
                *limits.get(Scope(organisation_id, principal.project_id), ()),
                *limits.get(Scope(organisation_id, None, principal.key_id), ()),
            ]
        return found


def _refusal(limits: list[Limit], worst_nano_usd: int, now: datetime) -> BudgetExceeded | BudgetHeld:
    """Which budget has no room, the narrowest first; one that is used up rather than one that is held."""
    for limit in reversed(limits):
        if limit.most - limit.spent < worst_nano_usd:
            return BudgetExceeded(limit, worst_nano_usd, limit.budget.resets_at(now))
    held = next(each for each in reversed(limits) if each.most - each.spent - each.held < worst_nano_usd)
    return BudgetHeld(held, worst_nano_usd)


def usd(nano_usd: int) -> str:
    """Write dollars without needless zeros, and with cents."""
    whole, _, fraction = money.nano_to_usd(nano_usd).partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
