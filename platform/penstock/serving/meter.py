"""Settling: one usage record per request, priced and in the journal before the last byte leaves."""

from __future__ import annotations

import time

from penstock.observe import logs, metrics
from penstock.serving.call import Call
from penstock.serving.usage import EngineUsage
from penstock.serving.way import Way
from penstock_billing import rating
from penstock_billing.errors import JournalError
from penstock_billing.journal import Journal
from penstock_billing.progress import Progress
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.unrecorded import Unrecorded


class Settlement:
    """How a request ended, as far as its relay knows."""

    __slots__ = ("first_data_ns", "outcome", "status", "usage", "way")

    def __init__(
        self, outcome: Outcome, status: int, usage: EngineUsage, way: Way, *, first_data_ns: int
    ) -> None:
        self.outcome = outcome
        self.status = status
        self.usage = usage
        self.way = way
        self.first_data_ns = first_data_ns


class Meter:
    """Writes what requests used; a record that cannot be written is the request's error, not a log line."""

    def __init__(self, journal: Journal, progress: Progress | None = None) -> None:
        """Without `progress`, what streams have used when this process is killed is charged to nobody."""
        self.unrecorded = Unrecorded()
        self._journal = journal
        self._progress = progress

    def begin(self, call: Call) -> None:
        """Say that a stream runs: from here on until it is settled it can be noted."""
        if self._progress is not None:
            self._progress.begin(call.event_id)

    def note(self, call: Call, so_far: Settlement) -> None:
        """Note what a stream has used: its charge if this process is killed. Does nothing after `settle`."""
        if self._progress is not None:
            self._progress.note(_record(call, so_far, time.perf_counter_ns()))

    def settle(self, call: Call, end: Settlement) -> UsageRecord:
        """Price what was used and append it to the journal.

        Raises penstock_billing.errors.JournalError: nothing is charged, and the answer's end must not leave.
        """
        now_ns = time.perf_counter_ns()
        record = _record(call, end, now_ns)
        try:
            self._journal.append(record)
        except JournalError as error:
            self.unrecorded.note(record.request_id, type(error).__name__)
            raise
        finally:
            # Afterwards: of a kill in between, both are found, and the final record is preferred.
            if self._progress is not None:
                self._progress.end(call.event_id)
        call.charge.settle(record.cost_nano_usd)
        if call.on_settled is not None:
            call.on_settled(record)
        _show(record, call, end, now_ns)
        return record


def _record(call: Call, end: Settlement, now_ns: int) -> UsageRecord:
    """The record of a call that ended, or would have ended, so."""
    usage, way = end.usage, end.way
    return UsageRecord(
        event_id=call.event_id,
        ended_ms=time.time_ns() // 1_000_000,
        organisation_id=call.principal.organisation_id,
        project_id=call.principal.project_id,
        key_id=call.principal.key_id,
        request_id=call.request_id,
        client_request_id=call.client_request_id,
        surface=call.surface.value,
        model=call.model,
        price_version=call.price.id,
        input_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        outcome=end.outcome,
        status=end.status,
        streamed=call.streamed,
        queue_us=way.queue_us,
        first_token_us=(end.first_data_ns - call.started_ns) // 1000 if end.first_data_ns else 0,
        duration_us=(now_ns - call.started_ns) // 1000,
        replica=way.replica,
        cost_nano_usd=(
            rating.cost_nano_usd(
                call.price,
                input_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                output_tokens=usage.output_tokens,
            )
            if end.outcome.billable
            else 0
        ),
        endpoint=call.endpoint,
        funding=call.charge.funding,
        wallet_project_id=call.charge.wallet_project_id,
        admit_us=way.admit_us,
        wait_us=way.wait_us,
        wake_us=way.wake_us,
        retries=way.retries,
        policy=way.policy,
        candidates=way.candidates,
        pool_version=way.pool_version,
        hedged=way.hedged,
    )


def _show(record: UsageRecord, call: Call, end: Settlement, now_ns: int) -> None:
    """Count the request in the metrics and write its log line."""
    # Without the adapter: figures are kept for every model for ever.
    model, surface = call.card.id, record.surface
    figures = metrics.model_figures(model)
    metrics.requests(surface, model, str(record.status), record.outcome.value).inc()
    metrics.duration(surface, model).observe(record.duration_us / 1e6)
    figures.input_tokens.inc(record.input_tokens - record.cached_tokens)
    figures.output_tokens.inc(record.output_tokens)
    figures.cost.inc(record.cost_nano_usd)
    if record.wait_us:
        figures.queue_wait.observe(record.wait_us / 1e6)
    if record.cached_tokens:
        figures.cached_tokens.inc(record.cached_tokens)
    if record.streamed and record.first_token_us:
        figures.first_token.observe(record.first_token_us / 1e6)
        if record.output_tokens > call.n:
            gaps = record.output_tokens / (call.n * call.prompts) - 1
            if gaps >= 1:
                figures.between_tokens.observe((now_ns - end.first_data_ns) / 1e9 / gaps)
    logs.request(
        logs.RequestLine(
            request_id=record.request_id,
            client_request_id=record.client_request_id,
            organisation_id=record.organisation_id,
            key_id=record.key_id,
            surface=surface,
            model=record.model,
            replica=record.replica,
            status=record.status,
            outcome=record.outcome.value,
            queue_ms=record.queue_us // 1000,
            wake_ms=record.wake_us // 1000,
            retries=record.retries,
            duration_ms=record.duration_us // 1000,
            first_token_ms=record.first_token_us // 1000 or None,
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
            cost_nano_usd=record.cost_nano_usd,
        )
    )
