from __future__ import annotations

from datetime import UTC, datetime

import pytest

from penstock_billing import price_history
from penstock_billing.price_history import Asked
from penstock_billing.prices import Assignment, MinutePriceVersion, PriceBook, PriceList, PriceVersion

OWN = 7


def on(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def version(id_: int, day: int, price_list_id: int = 1, model: str = "m") -> PriceVersion:
    return PriceVersion(id_, model, id_, id_, id_, on(day), price_list_id)


@pytest.fixture
def book() -> PriceBook:
    """Acme (42) pays by its own list from the 10th to the 20th; its list names `m` from the 15th on."""
    book = PriceBook()
    standard_minutes = MinutePriceVersion(1, "instance", "small", 5, on(3))
    own_minutes = MinutePriceVersion(2, "instance", "small", 6, on(18), OWN)
    book.fill(
        [version(1, 1), version(2, 12), version(3, 25), version(4, 15, OWN), version(5, 2, model="n")],
        [standard_minutes, own_minutes],
        [Assignment(1, 42, OWN, on(10)), Assignment(2, 42, 1, on(20))],
        [PriceList(1, "standard", "", on(1)), PriceList(OWN, "own", "", on(1))],
    )
    return book


def held(book: PriceBook, asked: Asked, at: int) -> list[tuple[int, int, str]]:
    found = price_history.of_model(book, asked, "m", on(at))
    return [(each.since.day, each.price.id, each.status.value) for each in found]


def test_an_organisations_prices_follow_its_lists_over_time(book: PriceBook) -> None:
    assert held(book, Asked(organisation_id=42), 16) == [
        (1, 1, "past"),
        (12, 2, "past"),
        (15, 4, "in force"),
        (20, 2, "scheduled"),
        (25, 3, "scheduled"),
    ]


def test_a_list_that_does_not_name_a_model_yet_follows_the_standard_one(book: PriceBook) -> None:
    assert held(book, Asked(price_list_id=OWN), 13) == [
        (1, 1, "past"),
        (12, 2, "in force"),
        (15, 4, "scheduled"),
    ]
    assert held(book, Asked(), 13) == [(1, 1, "past"), (12, 2, "in force"), (25, 3, "scheduled")]


def test_before_the_first_price_everything_is_scheduled(book: PriceBook) -> None:
    before = datetime(2025, 1, 1, tzinfo=UTC)
    found = price_history.of_model(book, Asked(), "m", before)
    assert {each.status.value for each in found} == {"scheduled"}


def test_models_and_minutes_of_whoever_asks_are_known(book: PriceBook) -> None:
    assert price_history.models(book, Asked(organisation_id=42)) == ["m", "n"]
    assert price_history.minutes(book, Asked()) == [("instance", "small")]
    of_acme = price_history.of_minutes(book, Asked(organisation_id=42), "instance", "small", on(19))
    assert [(each.since.day, each.price.id) for each in of_acme] == [(3, 1), (18, 2), (20, 1)]


def test_a_price_is_told_exactly_and_without_what_only_operators_see(book: PriceBook) -> None:
    (first, *_) = price_history.of_model(book, Asked(), "m", on(2))
    assert price_history.told(first, book) == {
        "model": "m",
        "status": "in force",
        "since": on(1),
        "price_version": 1,
        "list": "standard",
        "prices_usd": {"input": "0.000001", "cached_input": "0.000001", "output": "0.000001"},
        "batch_discount": "0%",
    }
