from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from penstock_billing.prices import Assignment, MinutePriceVersion, PriceBook, PriceVersion


def version(id_: int, model: str, day: int) -> PriceVersion:
    return PriceVersion(id_, model, id_, id_, id_, datetime(2026, 1, day, tzinfo=UTC))


def at(day: int) -> float:
    return datetime(2026, 1, day, 12, tzinfo=UTC).timestamp()


def test_the_latest_version_that_has_begun_is_in_force() -> None:
    book = PriceBook()
    book.fill([version(3, "a", 20), version(1, "a", 1), version(2, "a", 10), version(4, "b", 1)])
    assert [book.current("a", at_s=at(day)) for day in (5, 10, 25)] == [
        book.version(1),
        book.version(2),
        book.version(3),
    ]
    assert book.current("b", at_s=at(5)) == book.version(4)


def test_a_model_without_a_price_in_force_has_none() -> None:
    book = PriceBook()
    book.fill([version(1, "a", 10)])
    assert book.current("a", at_s=at(9)) is None
    assert book.current("unknown") is None
    assert book.version(9) is None


def test_filling_again_forgets_what_is_gone() -> None:
    book = PriceBook()
    book.fill([version(1, "a", 1)])
    book.fill([version(2, "b", 1)])
    assert book.current("a") is None
    assert book.version(1) is None
    assert book.current("b") == version(2, "b", 1)


def moment(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def test_an_organisations_own_list_counts_from_its_assignment_on_and_only_for_what_it_names() -> None:
    book = PriceBook()
    standard = [version(1, "a", 1), version(2, "b", 1)]
    own = PriceVersion(3, "a", 9, 9, 9, moment(1), price_list_id=7)
    book.fill(
        [*standard, own], assignments=[Assignment(1, 42, 7, moment(10)), Assignment(2, 42, 1, moment(20))]
    )
    assert [book.current("a", 42, at(day)) for day in (5, 15, 25)] == [standard[0], own, standard[0]]
    assert book.current("b", 42, at(15)) == standard[1]
    assert book.current("a", 43, at(15)) == standard[0]


def test_of_two_that_begin_together_the_one_added_later_counts() -> None:
    book = PriceBook()
    book.fill(
        [version(2, "a", 5), version(1, "a", 5)],
        assignments=[Assignment(1, 42, 7, moment(5)), Assignment(2, 42, 1, moment(5))],
    )
    assert book.current("a", at_s=at(6)) == version(2, "a", 5)
    assert book.list_id(42, at(6)) == 1


def minute(id_: int, day: int, price_list_id: int = 1) -> MinutePriceVersion:
    return MinutePriceVersion(id_, "instance", "cpu-small", id_ * 1000, moment(day), price_list_id)


def test_minutes_fall_back_to_the_standard_list_too() -> None:
    book = PriceBook()
    book.fill([], [minute(1, 2), minute(2, 5, 7)], [Assignment(1, 42, 7, moment(1))])
    assert [book.minute_price("instance", "cpu-small", 42, at(day)) for day in (1, 3, 6)] == [
        None,
        minute(1, 2),
        minute(2, 5, 7),
    ]
    assert book.minute_price("endpoint", "cpu-small", 42, at(6)) is None
    assert book.minute_version(2) == minute(2, 5, 7)


def test_a_stretch_of_time_is_cut_where_the_price_of_a_minute_changes() -> None:
    book = PriceBook()
    book.fill(
        [],
        [minute(1, 3), minute(2, 6), minute(3, 1, 7), minute(4, 5, 9)],
        [Assignment(1, 42, 7, moment(8))],
    )
    since_s, until_s = at(2), at(9)
    spans = book.minute_spans("instance", "cpu-small", 42, since_s, until_s)
    begins = [since_s, *(moment(day).timestamp() for day in (3, 6, 8))]
    assert [(span.since_s, span.until_s) for span in spans] == list(
        zip(begins, [*begins[1:], until_s], strict=True)
    )
    assert [span.price and span.price.id for span in spans] == [None, 1, 2, 3]
    assert book.minute_spans("instance", "cpu-small", 42, since_s, since_s) == []


moments = st.integers(1, 6)
versions = st.lists(st.tuples(st.sampled_from([1, 7, 8]), st.sampled_from("ab"), moments), max_size=12)
assignments = st.lists(st.tuples(st.sampled_from([42, 43]), st.sampled_from([1, 7, 8]), moments), max_size=6)


@given(versions, assignments, st.sampled_from("ab"), st.sampled_from([42, 43]), moments)
def test_the_book_finds_what_looking_at_every_row_finds(
    offered: list[tuple[int, str, int]],
    assigned: list[tuple[int, int, int]],
    model: str,
    organisation: int,
    day: int,
) -> None:
    rows = [PriceVersion(n, name, n, n, n, moment(on), of) for n, (of, name, on) in enumerate(offered)]
    book = PriceBook()
    book.fill(rows, (), [Assignment(n, who, of, moment(on)) for n, (who, of, on) in enumerate(assigned)])

    def latest(list_id: int) -> PriceVersion | None:
        fit = [each for each in rows if (each.price_list_id, each.model) == (list_id, model)]
        return max(
            (each for each in fit if each.valid_from <= moment(day)),
            key=lambda each: (each.valid_from, each.id),
            default=None,
        )

    mine = [(on, n, of) for n, (who, of, on) in enumerate(assigned) if who == organisation and on <= day]
    expected = latest(max(mine)[2] if mine else 1) or latest(1)
    assert book.current(model, organisation, moment(day).timestamp()) == expected
