"""Claims: the right to execute a request that may be sent again, and what became of it.

A claim is a row in Postgres, taken before anything is executed. Inserting it is the whole decision: there is
no second store that could disagree, and nothing that could be claimed and not written.

    (none) --take--> running --answered--> the answer is replayed
                        |------not kept--> too large, or marked no-store: refused, naming the first request
                        |------lost------> charged, and nobody has the answer: refused, naming it and its cost
                        |------unknown---> may have taken effect: refused, naming it
                        '------released--> (none): it cost nothing, so the next one executes

**A client that leaves.** With an Idempotency-Key the request runs on to its end, so that the retry, which is
why the key was sent, gets the whole answer for the one charge. The other rule, to stop and refuse the retry,
would take the money and never give the answer. SDK retry ids are sent without anybody asking for it, so there
a client that leaves stops the engine as ever and pays for what was made; its retry is refused as lost.

**A process that dies.** The claim names the process by its journal's boot id. While that may live, its claims
are in progress. Once it is gone and all it wrote was shipped (`billing.gateway_boot.settled_at`), its usage
events say everything: an execution without a charge is taken over, one with a charge is lost. What leaves no
usage event (the management API) is unknown. No clock decides, so nothing is executed beside a slow process.

**Without the database.** A request with an Idempotency-Key is refused; one with an SDK's id is executed, as
if it had none. An end that cannot be written is kept in memory and written later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections import deque
from collections.abc import Awaitable
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

import asyncpg
import msgspec

from penstock.access.keyring import Principal
from penstock.admission.idempotency import identity
from penstock.admission.idempotency.errors import (
    AnswerLost,
    AnswerNotKept,
    ClaimsUnavailable,
    InProgress,
    KeyReused,
    OutcomeUnknown,
)
from penstock.admission.idempotency.identity import Identity, Repeatable
from penstock.observe import metrics
from penstock_base import queries
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

SQL = queries.load("penstock.admission", "idempotency.sql")

ANSWER_BYTES_MAX = 256 * 1024
"""The largest answer that is kept."""
TIMEOUT_S = 2.0
"""Longest wait for the database, each time."""
PENDING_BYTES_MAX = 16 * 1024 * 1024
"""Most bytes of answers that wait in memory for the database; beyond it, they are not kept."""
AGAIN_EVERY_S = 1.0
DOUBT_S = 60.0
"""How long after the database answers again a claim may still appear there that it had not answered."""
DOUBTFUL_MAX = 20_000
"""Most such claims that are remembered; of one that is not, the key may stay in progress for a day."""
RETRY_AFTER_S = (1, 30)
"""A client is told to wait as long as the first request has been running, between these."""
FORGET_ROWS = 1000
LOOKS_MAX = 5

T = TypeVar("T")


class State(StrEnum):
    """What became of an execution."""

    RUNNING = "running"
    ANSWERED = "answered"
    NOT_KEPT = "not_kept"
    LOST = "lost"
    UNKNOWN = "unknown"


class Claim(msgspec.Struct, frozen=True):
    """The right to execute one request, once."""

    id: bytes
    request_id: str
    kept: timedelta
    promised: bool
    """Whether the client sent an Idempotency-Key, and not just an SDK's id."""


