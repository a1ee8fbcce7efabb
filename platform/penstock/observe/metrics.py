"""The gateway's Prometheus metrics, shared by all of a machine's processes through PROMETHEUS_MULTIPROC_DIR.

No label ever carries a tenant, a key or text from a request: models are those of the catalog only.
The environment variable must be set before this module is imported (see sharing.py).
"""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)

REQUESTS = Counter("penstock_requests", "Requests answered", ["surface", "model", "status", "outcome"])
TOKENS = Counter("penstock_tokens", "Tokens metered", ["model", "kind"])
COST = Counter("penstock_cost_nano_usd", "Cost metered, nano-dollars", ["model"])
FIRST_TOKEN = Histogram(
    "penstock_time_to_first_token_seconds", "Request read to first token", ["model"], buckets=SECONDS
)
BETWEEN_TOKENS = Histogram(
    "penstock_time_between_tokens_seconds",
    "Mean gap between the output tokens of one streamed request",
    ["model"],
    buckets=TOKEN_SECONDS,
)
DURATION = Histogram(
    "penstock_request_duration_seconds", "Request read to last byte", ["surface", "model"], buckets=SECONDS
)
IN_FLIGHT = Gauge(
    "penstock_requests_in_flight", "Requests at an engine", ["model"], multiprocess_mode="livesum"
)

QUEUE_WAIT = Histogram(
    "penstock_queue_wait_seconds",
    "How long those requests waited that found no place at once, for a turn or for an engine to wake",
    ["model"],
    buckets=SECONDS,
)
QUEUE_REQUESTS = Gauge(
    "penstock_queue_requests", "Requests waiting in gateways", ["model"], multiprocess_mode="livesum"
)
QUEUE_TOKENS = Gauge(
    "penstock_queue_tokens",
    "Tokens that waiting requests will take at least, weighted",
    ["model"],
    multiprocess_mode="livesum",
)

ABORTS = Counter(
    "penstock_engine_aborts",
    "Requests that an engine was told to stop and that are charged, by what it said afterwards",
    ["result"],
)
BREAKERS_OPENED = Counter(
    "penstock_engine_breakers_opened",
    "Times that a gateway left an engine alone for a while since requests failed there",
    ["model"],
)
HEDGED = Counter(
    "penstock_hedged_requests",
    "Requests that were sent to a second engine since the first was late, by which of them answered first",
    ["model", "winner"],
)
IDEMPOTENCY = Counter(
    "penstock_idempotency_requests",
    "Requests with an Idempotency-Key or an SDK's retry id, by what became of them",
    ["result"],
)

CREDIT_OVERRUN = Counter(
    "penstock_credit_overrun_nano_usd", "Cost of prepaid requests beyond what was held for them"
)


class ModelFigures:
    """The labelled metrics of one model, looked up once: label lookups cost more than counting."""

    def __init__(self, model: str) -> None:
        self.input_tokens = TOKENS.labels(model, "input")
        self.cached_tokens = TOKENS.labels(model, "cached_input")
        self.output_tokens = TOKENS.labels(model, "output")
        self.cost = COST.labels(model)
        self.first_token = FIRST_TOKEN.labels(model)
        self.between_tokens = BETWEEN_TOKENS.labels(model)
        self.in_flight = IN_FLIGHT.labels(model)
        self.queue_wait = QUEUE_WAIT.labels(model)
        self.queue_requests = QUEUE_REQUESTS.labels(model)
        self.queue_tokens = QUEUE_TOKENS.labels(model)


@cache
def model_figures(model: str) -> ModelFigures:
    """The metrics of a model of the catalog (so there are not many)."""
    return ModelFigures(model)


@cache
def requests(surface: str, model: str, status: str, outcome: str) -> Counter:
    """The counter of requests that ended so; `model` is "" where the request named none of ours."""
    return REQUESTS.labels(surface, model, status, outcome)


@cache
def duration(surface: str, model: str) -> Histogram:
    """The histogram of whole request times."""
    return DURATION.labels(surface, model)


@cache
def idempotency(result: str) -> Counter:
    """The counter of requests that could be repeats, by what became of them (claimed, replayed, …)."""
    return IDEMPOTENCY.labels(result)


@cache
def aborts(result: str) -> Counter:
    """The counter of aborted requests: "stopped", "finished" by itself just before, or "unconfirmed"."""
    return ABORTS.labels(result)
