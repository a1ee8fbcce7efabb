from __future__ import annotations

from datetime import UTC, datetime

from penstock_billing.prices import PriceBook, PriceVersion


def version(id_: int, model: str, day: int) -> PriceVersion:
    return PriceVersion(id_, model, id_, id_, id_, datetime(2026, 1, day, tzinfo=UTC))


def at(day: int) -> float:
    return datetime(2026, 1, day, 12, tzinfo=UTC).timestamp()


def test_the_latest_version_that_has_begun_is_in_force() -> None:
    book = PriceBook()
    book.fill([version(3, "a", 20), version(1, "a", 1), version(2, "a", 10), version(4, "b", 1)])
    assert [book.current("a", at(day)) for day in (5, 10, 25)] == [
        book.version(1),
        book.version(2),
        book.version(3),
    ]
    assert book.current("b", at(5)) == book.version(4)


def test_a_model_without_a_price_in_force_has_none() -> None:
    book = PriceBook()
    book.fill([version(1, "a", 10)])
    assert book.current("a", at(9)) is None
    assert book.current("unknown") is None
    assert book.version(9) is None


def test_filling_again_forgets_what_is_gone() -> None:
    book = PriceBook()
    book.fill([version(1, "a", 1)])
    book.fill([version(2, "b", 1)])
    assert book.current("a") is None
    assert book.version(1) is None
    assert book.current("b") == version(2, "b", 1)
