"""The one table from what went wrong inside to what is said outside: status, code, headers and body.

Each API has its own shape for the same problem: OpenAI's error object under /v1, RFC 9457 elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.access.invitations import AlreadyMember
from penstock.access.issuing import KeyRevoked
from penstock.access.keyring import InvalidKey, KeysUnavailable
from penstock.access.members import LastOwner
from penstock.access.names import NameRefused
from penstock.access.people import BadPerson
from penstock.access.projects import ProjectExists
from penstock.access.roles import RoleTooLow
from penstock.adapters.errors import (
    AdapterRefused,
    AdapterTooLarge,
    NoRoom,
    TooManyUploads,
    UnknownAdapter,
)
from penstock.admission.budgets import BudgetExceeded, BudgetHeld
from penstock.admission.credit.errors import CreditHeld, CreditUnavailable, DebtLimit, InsufficientCredit, usd
from penstock.admission.idempotency import errors as idempotency
from penstock.admission.limits import LimitExceeded, WrongTask
from penstock.admission.rates import RateLimited
from penstock.edge import rate_headers
from penstock.edge.refusals import (
    BadRequest,
    BodyTooLarge,
    Forbidden,
    NoPrice,
    NotFound,
    Starting,
    UnknownModel,
    UnsupportedMedia,
)
from penstock.endpoints.book import EndpointSuspended, WrongEndpoint
from penstock.endpoints.serverless import UnknownEndpoint
from penstock.serving.attempt import EngineFailed, EngineRefused, MeteringFailed
from penstock.serving.call import Surface
from penstock.serving.tickets import NotServed, QueueFull

Headers = list[tuple[bytes, bytes]]


class Problem(msgspec.Struct, frozen=True):
    """What a client is told."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    more: tuple[tuple[str, str | int], ...] = ()
    """Further fields of the body, for programs."""

    @property
    def kind(self) -> str:
        """OpenAI's `type`: whose mistake it was."""
        if self.status == 402:
            return "insufficient_quota"
        if self.status == 429:
            return "rate_limit_error"
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def openai(self) -> bytes:
        """The error body that OpenAI's clients read."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        error |= dict(self.more)
        return msgspec.json.encode({"error": error})

    def rfc9457(self) -> bytes:
        """The body of `application/problem+json` (RFC 9457), with the code and field as extensions."""
        fields: dict[str, Any] = {"status": self.status, "code": self.code, "detail": self.message}
        if self.param is not None:
            fields["param"] = self.param
        fields |= dict(self.more)
        return msgspec.json.encode({"type": "about:blank", "title": self.code.replace("_", " "), **fields})


INTERNAL = Problem(500, "internal_error", "something went wrong on our side; nothing was billed")

UNAUTHORIZED = ((b"www-authenticate", b'Bearer realm="penstock"'),)
CLOSE = ((b"connection", b"close"),)


def retry_after(seconds: int) -> tuple[tuple[bytes, bytes], ...]:
    """The header that tells a client how long to wait, in whole seconds."""
    return ((b"retry-after", b"%d" % seconds),)


def rate_limited(error: RateLimited) -> Problem:
    """Name the limit, what is allowed and what is used of it; say when to come back."""
    more = (
        ("scope", error.scope),
        ("limit", error.limit),
        ("allowed", error.most),
        ("used", error.used),
    )
    headers = (*retry_after(error.retry_after_s), *rate_headers.headers(error.rooms))
    return Problem(429, "rate_limit_exceeded", str(error), headers=headers, more=more)


def first_request(error: Any) -> tuple[tuple[bytes, bytes], ...]:
    """Headers that name the request in the way, and keep OpenAI's clients from trying on."""
    return ((b"x-original-request-id", error.request_id.encode()), (b"x-should-retry", b"false"))


