from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_catalog.cards import Capability, EndpointKind, Task
from penstock_catalog.errors import CardError
from penstock_catalog.shelf import BUILTIN, Shelf

WriteCard = Callable[..., Path]


@pytest.fixture(scope="module")
def builtin() -> Shelf:
    return Shelf.open([BUILTIN])


def test_a_card_is_found_by_its_id_and_by_no_other(write_card: WriteCard, today: datetime.date) -> None:
    shelf = Shelf.open([write_card().parent], today)
    card = shelf.get("acme/small-chat")
    assert card is not None
    assert card.name == "Small Chat"
    assert shelf.get("acme/Small-Chat") is None
    assert shelf.cards == [card]


def test_cards_of_several_folders_stand_together_in_order_of_id(
    write_card: WriteCard, today: datetime.date
) -> None:
    ours = write_card(("acme/small-chat", "zeta/chat"), name="zeta--chat.yaml").parent
    theirs = write_card(folder="theirs").parent
    assert [card.id for card in Shelf.open([ours, theirs], today).cards] == ["acme/small-chat", "zeta/chat"]


def test_an_id_in_two_folders_is_refused_naming_both_files(
    write_card: WriteCard, today: datetime.date
) -> None:
    first = write_card()
    second = write_card(("id: acme", "# ours\nid: acme"), folder="theirs")
    with pytest.raises(CardError) as caught:
        Shelf.open([first.parent, second.parent], today)
    assert str(caught.value) == (
        f'{second}:2: id: "acme/small-chat" is already in {first}:1: give one of the two another id'
    )


def test_every_bad_card_of_every_folder_is_told_at_once(write_card: WriteCard, today: datetime.date) -> None:
    first = write_card(("task: chat", "task: talk"))
    second = write_card(("licence: MIT", "licence: Ours"), folder="theirs")
    good = write_card(("acme/small-chat", "acme/good"), name="acme--good.yaml")
    with pytest.raises(CardError) as caught:
        Shelf.open([first.parent, second.parent, first.parent / "gone"], today)
    files = [problem.file for problem in caught.value.problems]
    assert files == [first, first.parent / "gone", second]
    assert good not in files


def test_a_card_with_the_wrong_ending_is_not_passed_over(write_card: WriteCard, today: datetime.date) -> None:
    file = write_card(name="acme--small-chat.yml")
    with pytest.raises(CardError, match=r"ends in \.yaml"):
        Shelf.open([file.parent], today)


def test_other_files_and_a_folder_named_twice_do_no_harm(write_card: WriteCard, today: datetime.date) -> None:
    folder = write_card().parent
    (folder / "README.md").write_text("ours")
    assert len(Shelf.open([folder, folder], today).cards) == 1


def test_search_wants_every_word(builtin: Shelf) -> None:
    found = {card.id for card in builtin.search("Coder QWEN")}
    assert {"qwen/qwen2.5-coder-32b-instruct", "qwen/qwen2.5-coder-7b-instruct"} <= found
    assert all("qwen" in model_id for model_id in found)
    assert builtin.search("coder nonesuch") == []


def test_a_word_in_a_name_comes_before_one_in_a_summary(write_card: WriteCard, today: datetime.date) -> None:
    mentioned = ("acme/small-chat", "acme/a"), ("short questions", "questions about whales")
    write_card(*mentioned, name="acme--a.yaml")
    folder = write_card(("acme/small-chat", "acme/whales"), name="acme--whales.yaml").parent
    assert [card.id for card in Shelf.open([folder], today).search("whales")] == ["acme/whales", "acme/a"]


def test_search_narrows_by_task_capability_and_endpoint(builtin: Shelf) -> None:
    assert {card.task for card in builtin.search(task=Task.RERANKING)} == {Task.RERANKING}
    seeing = builtin.search(capabilities=[Capability.VISION, Capability.TOOLS])
    assert [card.id for card in seeing] == ["mistralai/mistral-small-3.1-24b-instruct"]
    batch = builtin.search("deepseek", endpoint=EndpointKind.BATCH)
    assert {card.id for card in builtin.search("deepseek")} > {card.id for card in batch} != set()


def test_an_empty_search_is_the_whole_shelf(builtin: Shelf) -> None:
    assert builtin.search() == builtin.cards
