"""Why a request that bears an idempotency key is not executed now."""

from __future__ import annotations

from penstock_base import money


class NotExecuted(Exception):
    """Any of the reasons below."""


class InvalidKey(NotExecuted):
    """The header is there, and is no key."""


class KeyReused(NotExecuted):
    """The key stands for another request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"this Idempotency-Key was used for another request ({request_id}): "
            "send the same method, path and body with it, or choose a new key"
        )
        self.request_id = request_id


class InProgress(NotExecuted):
    """The first request with this key is not done; try again after `retry_after_s`."""

    def __init__(self, request_id: str, retry_after_s: int) -> None:
        super().__init__(
            f"the first request with this key ({request_id}) is still in progress; "
            f"try again in {retry_after_s} s to get its answer"
        )
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class AnswerNotKept(NotExecuted):
    """The first request was answered, and its answer is too large or too secret to be kept."""

    def __init__(self, request_id: str, cost_nano_usd: int) -> None:
        super().__init__(
            f"the first request with this key ({request_id}) was answered{_and_cost(cost_nano_usd)}, "
            "and its answer was not kept; to execute it again, choose a new key"
        )
        self.request_id = request_id


class AnswerLost(NotExecuted):
    """The first request was charged, and nobody has its whole answer."""

    def __init__(self, request_id: str, cost_nano_usd: int) -> None:
        super().__init__(
            f"the first request with this key ({request_id}) was broken off{_and_cost(cost_nano_usd)}, "
            "so it is not executed again; to do so, choose a new key"
        )
        self.request_id = request_id


class OutcomeUnknown(NotExecuted):
    """The first request may or may not have taken effect."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"the first request with this key ({request_id}) broke off, and may have taken effect or not: "
            "look at what it should have changed; to execute it again, choose a new key"
        )
        self.request_id = request_id


class ClaimsUnavailable(NotExecuted):
    """The database does not answer, so it cannot be made sure that a request is executed only once."""


def _and_cost(cost_nano_usd: int) -> str:
    return f" and cost {money.nano_to_usd(cost_nano_usd)} US dollars" if cost_nano_usd else ""