def budget_exceeded(error: BudgetExceeded) -> Problem:
    """Name the budget, its limit, what is spent, and when it begins anew."""
    more: list[tuple[str, str | int]] = [
        ("budget", str(error.budget.id)),
        ("scope", error.scope),
        ("period", error.budget.period.value),
        ("limit_usd", usd(error.budget.plan.limit_nano_usd)),
        ("spent_usd", usd(error.spent_nano_usd)),
        ("needed_usd", usd(error.needed_nano_usd)),
    ]
    if error.resets_at is not None:
        more.append(("resets_at", error.resets_at.isoformat()))
    return Problem(402, "budget_exceeded", str(error), more=tuple(more))


TABLE: dict[type[Exception], Callable[[Any], Problem]] = {
    InvalidKey: lambda e: Problem(401, "invalid_api_key", str(e), headers=UNAUTHORIZED),
    KeysUnavailable: lambda e: Problem(503, "key_check_unavailable", str(e), headers=retry_after(1)),
    BadRequest: lambda e: Problem(400, e.code, str(e), e.param),
    BodyTooLarge: lambda e: Problem(413, "request_too_large", str(e), headers=CLOSE),
    UnsupportedMedia: lambda e: Problem(415, "unsupported_media_type", str(e), headers=CLOSE),
    UnknownEndpoint: lambda e: Problem(404, "endpoint_not_found", str(e)),
    WrongEndpoint: lambda e: Problem(401, "wrong_endpoint", str(e), headers=UNAUTHORIZED),
    EndpointSuspended: lambda e: Problem(403, "endpoint_suspended", str(e)),
    Forbidden: lambda e: Problem(403, "forbidden", str(e)),
    RoleTooLow: lambda e: Problem(
        403,
        "role_too_low",
        f"{e}: use a key that has it, or ask an owner of the organisation for one",
        more=(("role", e.has.value), ("needed_role", e.needed.value)),
    ),
    NameRefused: lambda e: Problem(400, "invalid_value", str(e), "name"),
    ProjectExists: lambda e: Problem(409, "project_exists", str(e), "name"),
    KeyRevoked: lambda e: Problem(409, "key_revoked", str(e)),
    AlreadyMember: lambda e: Problem(409, "already_member", str(e), e.field),
    BadPerson: lambda e: Problem(400, "invalid_value", str(e), e.field),
    LastOwner: lambda e: Problem(409, "last_owner", str(e)),
    NotFound: lambda e: Problem(404, "not_found", str(e)),
    Starting: lambda e: Problem(503, "starting", str(e), headers=retry_after(e.retry_after_s)),
    UnknownModel: lambda e: Problem(404, "model_not_found", str(e), "model"),
    AdapterRefused: lambda e: Problem(400, "adapter_refused", str(e), e.field),
    AdapterTooLarge: lambda e: Problem(413, "adapter_too_large", str(e), e.field, CLOSE),
    TooManyUploads: lambda e: Problem(
        429, "too_many_uploads", str(e), headers=(*retry_after(e.retry_after_s), *CLOSE)
    ),
    UnknownAdapter: lambda e: Problem(404, "adapter_not_found", str(e)),
    NoRoom: lambda e: Problem(507, "no_room", str(e), headers=CLOSE),
    WrongTask: lambda e: Problem(400, "model_task_mismatch", str(e), "model"),
    LimitExceeded: lambda e: Problem(400, "limit_exceeded", str(e), e.param),
    QueueFull: lambda e: Problem(429, "queue_full", str(e), headers=retry_after(e.retry_after_s)),
    RateLimited: rate_limited,
    NotServed: lambda e: Problem(503, "model_not_ready", str(e), "model", retry_after(e.retry_after_s)),
    NoPrice: lambda e: Problem(503, "model_without_price", str(e), "model", retry_after(e.retry_after_s)),
    InsufficientCredit: lambda e: Problem(
        402,
        "insufficient_credit",
        str(e),
        more=(
            ("needed_usd", usd(e.needed_nano_usd)),
            ("available_usd", usd(e.available_nano_usd)),
        ),
    ),
    DebtLimit: lambda e: Problem(
        402,
        "debt_limit_reached",
        str(e),
        more=(("owed_usd", usd(e.owed_nano_usd)), ("limit_usd", usd(e.owed_max_nano_usd))),
    ),
    BudgetExceeded: budget_exceeded,
    BudgetHeld: lambda e: Problem(429, "budget_held", str(e), headers=retry_after(e.retry_after_s)),
    CreditHeld: lambda e: Problem(429, "credit_held", str(e), headers=retry_after(e.retry_after_s)),
    CreditUnavailable: lambda e: Problem(
        503, "credit_unavailable", str(e), headers=retry_after(e.retry_after_s)
    ),
    EngineRefused: lambda e: engine_refusal(e.surface, e.status, e.body),
    EngineFailed: lambda e: Problem(502, "engine_failed", str(e), headers=retry_after(1)),
    MeteringFailed: lambda e: Problem(503, "metering_unavailable", str(e), headers=retry_after(5)),
    idempotency.InvalidKey: lambda e: Problem(400, "invalid_idempotency_key", str(e), "Idempotency-Key"),
    idempotency.KeyReused: lambda e: Problem(
        422, "idempotency_key_reused", str(e), "Idempotency-Key", first_request(e)
    ),
    idempotency.InProgress: lambda e: Problem(
        409, "idempotency_in_progress", str(e), headers=retry_after(e.retry_after_s)
    ),
    idempotency.AnswerNotKept: lambda e: Problem(
        409, "idempotency_answer_not_kept", str(e), headers=first_request(e)
    ),
    idempotency.AnswerLost: lambda e: Problem(
        409, "idempotency_answer_lost", str(e), headers=first_request(e)
    ),
    idempotency.OutcomeUnknown: lambda e: Problem(
        409, "idempotency_outcome_unknown", str(e), headers=first_request(e)
    ),
    idempotency.ClaimsUnavailable: lambda e: Problem(
        503, "idempotency_unavailable", str(e), headers=retry_after(1)
    ),
}


