"""What engines counted against what was recorded, request by request.

An engine keeps a receipt of everything it worked on, of aborted requests too (ops/decisions/0004). Each
receipt is a record's tokens, or work that is charged to nobody by our own rules, or a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.reconcile.journals import KilledBoot
from penstock_billing.reconcile.report import Compared, Difference, Unbilled, difference
from penstock_billing.record import Outcome

SQL = queries.load("penstock_billing", "reconcile.sql")

CUT_SHORT = frozenset({Outcome.CLIENT_GONE, Outcome.CREDIT_ENDED})
"""The engine was asked to stop, and then for its count."""
DYING_MS = 10_000
"""What an engine did in its last seconds may have no receipt, when it was killed."""
NOTICING_MS = 10_000
"""An engine notices this much later, at most, that a gateway is gone."""


class Work(msgspec.Struct, frozen=True):
    """What one engine counted for one request."""

    request_id: str
    """The X-Request-Id it came with."""
    ended_ms: int
    """Unix milliseconds, by the engine's clock."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    exchanges: int
    """Times it was sent: more than one when a gateway tried again."""
    aborted: bool


class Totals(msgspec.Struct, frozen=True):
    """Sums over an engine's life, every choice's prompt counted, as the engine itself counts."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


class EngineBoot(msgspec.Struct, frozen=True, kw_only=True):
    """One life of one engine, with its receipts from a moment on."""

    replica: str
    boot: str
    since_ms: int
    """Unix milliseconds from which on its receipts are there."""
    last_ms: int
    """When the last of them was written, or it was last seen."""
    ended: bool
    """Whether it ended by itself, and so wrote all its receipts."""
    killed: bool = False
    """Whether its process is gone without having ended by itself."""
    works: Sequence[Work]
    """Receipts from the window's beginning on."""
    counted: Totals | None = None
    """What its own metrics said at a moment without a request in hand."""
    noted: Totals | None = None
    """The sums of its receipts at that moment."""


async def stage(connection: asyncpg.Connection, boots: Sequence[EngineBoot]) -> None:
    """Bring the receipts to where they can be joined."""
    await connection.execute(SQL["stage_work"])
    for boot in boots:
        rows = [
            (boot.replica, boot.boot, *msgspec.structs.astuple(work))
            for work in boot.works
            if work.request_id
        ]
        if rows:
            await connection.copy_records_to_table("reconcile_work", records=rows)


async def compare(
    connection: asyncpg.Connection,
    boots: Sequence[EngineBoot],
    killed: Sequence[KilledBoot],
    since: datetime,
    until: datetime,
) -> tuple[list[Difference], list[Unbilled]]:
    """Compare receipts and records that ended in [since, until); both must be staged."""
    differences = [found for boot in boots for found in _counters(boot)]
    unbilled: list[Unbilled] = []
    for row in await connection.fetch(SQL["work_against_records"], since, until):
        found = _judge(row, killed, boots)
        if isinstance(found, Difference):
            differences.append(found)
        else:
            unbilled.append(found)
    replicas = sorted({boot.replica for boot in boots})
    for row in await connection.fetch(SQL["records_without_work"], since, until, replicas):
        if _covered(row, boots):
            tokens = _tokens(row["input_tokens"], row["cached_tokens"], row["output_tokens"])
            what = f"request {row['request_id']} at engine {row['replica']}"
            differences.append(
                difference(
                    Compared.RECORDS_HAVE_WORK, what, tokens, "a receipt of the engine", [row["request_id"]]
                )
            )
    return differences, unbilled


def _tokens(input_tokens: int, cached_tokens: int, output_tokens: int) -> str:
    return f"{input_tokens} input ({cached_tokens} cached), {output_tokens} output"