class Answer(msgspec.Struct, frozen=True):
    """What a client was answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Kept(msgspec.Struct, frozen=True):
    """The answer to an earlier request with the same key."""

    request_id: str
    cost_nano_usd: int
    answer: Answer


class End(msgspec.Struct, frozen=True):
    """How an execution ended; `state` None releases the claim."""

    claim: Claim
    state: State | None = None
    answer: Answer | None = None
    cost_nano_usd: int = 0

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        return 500 + (len(self.answer.body) if self.answer else 0)

    def without_answer(self) -> End:
        """The same end with less to keep."""
        return End(self.claim, State.NOT_KEPT, None, self.cost_nano_usd) if self.answer else self


class Doubtful(msgspec.Struct):
    """A claim that nobody executes, and that the database may have or may get."""

    claim: Claim
    until_s: float = math.inf
    """time.monotonic() from which on it will no longer appear."""


class Claims:
    """The claims that one gateway process takes. `run` for as long as it lives, then `drain`."""

    def __init__(
        self, pool: asyncpg.Pool, pepper: bytes, boot_id: bytes, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._pool = pool
        self._pepper = pepper
        self._boot = boot_id.hex()
        self._host = socket.gethostname()
        self._timeout_s = timeout_s
        self._pending: list[End] = []
        self._pending_bytes = 0
        self._doubtful: deque[Doubtful] = deque(maxlen=DOUBTFUL_MAX)
        self._wake = asyncio.Event()
        self._given_up: set[asyncio.Future[object]] = set()
        self._skip_until_s = 0.0

    async def take(
        self,
        repeatable: Repeatable,
        principal: Principal,
        method: str,
        target: bytes,
        body: bytes,
        request_id: str,
        *,
        metered: bool,
    ) -> Claim | Kept | None:
        """Claim a request before it is executed.

        Returns the claim, the answer that an earlier one got, or None for an SDK's id while the database is
        away: then the request is executed without. `metered`: whether what it costs becomes a usage event.
        Raises KeyReused, InProgress, AnswerNotKept, AnswerLost, OutcomeUnknown or ClaimsUnavailable.
        """
        wanted = identity.identify(self._pepper, principal, repeatable, method, target, body)
        claim = Claim(wanted.claim_id, request_id, repeatable.kept, repeatable.promised)
        if not claim.promised and time.monotonic() < self._skip_until_s:
            metrics.idempotency("unclaimed").inc()
            return None
        try:
            taken = await self._within(self._take(claim, wanted, principal, metered=metered))
        except (*DATABASE_AWAY, asyncio.CancelledError) as error:
            self._doubt(claim)
            if isinstance(error, asyncio.CancelledError):
                raise
            logger.warning("a request could not be claimed", extra={"reason": str(error) or "no answer"})
            if claim.promised:
                metrics.idempotency("unavailable").inc()
                raise ClaimsUnavailable(
                    "it cannot be made sure right now that this request is executed only once, "
                    "so it was not executed; try again shortly, or send it without Idempotency-Key"
                ) from error
            # Nobody promised anything here: do not let every request find out for itself.
            self._skip_until_s = time.monotonic() + AGAIN_EVERY_S
            metrics.idempotency("unclaimed").inc()
            return None
        metrics.idempotency("replayed" if isinstance(taken, Kept) else "claimed").inc()
        return taken

    async def end(self, end: End) -> None:
        """Write how an execution ended; when the database is away it is written as soon as it is back."""
        try:
            await self._within(self._write(end))
        except (*DATABASE_AWAY, asyncio.CancelledError) as error:
            self.end_later(end)
            if isinstance(error, asyncio.CancelledError):
                raise

    def end_later(self, end: End) -> None:
        """Have it written by `run` or `drain`."""
        if self._pending_bytes + end.size_bytes > PENDING_BYTES_MAX:
            end = end.without_answer()
        self._pending.append(end)
        self._pending_bytes += end.size_bytes
        self._wake.set()

    async def run(self) -> None:
        """Write the ends that could not be written at once, until cancelled."""
        while True:
            await self._wake.wait()
            with contextlib.suppress(*DATABASE_AWAY):
                await self._write_pending()
            if not self._pending and not self._doubtful:
                self._wake.clear()
            else:
                await asyncio.sleep(AGAIN_EVERY_S)

    async def drain(self, timeout_s: float) -> None:
        """Write what is left before the process ends.

        What cannot be written then is found out from the usage events, once this process counts as settled.
        """
        with contextlib.suppress(TimeoutError, *DATABASE_AWAY):
            async with asyncio.timeout(timeout_s):
                await self._write_pending()

    async def _take(
        self, claim: Claim, wanted: Identity, principal: Principal, *, metered: bool
    ) -> Claim | Kept:
        """Insert the claim, or say what is in its way."""
        process = (self._boot, self._host)
        for _ in range(LOOKS_MAX):
            if await self._pool.fetchval(
                SQL["take"],
                *(claim.id, wanted.fingerprint, principal.organisation_id, *process),
                *(claim.request_id, metered, identity.KEPT),
            ):
                return claim
            found = await self._pool.fetchrow(SQL["look"], claim.id)
            if found is None:
                continue  # it was released just now
            if found["expired"]:
                await self._pool.execute(SQL["forget"], claim.id)
                continue
            if found["settled"] and found["fingerprint"] == wanted.fingerprint:
                await self._judge(found, principal)
                if await self._pool.fetchval(
                    SQL["take_over"],
                    *(claim.id, found["boot_id"], found["request_id"], *process, claim.request_id),
                    identity.KEPT,
                ):
                    metrics.idempotency("taken_over").inc()
                    return claim
                continue  # somebody else took it over
            return _kept(found, wanted)
        raise InProgress(claim.request_id, RETRY_AFTER_S[0])

    async def _judge(self, found: asyncpg.Record, principal: Principal) -> None:
        """What a dead process left behind: returns when it may be executed again, else says why not."""
        request_id = found["request_id"]
        if not found["metered"]:
            raise OutcomeUnknown(request_id)
        charged = await self._pool.fetchval(SQL["charged"], principal.organisation_id, request_id)
        if charged:
            metrics.idempotency("lost").inc()
            raise AnswerLost(request_id, charged)

    async def _write(self, end: End) -> None:
        claim, answer = end.claim, end.answer
        if end.state is None:
            await self._pool.execute(SQL["release"], claim.id, claim.request_id)
            return
        await self._pool.execute(
            SQL["finish"],
            *(claim.id, claim.request_id, end.state.value),
            answer.status if answer else None,
            msgspec.json.encode(answer.headers).decode() if answer else None,
            answer.body if answer else None,
            end.cost_nano_usd,
            claim.kept,
        )

    async def _write_pending(self) -> None:
        """Write one by one; raises one of DATABASE_AWAY at the first that fails."""
        while self._pending:
            end = self._pending[0]
            await self._within(self._write(end))
            self._pending.remove(end)
            self._pending_bytes -= end.size_bytes
        if doubtful := list(self._doubtful):
            which = [one.claim.id for one in doubtful], [one.claim.request_id for one in doubtful]
            await self._within(self._pool.execute(SQL["release_all"], *which))
            now_s = time.monotonic()
            for one in doubtful:
                one.until_s = min(one.until_s, now_s + DOUBT_S)
            while self._doubtful and self._doubtful[0].until_s <= now_s:
                self._doubtful.popleft()

    def _doubt(self, claim: Claim) -> None:
        """Its insert may still take effect although nobody executes it: released until that is over."""
        self._doubtful.append(Doubtful(claim))
        self._wake.set()

    async def _within(self, work: Awaitable[T]) -> T:
        """Wait for the database, and no longer than we said: not for asyncpg's own tidying up either."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        except asyncio.CancelledError:
            self._give_up(task)
            raise
        if not done:
            self._give_up(task)
            raise TimeoutError("the database took too long")
        return task.result()

    def _give_up(self, task: asyncio.Future[T]) -> None:
        def over(ended: asyncio.Future[object]) -> None:
            self._given_up.discard(ended)
            if not ended.cancelled():
                ended.exception()

        self._given_up.add(task)  # type: ignore[arg-type]
        task.add_done_callback(over)  # type: ignore[arg-type]
        task.cancel()


