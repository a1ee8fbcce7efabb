"""Where a request's time went and what it cost: without a gap, in order, and adding up."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.edge.api import request_stages
from penstock.serving.dispatch import ADAPTER_AFFINITY
from penstock_base import money
from penstock_billing import rating
from penstock_billing.prices import PriceVersion
from penstock_billing.record import Funding, Outcome
from penstock_billing.requests import RecordedRequest
from penstock_engines.pool_settings import PolicyName

NOW = datetime(2026, 11, 21, tzinfo=UTC)
times = st.integers(-(2**40), 2**40)
few = st.integers(0, 5)
many = st.integers(0, 2**31 - 1)


def one(**changes: Any) -> RecordedRequest:
    fields: dict[str, Any] = {
        "event_id": UUID(int=1),
        "request_id": "req_1",
        "client_request_id": None,
        "ended_at": NOW,
        "project_id": 1,
        "key_id": "key",
        "endpoint": "",
        "surface": "chat.completions",
        "model": "m",
        "price_version": 1,
        "outcome": Outcome.DONE,
        "status": 200,
        "streamed": True,
        "replica": "a",
        "pool_version": 1,
        "policy": "least_load",
        "candidates": 2,
        "cost_nano_usd": 0,
        "funding": Funding.POSTPAID,
        "ledger_transaction_id": None,
        "batch": False,
        "hedged": False,
    }
    numbers = ("input", "cached", "output", "reasoning")
    fields |= {f"{name}_tokens": 0 for name in numbers}
    fields |= dict.fromkeys(("images", "audio_ms", "documents", "retries"), 0)
    parts = ("queue", "admit", "wait", "wake", "first_token", "duration")
    fields |= {f"{name}_us": 0 for name in parts}
    return RecordedRequest(**(fields | changes))


def names(request: RecordedRequest) -> list[str]:
    return [stage.stage for stage in request_stages.stages(request)]


@given(
    policy=st.sampled_from(["", *PolicyName, "a later one"]),
    retries=few,
    candidates=few,
    admit_us=times,
    wait_us=times,
    wake_us=times,
    queue_us=times,
    first_token_us=times,
    duration_us=times,
    outcome=st.sampled_from(list(Outcome)),
    streamed=st.booleans(),
)
def test_stages_follow_one_another_whatever_clocks_did(**fields: Any) -> None:
    stages = request_stages.stages(one(**fields))
    assert (stages[0].stage, stages[0].after_us, stages[-1].stage) == ("arrived", 0, "ended")
    at_us = 0
    for stage in stages:
        assert stage.after_us == at_us
        assert stage.took_us >= 0
        at_us += stage.took_us
    assert all(a.at <= b.at for a, b in itertools.pairwise(stages))


def test_each_stage_has_its_own_time() -> None:
    told = request_stages.stages(
        one(
            admit_us=1,
            wait_us=20,
            wake_us=15,
            retries=1,
            queue_us=30,
            first_token_us=100,
            duration_us=150,
        )
    )
    assert [(stage.stage, stage.took_us) for stage in told] == [
        ("arrived", 0),
        ("admitted", 1),
        ("woken", 15),
        ("queued", 5),
        ("retried", 9),
        ("sent", 0),
        ("worked", 70),
        ("answered", 50),
        ("ended", 0),
    ]


def test_records_from_before_say_less() -> None:
    old = one(policy="", candidates=0, pool_version=0, queue_us=10, first_token_us=20, duration_us=30)
    assert names(old) == ["arrived", "queued", "sent", "worked", "answered", "ended"]
    assert "chosen" not in " ".join(stage.note for stage in request_stages.stages(old))


def test_a_request_without_an_answer_says_so() -> None:
    assert names(one(duration_us=30, outcome=Outcome.STALLED))[-2:] == ["worked", "ended"]


def test_every_outcome_and_policy_has_its_words() -> None:
    assert set(request_stages.MEANINGS) == set(Outcome)
    assert set(request_stages.POLICIES) == {*PolicyName, ADAPTER_AFFINITY}


@given(
    st.tuples(*[many] * 6),
    st.tuples(*[st.integers(0, 10**9)] * 6),
    st.sampled_from(list(Outcome)),
    st.booleans(),
    st.integers(0, 1_000_000),
)
def test_charges_add_up_to_the_cost(
    counts: tuple[int, ...], prices: tuple[int, ...], outcome: Outcome, batch: bool, off_ppm: int
) -> None:
    inputs, cached, output, images, audio_ms, documents = counts
    cached = min(cached, inputs)
    price = PriceVersion(
        1,
        "m",
        *prices[:3],
        valid_from=NOW,
        image_pico_usd=prices[3],
        audio_second_pico_usd=prices[4],
        document_pico_usd=prices[5],
        batch_discount_ppm=off_ppm,
    )
    units = {"images": images, "audio_ms": audio_ms, "documents": documents}
    tokens = {"input_tokens": inputs, "cached_tokens": cached, "output_tokens": output}
    cost = rating.cost_nano_usd(price, **tokens, **units, batch=batch) if outcome.billable else 0
    request = one(**tokens, **units, outcome=outcome, cost_nano_usd=cost, batch=batch)
    with localcontext(prec=60):
        exact = sum((Decimal(each.usd) for each in request_stages.charges(request, price)), Decimal(0))
        total = request_stages.total(request, price)
        assert Decimal(total.usd) == exact
        paid = exact * (1_000_000 - (off_ppm if batch else 0)) / 1_000_000
        assert Decimal(total.paid_usd) == paid
        assert abs(paid * 10**9 - cost) <= Decimal("0.5")
    # The arithmetic that a page shows ends at the cost that was stored, whatever was used.
    assert total.rounded_usd == money.nano_to_usd(cost)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"candidates": 1}, "the only engine with room"),
        ({"candidates": 3}, "chosen from 3 engines by least_load, which prefers the one with the fewest"),
        ({"policy": "", "pool_version": 4}, "to a (pool version 4)"),
        ({"policy": "a later one"}, "by a later one"),
        ({"policy": "adapter_affinity"}, "which prefers the one that has the adapter loaded"),
        ({"hedged": True}, "a second engine was asked too"),
    ],
)
def test_why_that_engine(changes: dict[str, Any], says: str) -> None:
    (sent,) = [stage for stage in request_stages.stages(one(**changes)) if stage.stage == "sent"]
    assert says in sent.note
