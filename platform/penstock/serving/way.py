"""How a request came to the engine that it ended at: what its record says of the time before."""

from __future__ import annotations

import msgspec

from penstock.serving.call import Call
from penstock.serving.tickets import Slot


class Way(msgspec.Struct, frozen=True, gc=False):
    """The stages before the engine, in microseconds, and its choice; as penstock_billing.record says."""

    replica: str
    queue_us: int
    admit_us: int
    wait_us: int
    wake_us: int
    retries: int
    policy: str
    candidates: int
    pool_version: int
    hedged: bool


def headers(slot: Slot) -> list[tuple[bytes, bytes]]:
    """What an answer that had to wait says of it, in milliseconds."""
    told = [(b"x-penstock-queue-ms", b"%d" % (slot.waited_s * 1000))]
    if slot.wake_s:
        told.append((b"x-penstock-wake-ms", b"%d" % (slot.wake_s * 1000)))
    return told


def of(call: Call, slot: Slot, sent_ns: int) -> Way:
    """Describe the way of a call that was sent at a moment (time.perf_counter_ns())."""
    return Way(
        replica=slot.target.id,
        queue_us=(sent_ns - call.started_ns) // 1000,
        admit_us=(slot.ticket.admitted_ns - call.started_ns) // 1000,
        wait_us=int(slot.waited_s * 1e6),
        wake_us=int(slot.wake_s * 1e6),
        retries=slot.retries,
        policy=slot.policy,
        candidates=slot.candidates,
        pool_version=slot.target.registered.version,
        hedged=slot.hedges,
    )
