from __future__ import annotations

import datetime

from penstock.adapters.book import AdapterBook
from penstock.adapters.register import Live

MODEL = "penstock/demo-chat"
NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


def live(organisation_id: int, name: str, number: int, *, active: bool) -> Live:
    return Live(organisation_id, MODEL, name, number, f"{organisation_id}{name}{number}", active, NOW)


def test_a_name_means_the_active_version_and_a_number_that_one() -> None:
    book = AdapterBook()
    book.update([live(1, "tone", 1, active=False), live(1, "tone", 2, active=True)])
    names = (f"{MODEL}:tone", f"{MODEL}:tone@1", f"{MODEL}:tone@2")
    assert [found.number for name in names if (found := book.find(1, name))] == [2, 1, 2]
    for wrong in (MODEL, f"{MODEL}:", f"{MODEL}:tone@", f"{MODEL}:tone@3", f"{MODEL}:tone@02", "tone"):
        assert book.find(1, wrong) is None


def test_an_adapter_is_its_organisations() -> None:
    book = AdapterBook()
    book.update(
        [live(1, "tone", 1, active=True), live(2, "tone", 1, active=True), live(2, "b", 1, active=True)]
    )
    found = [book.find(organisation, f"{MODEL}:tone") for organisation in (1, 2, 3)]
    assert [each.digest if each else None for each in found] == ["1tone1", "2tone1", None]
    assert [each.name for each in book.of(2)] == ["b", "tone"]
    assert book.of(3) == []


def test_what_is_gone_is_forgotten() -> None:
    book = AdapterBook()
    book.update([live(1, "tone", 1, active=True)])
    book.update([])
    assert book.find(1, f"{MODEL}:tone") is None
