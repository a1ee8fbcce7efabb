"""The circuit breaker of one engine: after failures in a row it is left alone, then tried with one request.

Nygard, "Release It!" (2007). It stands beside the controller's health checks, which see an engine every few
seconds: a gateway sees it fail at once. What counts is progress: an engine that takes requests and makes no
tokens fails them, whatever it says of itself.
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

    @property
    def opened(self) -> bool:
        """Whether it is left alone, or being tried."""
        return self._failures >= FAILURES_MAX

    def allows(self, now_s: float) -> bool:
        """May a request go there now? After a pause only one may, until it is known how it went."""
        return self._failures < FAILURES_MAX or (now_s >= self._until_s and not self._probing)

    def sent(self) -> None:
        """A request went there."""
        self._probing = self._failures >= FAILURES_MAX

    def answers(self) -> None:
        """The engine makes tokens. If it was being tried, more may go there, until one fails."""
        if self._failures >= FAILURES_MAX:
            self._failures = FAILURES_MAX - 1
            self._probing = False

    def worked(self) -> None:
        """The engine gave an answer to its end."""
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._probing = False

    def undecided(self) -> None:
        """A request ended without telling anything of the engine; if it was the one to try it, another is."""
        self._probing = False

    def failed(self, now_s: float, *, surely: bool = False) -> bool:
        """The engine failed a request that was not at fault; `surely`: nobody is there to take any.

        True where it is left alone from now on, for a pause that doubles until an answer comes to its end.
        """
        if self._failures >= FAILURES_MAX and not self._probing:
            return False  # it was sent before the others failed, and tells nothing new
        self._failures = FAILURES_MAX if surely else min(FAILURES_MAX, self._failures + 1)
        self._probing = False
        if self._failures < FAILURES_MAX:
            return False
        self._until_s = now_s + self._pause_s
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        return True
