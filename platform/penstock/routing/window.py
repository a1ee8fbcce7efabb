"""How many requests may be at one engine: a window that follows the time to first token.

The queue belongs in the gateway, where it is fair; an engine's own queue is first come, first served. So an
engine gets what it can begin at once and no more. Additive increase, multiplicative decrease (Chiu and
Jain, 1989), steered by the time to first token rather than by the length of answers, which differ by nature.
"""

from __future__ import annotations

DECREASE = 0.8
"""What the window shrinks by when first tokens come late."""


class Window:
    """The requests that one engine may have from this gateway; pure arithmetic, the clock is handed in."""

    def __init__(self, batch_max: int, target_s: float) -> None:
        """`batch_max` is the engine's largest running batch, `target_s` the time to first token aimed at."""
        self._most = float(batch_max)
        self._target_s = target_s
        self._size = float(batch_max)
        self.size = max(1, batch_max)
        """How many requests may be there now; never less than one."""
        self._settled_at_s = 0.0

    def has_room(self, in_flight: int) -> bool:
        """May one more request go there?"""
        return in_flight < self.size

    def first_token(self, took_s: float, in_flight: int, now_s: float) -> None:
        """Learn from a first token that came `took_s` after its request went to the engine.

        Late ones shrink the window once per such time: those that were sent before it shrank say nothing new.
        Early ones let it grow, as long as it is what limits.
        """
        if took_s > self._target_s:
            if now_s - took_s >= self._settled_at_s:
                self._size = max(1.0, self._size * DECREASE)
                self._settled_at_s = now_s
        elif in_flight >= self.size - 1:
            self._size = min(self._most, self._size + 1 / self._size)
        self.size = max(1, int(self._size))
