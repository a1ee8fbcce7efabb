"""Health is progress: what an engine's figures over time say about it. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from penstock_engines.scrape import EngineFigures


class Verdict(StrEnum):
    """What to do about an engine after a look at its figures."""

    WELL = "well"
    """It makes progress, or has not been still for long."""
    ASK = "ask"
    """It has had nothing to do for a while: only a real answer can tell whether it still works."""
    STALLED = "stalled"
    """It has work and makes no progress, or cannot even be asked."""


@dataclass(frozen=True)
class Patience:
    """How long an engine may be still."""

    stall_s: float = 60.0
    """With work and without any of it being done. One step with a long prompt may take seconds on a CPU."""
    idle_s: float = 30.0
    """Without work, before it is asked for a token."""


class Progress:
    """Remembers when an engine last worked."""

    def __init__(self, patience: Patience, now_s: float) -> None:
        self._patience = patience
        self._worked_s = now_s
        self._busy_s: float | None = None
        """Since when it has had work at every look."""
        self._done: tuple[float, ...] | None = None

    def observe(self, now_s: float, figures: EngineFigures | None) -> Verdict:
        """Judge the engine by what it shows now; None stands for figures that could not be read.

        What counts is work: tokens made, a prompt computed, cache filled by a part of a long prompt. That
        requests come and go does not: at an engine that hangs they do, as their clients lose patience.
        """
        if figures is None:
            still_s = now_s - self._worked_s
            return Verdict.STALLED if still_s >= self._patience.stall_s else Verdict.WELL
        done = _done(figures)
        if done != self._done:
            self._done = done
            self._worked_s = now_s
        busy = figures.running > 0 or figures.waiting > 0
        if not busy:
            self._busy_s = None
            return Verdict.ASK if now_s - self._worked_s >= self._patience.idle_s else Verdict.WELL
        if self._busy_s is None:
            self._busy_s = now_s
        still_s = now_s - max(self._worked_s, self._busy_s)
        return Verdict.STALLED if still_s >= self._patience.stall_s else Verdict.WELL

    def answered(self, now_s: float) -> None:
        """Count a real answer as work."""
        self._worked_s = now_s


def _done(figures: EngineFigures) -> tuple[float, ...]:
    """What only changes when the engine works."""
    return (
        figures.generation_tokens,
        figures.prompt_tokens,
        figures.cached_tokens,
        figures.kv_usage,
        figures.preemptions,
    )
