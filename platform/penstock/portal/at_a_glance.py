"""What the first page tells: each part is read by itself, from sums and from memory, never from events.

The latest failures are the exception: an index knows them.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg

from penstock.access import first_steps
from penstock.access.labels import Labels
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.operations import Readiness
from penstock.portal import formats, request_rows
from penstock.portal.frame import World
from penstock_base import money
from penstock_billing import budgets, minutes, requests, usage, wallets
from penstock_billing.budgets import Budget
from penstock_billing.errors import SearchTookTooLong
from penstock_billing.record import Funding
from penstock_billing.requests import RecordedRequest, Wanted
from penstock_billing.usage import Question, Step
from penstock_billing.wallets import WalletState
from penstock_catalog.cards import Task

HOURS = 24
FAILED_DAYS = 7
FAILED_MAX = 5
SHOWN_MAX = 6
"""Of endpoints, models and budgets; each part leads to the page of all of them."""
NEAR_PERCENT = 75
"""A budget is near its end from here on, or from its first alert."""
BY_URGENCY = ("unhealthy", "creating", "suspended", "deleting", "online")
LIVE, SLEEPING = "live", "asleep"
STATES = {"ready": LIVE, "asleep": SLEEPING, "starting": "waking"}


class Now(NamedTuple):
    """What goes on."""

    per_minute: int
    """Requests that ended in the last whole minute."""
    in_hour: int
    failed_in_hour: int
    cost_in_month_nano_usd: int
    wallet: WalletState | None
    """The organisation's own."""
    as_of: datetime

    @property
    def failed_share(self) -> str:
        """Failed requests of an hour, of all."""
        whole = self.in_hour + self.failed_in_hour
        return (
            f"{self.failed_in_hour * 100 / whole:.2g} % of {formats.count(whole)}" if whole else "no requests"
        )


class Hour(NamedTuple):
    """What was asked in an hour."""

    at: datetime
    requests: int
    failed: int
    cost_nano_usd: int


class Part(NamedTuple):
    """A part of the installation as this gateway sees it."""

    name: str
    word: str
    tone: str
    text: str


class Near(NamedTuple):
    """A budget that much is spent of."""

    budget: Budget
    of: str
    percent: int


async def now(pool: asyncpg.Pool, organisation_id: int, at: datetime) -> Now:
    """Sum up the last hour, and the month to date with its minutes of endpoints."""
    minute = at.replace(second=0, microsecond=0)
    soon = minute + timedelta(minutes=1)
    question = Question(
        organisation_id=organisation_id, since=soon - timedelta(hours=1), until=soon, step=Step.MINUTE
    )
    lines = await usage.read(pool, question)
    month = budgets.month_of(at)
    spent_nano_usd = await budgets.spent_nano_usd(pool, organisation_id, month)
    began = datetime.combine(month, datetime.min.time(), UTC)
    charged = await minutes.charged(pool, organisation_id, began, soon)
    states = await wallets.states(pool, organisation_id, at)
    return Now(
        per_minute=sum(line.requests for line in lines if line.at == minute - timedelta(minutes=1)),
        in_hour=sum(line.requests for line in lines),
        failed_in_hour=sum(line.failed_requests for line in lines),
        cost_in_month_nano_usd=spent_nano_usd + sum(each.cost_nano_usd for each in charged),
        wallet=next((state for state in states if state.wallet.project_id == 0), None),
        as_of=at,
    )


async def day(pool: asyncpg.Pool, organisation_id: int, at: datetime) -> list[Hour]:
    """The last 24 hours, the running one last; those without a request too."""
    last = at.replace(minute=0, second=0, microsecond=0)
    first = last - timedelta(hours=HOURS - 1)
    question = Question(
        organisation_id=organisation_id, since=first, until=last + timedelta(hours=1), step=Step.HOUR
    )
    used = {
        line.at.astimezone(UTC): Hour(
            line.at.astimezone(UTC), line.requests, line.failed_requests, line.cost_nano_usd
        )
        for line in await usage.read(pool, question)
        if line.at is not None
    }
    hours = [first + timedelta(hours=hour) for hour in range(HOURS)]
    return [used.get(hour, Hour(hour, 0, 0, 0)) for hour in hours]


def charts(hours: list[Hour]) -> dict[str, Any]:
    """The same as two charts, as js/charts.js draws them."""
    done = {"name": "Requests", "values": [hour.requests for hour in hours]}
    failed = {"name": "Failed (ours, free)", "values": [hour.failed for hour in hours]}
    cost = {"name": "Cost", "values": [float(money.nano_to_usd(hour.cost_nano_usd)) for hour in hours]}
    bars = {"type": "bar", "labels": [hour.at.strftime("%H:%M") for hour in hours], "stacked": True}
    return {
        "requests": bars | {"unit": "", "series": [done, failed]},
        "cost": bars | {"unit": "usd", "series": [cost]},
    }


