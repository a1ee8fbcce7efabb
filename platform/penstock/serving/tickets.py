"""What a request holds while it wants an engine, and while it has one; and how it may get none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from penstock.admission.fair_queue import Urgency
from penstock.routing.directory import Standing, Target
from penstock.routing.policy import Hint


class QueueFull(Exception):
    """As many requests wait as should; nothing was billed, try again after `retry_after_s`."""

    def __init__(self, model: str, limit: str, retry_after_s: int) -> None:
        super().__init__(f"{model} is busy: {limit}; nothing was billed, try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class NotServed(Exception):
    """No engine of the model came in time, or none will; nothing was billed."""

    def __init__(self, model: str, waited_s: float, standing: Standing) -> None:
        waited = f" within {waited_s:.0f} s" if waited_s else ""
        super().__init__(
            f"no engine of {model} became free{waited} ({standing}); nothing was billed, "
            f"try again in {standing.retry_after_s} s"
        )
        self.retry_after_s = standing.retry_after_s


class ClientGone(Exception):
    """The client left while its request waited."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that wants an engine."""

    model: str
    tenant: int
    weight: float
    urgency: Urgency
    hint: Hint
    tokens: float
    """What it will take, in weighted tokens, as far as can be said before: its prompt."""
    admitted_ns: int = 0
    """time.perf_counter_ns() when it was let in."""
    tell: Callable[[float, Standing], Awaitable[None]] | None = None
    """Told every TELL_EVERY_S while it waits: for how many seconds so far, and how the model stands."""
    tried: list[Target] = field(default_factory=list)
    """Engines that failed it."""
    turn: asyncio.Future[Slot] | None = None


@dataclass(slots=True, eq=False)
class Slot:
    """A place at an engine, to be given back once; more often does nothing."""

    ticket: Ticket
    target: Target
    charged: float
    """Weighted tokens that its tenant's counter stands higher for it."""
    policy: str
    """What chose the engine."""
    candidates: int
    """How many had room."""
    waited_s: float = 0.0
    wake_s: float = 0.0
    """How much of it no engine was ready."""
    retries: int = 0
    """How many engines failed it before this one."""
    hedge_after_s: float | None = None
    """How long its engine may bring nothing until a second one is asked as well; None: for ever."""
    hedges: bool = False
    """Whether it is the second engine's."""
    unread: bool = True
    """Whether its prompt counts as one that its engine has not read yet."""
    released: bool = False

    def mark_read(self) -> None:
        """Count its prompt no more as one that its engine has still to read; more often does nothing."""
        if self.unread:
            self.unread = False
            self.target.unread_tokens -= self.ticket.tokens