def _counters(boot: EngineBoot) -> list[Difference]:
    if boot.counted is None or boot.noted is None or boot.counted == boot.noted:
        return []
    found, expected = (_tokens(*msgspec.structs.astuple(one)) for one in (boot.counted, boot.noted))
    what = f"totals of engine {boot.replica}, start {boot.boot}"
    return [difference(Compared.COUNTERS_ARE_RECEIPTS, what, found, expected)]


def _judge(
    row: asyncpg.Record, killed: Sequence[KilledBoot], boots: Sequence[EngineBoot]
) -> Difference | Unbilled:
    """Say what it means that an engine's count is not what is charged."""
    request_id, replica = row["request_id"], row["replica"]
    counted = (row["counted_input"], row["counted_cached"], row["counted_output"])
    what = f"request {request_id} at engine {replica}"

    def free(reason: str, input_tokens: int, output_tokens: int) -> Unbilled:
        return Unbilled(
            request_id=request_id,
            replica=replica,
            reason=reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )

    if row["outcome"] is None:
        if (excuse := _excuse(row, killed)) is not None:
            return free(excuse, counted[0], counted[2])
        return difference(
            Compared.WORK_IS_RECORDED, what, "no record", f"{_tokens(*counted)} counted", [request_id]
        )
    outcome = Outcome(row["outcome"])
    if not outcome.billable:
        return free(f"{outcome.value}: our own failure is free", counted[0], counted[2])
    recorded = (row["input_tokens"], row["cached_tokens"], row["output_tokens"])
    rest = (counted[0] - recorded[0], counted[2] - recorded[2])
    if min(rest) >= 0 and (excuse := _excuse_rest(row, outcome, boots)) is not None:
        return free(excuse, *rest)
    return difference(
        Compared.RECORDS_ARE_COUNTS, what, _tokens(*recorded), f"{_tokens(*counted)} counted", [request_id]
    )


def _excuse_rest(row: asyncpg.Record, outcome: Outcome, boots: Sequence[EngineBoot]) -> str | None:
    """Why less is charged than an engine did, where that is known."""
    if outcome is Outcome.RECOVERED:
        return "its gateway was killed: charged up to its last note"
    if outcome in CUT_SHORT and _died(row, boots):
        return "its engine was killed before it confirmed the abort: charged what it had said"
    if row["hedged"]:
        return "hedged: it was at two engines, and the slower one's work is free"
    if row["exchanges"] > 1:
        return "it was tried again: the tries that failed are free"
    return None


def _died(row: asyncpg.Record, boots: Sequence[EngineBoot]) -> bool:
    """Whether the engine was killed so soon after its count that it may not have told anybody."""
    ended_ms = int(row["counted_at"].timestamp() * 1000)
    life = _life(boots, row["replica"], ended_ms)
    return life is not None and life.killed and ended_ms >= life.last_ms - DYING_MS


def _excuse(row: asyncpg.Record, killed: Sequence[KilledBoot]) -> str | None:
    """Why nobody recorded what an engine did, where that is known."""
    if row["unrecorded"] is not None:
        return f"it could not be recorded: {row['unrecorded']}"
    ended_ms = int(row["counted_at"].timestamp() * 1000)
    if any(boot.started_ms <= ended_ms and boot.last_ms <= ended_ms + NOTICING_MS for boot in killed):
        return "its gateway was killed before it could record it"
    return None


def _covered(row: asyncpg.Record, boots: Sequence[EngineBoot]) -> bool:
    """Whether the engine that worked on it must have a receipt of it."""
    began_ms, ended_ms = (int(row[name].timestamp() * 1000) for name in ("began_at", "ended_at"))
    life = _life(boots, row["replica"], began_ms)
    return life is not None and (life.ended or ended_ms < life.last_ms - DYING_MS)


def _life(boots: Sequence[EngineBoot], replica: str, at_ms: int) -> EngineBoot | None:
    """Find which start of an engine a moment belongs to."""
    lives = (boot for boot in boots if boot.replica == replica and boot.since_ms <= at_ms)
    return max(lives, key=lambda boot: boot.since_ms, default=None)
