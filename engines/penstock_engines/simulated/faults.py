"""How a simulated engine breaks."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong. Tokens count from 1, over all choices of a request: at k, k - 1 have been sent."""

    die_at_token: int | None = None
    """The engine's process kills itself."""
    die_at_receipt: bool = False
    """The engine's process kills itself when it is asked for the count of a request that is over."""
    cut_at_token: int | None = None
    """The connection of this request breaks; the engine lives."""
    hang_at_token: int | None = None
    """From there on no request gets another token, and /health answers 200; until the faults are deleted."""
    error_at_token: int | None = None
    """An error comes as an event of the stream, then [DONE]; status 500 where the answer is not streamed."""
    error_text: str = "EngineCore encountered an issue. See stack trace for the root cause."
    without_usage: bool = False
    """No usage anywhere, whatever was asked."""
    status: int | None = None
    """Refused with this status before any work; 503 says what a full engine says."""
    sleepless: bool = False
    """It neither goes to sleep nor wakes up, and says that it does."""
    first_token_ms: float | None = None
    """This long before the first token."""
    cached_tokens: int = 0
    """Says that so many prompt tokens came from the cache (at most all of them)."""
    reasoning_tokens: int = 0
    """Says that each choice of a chat begins with so many tokens of reasoning."""
    deltas: list[msgspec.Raw] = []
    """What a streamed chat says instead of its own words: each token's `delta`, as a client is to read it."""

    @property
    def stepwise(self) -> bool:
        """Whether the tokens must be made one by one for it to happen."""
        points = (self.die_at_token, self.cut_at_token, self.hang_at_token, self.error_at_token)
        return any(point is not None for point in points) or self.first_token_ms is not None


NONE = Fault()
