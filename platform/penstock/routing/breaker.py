"""The circuit breaker of one engine: after failures in a row it is left alone, then tried with one request.

Nygard, "Release It!" (2007). It stands beside the controller's health checks, which see an engine every few
seconds: a gateway sees it fail at once.
"""

from __future__ import annotations

FAILURES_MAX = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Breaker:
    """Whether an engine may be sent requests; the clock is handed in."""

    __slots__ = ("_failures", "_pause_s", "_probing", "_until_s")

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._until_s = 0.0
        self._probing = False

    def allows(self, now_s: float) -> bool:
        """May a request go there now? After a pause only one may, until it is known how it went."""
        return self._failures < FAILURES_MAX or (now_s >= self._until_s and not self._probing)

    def sent(self) -> None:
        """A request went there."""
        self._probing = self._failures >= FAILURES_MAX

    def worked(self) -> None:
        """The engine answered."""
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._probing = False

    def failed(self, now_s: float) -> None:
        """The engine failed a request that was not at fault."""
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self._until_s = now_s + self._pause_s
            if self._probing:
                self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        self._probing = False
