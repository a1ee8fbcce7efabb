"""Any order of sending, answering, killing, shipping, settling and forgetting charges a key once at most.

The claims are real, in a real Postgres; two gateways share them. Modelled is only what they should say.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from penstock.access.keyring import Principal
from penstock.admission.idempotency import claims, identity
from penstock.admission.idempotency.claims import Answer, Claim, Claims, End, Kept, State
from penstock.admission.idempotency.errors import (
    AnswerLost,
    AnswerNotKept,
    InProgress,
    KeyReused,
    NotExecuted,
)
from penstock.admission.idempotency.identity import Repeatable
from penstock_base import ids

WHO = Principal(1, 1, "key")
GATEWAYS = 2
KEY = b"k"
BODY, OTHER_BODY = b"{}", b'{"n":2}'
EVENT = """
insert into billing.usage_event (event_id, ended_at, organisation_id, project_id, key_id, request_id,
  surface, model, price_version, input_tokens, cached_tokens, output_tokens, reasoning_tokens, outcome,
  status, streamed, queue_us, first_token_us, duration_us, replica, cost_nano_usd)
values (gen_random_uuid(), now(), 1, 1, 'key', $1,
  's', 'm', 1, 1, 0, 1, 0, 'done', 200, false, 0, 0, 0, 'r', $2)