async def failures(pool: asyncpg.Pool, organisation_id: int, at: datetime) -> list[RecordedRequest]:
    """The latest requests that we could not finish."""
    wanted = Wanted(
        organisation_id=organisation_id,
        since=at - timedelta(days=FAILED_DAYS),
        until=at + timedelta(hours=1),
        outcomes=list(request_rows.OURS),
        limit=FAILED_MAX,
    )
    try:
        return await requests.latest(pool, wanted)
    except SearchTookTooLong:
        return []


async def near_budgets(pool: asyncpg.Pool, organisation_id: int, named: Labels, at: datetime) -> list[Near]:
    """Budgets that are near their end or behind it, the nearest first."""
    found = []
    for budget in await budgets.live(pool, organisation_id, at):
        limit = budget.plan.limit_nano_usd
        percent = budget.spent_nano_usd * 100 // limit if limit else 100 * bool(budget.spent_nano_usd)
        if percent >= min((NEAR_PERCENT, *budget.plan.alert_percents)):
            found.append(Near(budget, _owner(budget, named), percent))
    return sorted(found, key=lambda near: -near.percent)


def models(world: World) -> tuple[Counter[str], list[tuple[str, str, str]]]:
    """How many models are in each state, and some of them: their id, state and why."""
    standings = {model: world.directory.standing(model) for model in world.directory.models()}
    states = {model: STATES.get(each.state, each.state) for model, each in standings.items()}
    # Waking and troubled ones first: they are what one would look for.
    order = sorted(states, key=lambda model: (states[model] == SLEEPING, states[model] == LIVE, model))
    shown = [(model, states[model], standings[model].reason) for model in order[:SHOWN_MAX]]
    return Counter(states.values()), shown


async def steps(pool: asyncpg.Pool, visitor: Visitor) -> list[tuple[str, bool, bool]]:
    """What a newcomer does first: its name, whether that is done, and whether this visitor may do it."""
    begun = await first_steps.of(pool, visitor.organisation_id)
    asked = await requests.ever_asked(pool, visitor.organisation_id, begun.playground_keys)
    return [
        ("try", bool(begun.playground_keys), visitor.may(Role.DEVELOPER)),
        ("key", begun.keys, visitor.may(Role.DEVELOPER)),
        ("request", asked, True),
        ("invite", begun.company, visitor.may(Role.OWNER)),
    ]


def snippet(world: World) -> str:
    """A first request, ready to paste."""
    chat = [card.id for card in world.shelf.cards if card.task is Task.CHAT]
    offered = [model for model in world.directory.models() if model in chat]
    ready = [model for model in offered if world.directory.has_ready(model)]
    model = min(ready or offered or chat or ["MODEL"])
    return (
        f"curl {world.settings.public_url}/v1/chat/completions \\\n"
        '  -H "authorization: Bearer $PENSTOCK_API_KEY" \\\n'
        '  -H "content-type: application/json" \\\n'
        f"""  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'"""
    )


def health(world: World, readiness: Readiness) -> list[Part]:
    """The parts of the installation, and what it means where one is not well."""
    engines = Counter(target.registered.state for target in world.directory.all_targets())
    states = ", ".join(f"{count} {state}" for state, count in sorted(engines.items())) or "none runs"
    return [
        Part("Database", "answers", "good", "Postgres")
        if readiness.database == "ok"
        else Part("Database", "away", "bad", "usage waits in journals; what is in memory is served"),
        Part("Redis", "answers", "good", "changes are told at once")
        if readiness.redis == "ok"
        else Part("Redis", "away", "warn", "changes arrive a second later; nothing is lost"),
        Part("Journal", "writes", "good", "every answer is noted before it ends")
        if readiness.journal == "ok"
        else Part("Journal", "stopped", "bad", readiness.journal),
        Part("Engines", f"{engines['ready']} ready", "good" if engines["ready"] else "warn", states),
    ]


def credit(state: WalletState | None) -> tuple[str, str, str]:
    """The organisation's own wallet as a figure: its name, amount, and what that means."""
    if state is None or state.funding is Funding.POSTPAID:
        owed = state.owed_nano_usd if state is not None else 0
        most = state.owed_max_nano_usd if state is not None else None
        return (
            "Owed",
            formats.usd(owed),
            f"at most {formats.usd(most)}" if most is not None else "invoiced later",
        )
    left = formats.usd(state.available_nano_usd)
    if state.days_left is None:
        return "Credit left", left, "nothing was spent in the last 7 days"
    days = state.days_left
    return (
        "Credit left",
        left,
        "less than a day at this rate"
        if not days
        else f"about {days} {'day' if days == 1 else 'days'} at this rate",
    )


def _owner(budget: Budget, named: Labels) -> str:
    scope = budget.scope
    if scope.key_id is not None:
        return f"Key {named.keys.get(scope.key_id, scope.key_id)}"
    if scope.project_id is not None:
        return f"Project {named.projects.get(scope.project_id, scope.project_id)}"
    return "The organisation"
