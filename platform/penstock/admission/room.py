"""Room on the engines: how many requests may be at one engine, and what is said when all are full."""

from __future__ import annotations

QUEUE_FACTOR = 2
"""Requests at an engine per place in its batch: one runs, one waits; the engine is busy, the wait short."""


class Overloaded(Exception):
    """Every engine of the model has as many requests as it should; try again after `retry_after_s`."""

    def __init__(self, model: str, retry_after_s: int) -> None:
        super().__init__(
            f"all engines of {model} are busy; nothing was billed, try again in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


def has_room(in_flight: int, batch_max: int) -> bool:
    """May one more request go to an engine whose batch holds `batch_max`?"""
    return in_flight < batch_max * QUEUE_FACTOR