"""
EXPIRE = "update admission.claim set expires_at = now() where id = $1"

gateways = st.integers(0, GATEWAYS - 1)
bodies = st.sampled_from([BODY, BODY, BODY, OTHER_BODY])
picks = st.integers(0, 100)


@dataclass(eq=False)
class Boot:
    """One life of a gateway process."""

    claims: Claims
    id: bytes
    journal: list[tuple[str, int]] = field(default_factory=list)
    """What is recorded and not in the database yet."""
    settled: bool = False


@dataclass(eq=False)
class Execution:
    """A request that was let in."""

    body: bytes
    claim: Claim
    boot: Boot
    state: State = State.RUNNING
    recorded: bool = False
    cost: int = 0
    answer: Answer | None = None


class Lives(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

        async def connect() -> asyncpg.Pool:
            return await asyncpg.create_pool(url, min_size=1, max_size=GATEWAYS)

        self.pool = self.run(connect())
        self.run(
            self.pool.execute(
                "set session_replication_role = replica; delete from admission.claim; "
                "delete from billing.usage_event; delete from billing.gateway_boot"
            )
        )
        self.boots = [self.boot() for _ in range(GATEWAYS)]
        self.dead: list[Boot] = []
        self.holder: Execution | None = None
        """The execution that has the key."""
        self.running: list[Execution] = []
        self.orphans: list[Execution] = []
        """Executions of dead processes; their last words may still be on their way to the database."""
        self.charged = 0
        """How often, since the key was last forgotten."""

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def boot(self) -> Boot:
        boot_id = ids.uuid7_bytes()

        async def make() -> Claims:
            return Claims(self.pool, b"p" * 32, boot_id, timeout_s=30)

        return Boot(self.run(make()), boot_id)

    async def take(self, boot: Boot, body: bytes) -> Claim | Kept | NotExecuted:
        repeatable = Repeatable(identity.KEY, KEY)
        request_id = f"req_{ids.random_text(12)}"
        try:
            found = await boot.claims.take(repeatable, WHO, "POST", b"/", body, request_id, metered=True)
        except NotExecuted as refusal:
            return refusal
        assert found is not None
        return found

    def expect(self, found: Claim | Kept | NotExecuted, boot: Boot, body: bytes) -> None:
        """Compare an answer with what it should be, and follow it."""
        holder = self.holder
        if isinstance(found, Claim):
            assert holder is None or (
                holder.state is State.RUNNING
                and holder.boot.settled
                and not holder.cost
                and holder.body == body
            )
            self.holder = execution = Execution(body, found, boot)
            self.running.append(execution)
            return
        assert holder is not None
        if holder.body != body:
            assert isinstance(found, KeyReused)
        elif holder.state is State.ANSWERED:
            assert found == Kept(holder.claim.request_id, holder.cost, holder.answer)  # type: ignore[arg-type]
        elif holder.state is State.NOT_KEPT:
            assert isinstance(found, AnswerNotKept)
        elif holder.state is State.LOST or (holder.boot.settled and holder.cost):
            assert isinstance(found, AnswerLost)
            assert holder.claim.request_id in str(found)
        else:
            assert not holder.boot.settled
            assert isinstance(found, InProgress)

    @rule(at=gateways, body=bodies)
    def send(self, at: int, body: bytes) -> None:
        boot = self.boots[at]
        self.expect(self.run(self.take(boot, body)), boot, body)

    @rule(body=bodies)
    def send_everywhere_at_once(self, body: bytes) -> None:
        async def all_at_once() -> list[Claim | Kept | NotExecuted]:
            return await asyncio.gather(*(self.take(boot, body) for boot in (*self.boots, *self.boots)))

        found = self.run(all_at_once())
        claimed = [isinstance(each, Claim) for each in found]
        assert sum(claimed) <= 1
        # Whoever got it was first; the others' answers follow from that.
        order = sorted(range(len(found)), key=lambda at: not claimed[at])
        for at in order:
            self.expect(found[at], self.boots[at % GATEWAYS], body)

    @rule(pick=picks, cost=st.sampled_from([0, 7]))
    def record(self, pick: int, cost: int) -> None:
        if not self.running:
            return
        execution = self.running[pick % len(self.running)]
        if execution.recorded:
            return
        execution.recorded, execution.cost = True, cost
        execution.boot.journal.append((execution.claim.request_id, cost))
        self.charged += cost > 0

    @rule(pick=picks, how=st.sampled_from([State.ANSWERED, State.NOT_KEPT, State.LOST]))
    def end(self, pick: int, how: State) -> None:
        if self.running:
            execution = self.running.pop(pick % len(self.running))
            self.write_end(execution, how if execution.cost else None)

    @rule(pick=picks)
    def last_words_of_a_dead_process(self, pick: int) -> None:
        """The server still does what a process asked that is dead by now."""
        if self.orphans:
            execution = self.orphans.pop(pick % len(self.orphans))
            self.write_end(execution, State.ANSWERED if execution.cost else None)

    def write_end(self, execution: Execution, how: State | None) -> None:
        answer = Answer(200, [("content-type", "x")], ids.random_text(5).encode())
        kept = answer if how is State.ANSWERED else None
        self.run(execution.boot.claims.end(End(execution.claim, how, kept, execution.cost)))
        if self.holder is not execution or execution.state is not State.RUNNING:
            return  # too late: it is another's
        if how is None:
            self.holder = None
        else:
            execution.state, execution.answer = how, kept

    @rule(pick=picks, found_at_once=st.booleans())
    def kill(self, pick: int, found_at_once: bool) -> None:
        """Whoever executes something is killed, or, when nobody does, nobody."""
        if not self.running:
            return
        boot = self.running[pick % len(self.running)].boot
        at = self.boots.index(boot)
        self.dead.append(boot)
        self.boots[at] = self.boot()
        self.orphans += [execution for execution in self.running if execution.boot is boot]
        self.running = [execution for execution in self.running if execution.boot is not boot]
        if found_at_once:
            self.settle(self.dead.index(boot))

    @rule(pick=picks)
    def ship(self, pick: int) -> None:
        everybody = [*self.boots, *self.dead]
        boot = everybody[pick % len(everybody)]
        for request_id, cost in boot.journal:
            self.run(self.pool.execute(EVENT, request_id, cost))
        boot.journal.clear()

    @rule(pick=picks)
    def settle(self, pick: int) -> None:
        if self.dead:
            boot = self.dead[pick % len(self.dead)]
            self.ship(len(self.boots) + self.dead.index(boot))
            boot.settled = True
            self.run(
                self.pool.execute(
                    "update billing.gateway_boot set settled_at = now() where boot_id = $1", boot.id.hex()
                )
            )

    @rule()
    def a_day_passes(self) -> None:
        holder = self.holder
        if holder is not None and holder.state is not State.RUNNING:
            self.run(self.pool.execute(EXPIRE, holder.claim.id))
            self.holder = None
            self.charged = 0

    @rule()
    def keep_house(self) -> None:
        async def forget() -> None:
            async with self.pool.acquire() as connection:
                await claims.forget_expired(connection)

        self.run(forget())

    @invariant()
    def no_key_was_charged_twice(self) -> None:
        assert self.charged <= 1

    def teardown(self) -> None:
        self.run(self.pool.close())
        self.runner.close()


def test_a_key_is_charged_once_at_most(url: str) -> None:
    run_state_machine_as_test(lambda: Lives(url), settings=settings(stateful_step_count=60))
