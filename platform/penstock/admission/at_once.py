"""How many requests run at once, over all gateways, without waiting for any of them.

Each gateway adds what it lets in to a shared counter and takes out what ended. A gateway that was killed
takes nothing out; so there is a new counter every `TURN_S` seconds, to which each gateway first adds what it
has running, and what nobody vouches for is forgotten with the old one.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.admission.shared_counters import SharedCounters

TURN_S = 10
"""A killed gateway's requests count no longer than this and `GRACE_S`."""
GRACE_S = 2
"""After a turn, others' last known counts hold until they have added theirs to the new counter."""
KEEP_S = 3 * TURN_S


class AtOnce:
    """What runs now, by scope."""

    def __init__(self, counters: SharedCounters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._turn = int(clock() // TURN_S)
        self._running: dict[str, int] = {}
        """Here, by scope."""
        self._looked: set[str] = set()
        """Scopes whose counter of this turn is known here."""
        self._others_before: dict[str, float] = {}
        """What ran elsewhere when the last turn ended."""

    def count(self, scope: str) -> int:
        """How many run, everywhere, as far as is known here; asks to know it better the next time."""
        self.turn()
        name = self._name(scope)
        self._counters.look(name)
        self._looked.add(scope)
        here = self._running.get(scope, 0)
        others = max(0.0, self._counters.sum(name) - here)
        if self._clock() % TURN_S < GRACE_S:
            others = max(others, self._others_before.get(scope, 0.0))
        return here + round(others)

    def enter(self, scope: str) -> None:
        """One more runs here."""
        self.turn()
        self._running[scope] = self._running.get(scope, 0) + 1
        self._add(scope, 1)

    def leave(self, scope: str) -> None:
        """One of those here is over."""
        self.turn()
        left = self._running[scope] - 1
        if left:
            self._running[scope] = left
        else:
            del self._running[scope]
        self._add(scope, -1)

    def turn(self) -> None:
        """Go over to the present counters, if that was not done yet."""
        turn = int(self._clock() // TURN_S)
        if turn == self._turn:
            return
        self._others_before = {}
        for scope in self._looked:
            name = self._name(scope)
            others = self._counters.sum(name) - self._running.get(scope, 0)
            if turn == self._turn + 1 and others > 0:
                self._others_before[scope] = others
            self._counters.forget(name)
        self._turn = turn
        self._looked = set()
        for scope, running in self._running.items():
            self._add(scope, running)

    def until_next_s(self) -> float:
        """Until the next turn."""
        return TURN_S - self._clock() % TURN_S

    def _add(self, scope: str, amount: int) -> None:
        self._counters.add(self._name(scope), amount, KEEP_S)
        self._looked.add(scope)

    def _name(self, scope: str) -> str:
        return f"{scope}:at once:{self._turn}"