def of(error: Exception) -> Problem | None:
    """The problem of a known error; None for one that nobody foresaw."""
    made = TABLE.get(type(error))
    return made(error) if made else None


class EngineError(msgspec.Struct):
    """vLLM's error object."""

    message: str = ""
    param: str | None = None


class EngineErrorBody(msgspec.Struct):
    """vLLM's error body."""

    error: EngineError


TOO_LONG = re.compile(r"maximum context length|max_model_len|longer than the maximum", re.IGNORECASE)
ADAPTER_LOST = re.compile(r"LoRA adapter|The model `[0-9a-f]{64}` does not exist")
"""An engine that cannot find or read what it was asked for by its content: our mistake, not the client's."""
PROMPT_FIELDS = {Surface.CHAT: "messages", Surface.COMPLETIONS: "prompt", Surface.EMBEDDINGS: "input"}
"""Where each surface has what the model reads."""
ENGINE_PATH = re.compile(r"^body\.")


def engine_refusal(surface: Surface, status: int, body: bytes) -> Problem:
    """Put an engine's own refusal into our words: its 4xx is the client's mistake, its 5xx is ours."""
    try:
        error = msgspec.json.decode(body, type=EngineErrorBody).error
    except msgspec.MsgspecError:
        error = EngineError()
    if status in {429, 503}:
        return Problem(
            429, "engine_overloaded", "the engine is full; nothing was billed", headers=retry_after(1)
        )
    if status >= 500 or not error.message:
        return Problem(502, "engine_failed", "the engine failed; nothing was billed", headers=retry_after(1))
    if ADAPTER_LOST.search(error.message):
        return Problem(
            503,
            "adapter_not_loaded",
            "the engine could not load this adapter; nothing was billed, try again shortly",
            "model",
            retry_after(5),
        )
    param = ENGINE_PATH.sub("", error.param) if error.param else None
    if TOO_LONG.search(error.message):
        field = param if param in {"max_tokens", "max_completion_tokens"} else PROMPT_FIELDS[surface]
        return Problem(400, "context_length_exceeded", error.message, field)
    return Problem(400, "invalid_value", error.message, param)
