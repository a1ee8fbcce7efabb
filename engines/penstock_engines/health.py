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
    """With work and without any figure moving. One step with a long prompt may take seconds on a CPU."""
    idle_s: float = 30.0
    """Without work, before it is asked for a token."""


class Progress:
    """Remembers when an engine last moved."""

    def __init__(self, patience: Patience, now_s: float) -> None:
        self._patience = patience
        self._moved_s = now_s
        self._last: EngineFigures | None = None

    def observe(self, now_s: float, figures: EngineFigures | None) -> Verdict:
        """Judge the engine by what it shows now; None stands for figures that could not be read.

        Any change counts: tokens made, a prompt computed, cache filled by a part of a long prompt, a request
        that came or went.
        """
        if figures is not None and figures != self._last:
            self._last = figures
            self._moved_s = now_s
            return Verdict.WELL
        still_s = now_s - self._moved_s
        busy = figures is None or figures.running > 0 or figures.waiting > 0
        if busy:
            return Verdict.STALLED if still_s >= self._patience.stall_s else Verdict.WELL
        return Verdict.ASK if still_s >= self._patience.idle_s else Verdict.WELL

    def answered(self, now_s: float) -> None:
        """Count a real answer as movement."""
        self._moved_s = now_s
