"""Searches and reckonings in a URL: what is read is what was written; nonsense is told by its parameter."""

from __future__ import annotations

import pytest

from penstock.edge.api.model_questions import check_compared, spoken, traffic_of, understand
from penstock.edge.refusals import BadRequest
from penstock_billing.estimates import Traffic
from penstock_catalog.cards import Capability, EndpointKind, Task
from penstock_catalog.search import Asked, Size, Sort, State

EVERYTHING = Asked(
    text="small <b> & fast",
    states=frozenset({State.LIVE, State.NOT_DEPLOYED}),
    tasks=frozenset({Task.CHAT}),
    capabilities=frozenset({Capability.TOOLS, Capability.VISION}),
    context_min=32_768,
    input_pico_usd_max=500_000,
    sizes=frozenset({Size.SMALL}),
    licences=frozenset({"Llama 3.1 Community License"}),
    endpoints=frozenset({EndpointKind.BATCH}),
    sort=Sort.SPEED,
)


def test_a_search_comes_back_as_it_was_written() -> None:
    assert understand(spoken(EVERYTHING)) == (EVERYTHING, [])
    assert spoken(Asked()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "talk"),
        ("capability", "<script>"),
        ("sort", "colour"),
        ("context", "-1"),
        ("context", "9" * 400),
        ("price", "1e999999999"),
        ("price", "0.1234567"),
        ("state", "alive"),
    ],
)
def test_what_cannot_be_meant_is_told_and_left_out(name: str, value: str) -> None:
    asked, problems = understand([("q", "qwen"), (name, value)])
    assert asked == Asked(text="qwen")
    assert [problem[0] for problem in problems] == [name]


def test_traffic_is_read_with_its_thousands_told_apart() -> None:
    traffic, problems = traffic_of(
        [("requests_per_day", "1,000,000"), ("input_tokens", " 12 "), ("model", "x")]
    )
    assert traffic == Traffic(requests_per_day=1_000_000, input_tokens=12)
    assert problems == {}


@pytest.mark.parametrize("value", ["-1", "1.5", "many", "99999999999", "٣"])
def test_traffic_that_is_no_number_is_told_beside_its_field(value: str) -> None:
    _, problems = traffic_of([("output_tokens", value)])
    assert set(problems) == {"output_tokens"}


def test_no_more_tokens_are_cached_than_there_are() -> None:
    _, problems = traffic_of([("input_tokens", "10"), ("cached_tokens", "11")])
    assert problems == {"cached_tokens": "at most the 10 input tokens can be cached"}


def test_at_most_four_are_compared_and_each_once() -> None:
    assert check_compared(["a", "b", "a"]) == ["a", "b"]
    with pytest.raises(BadRequest, match="at most 4"):
        check_compared(list("abcde"))