def _kept(found: asyncpg.Record, wanted: Identity) -> Kept:
    """The answer that is kept, or the reason why there is none."""
    request_id, cost_nano_usd = found["request_id"], found["cost_nano_usd"]
    if found["fingerprint"] != wanted.fingerprint:
        metrics.idempotency("reused").inc()
        raise KeyReused(request_id)
    match State(found["state"]):
        case State.RUNNING:
            metrics.idempotency("in_progress").inc()
            least_s, most_s = RETRY_AFTER_S
            raise InProgress(request_id, min(most_s, max(least_s, round(found["age_s"]))))
        case State.NOT_KEPT:
            metrics.idempotency("not_kept").inc()
            raise AnswerNotKept(request_id, cost_nano_usd)
        case State.LOST:
            metrics.idempotency("lost").inc()
            raise AnswerLost(request_id, cost_nano_usd)
        case State.UNKNOWN:
            metrics.idempotency("unknown").inc()
            raise OutcomeUnknown(request_id)
        case State.ANSWERED:
            headers = msgspec.json.decode(found["headers"], type=list[tuple[str, str]])
            return Kept(request_id, cost_nano_usd, Answer(found["status"], headers, found["body"]))


async def forget_expired(connection: asyncpg.Connection) -> int:
    """Delete the claims whose time is up, a bounded number at once; how many there were."""
    forgotten = 0
    while True:
        deleted = int((await connection.execute(SQL["forget_expired"], FORGET_ROWS)).rpartition(" ")[2])
        forgotten += deleted
        if deleted < FORGET_ROWS:
            return forgotten
