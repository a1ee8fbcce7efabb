from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock_catalog.cards import GIB, Capability, HubSource, ModelCard, Task
from penstock_catalog.shelf import BUILTIN, Shelf

CARDS = Shelf.open([BUILTIN]).cards
WELL_KNOWN = [card for card in CARDS if not card.demonstration]


def of(task: Task) -> list[ModelCard]:
    return [card for card in WELL_KNOWN if card.task is task]


def test_there_is_a_choice_for_every_task() -> None:
    assert len(WELL_KNOWN) >= 24
    assert {task: len(of(task)) >= 2 for task in Task} == dict.fromkeys(Task, True)
    for capability in (Capability.REASONING, Capability.CODE, Capability.VISION, Capability.TOOLS):
        assert sum(capability in card.capabilities for card in WELL_KNOWN) >= 3, capability


@pytest.mark.parametrize("card", WELL_KNOWN, ids=lambda card: card.id)
def test_a_well_known_model_comes_from_a_hub_under_its_own_name(card: ModelCard) -> None:
    assert isinstance(card.source, HubSource)
    words = re.split(r"[-.]", card.id.split("/")[1])
    assert [word for word in words if word not in card.source.repository.lower()] == []


@pytest.mark.parametrize("card", WELL_KNOWN, ids=lambda card: card.id)
def test_the_size_in_a_name_is_the_size_on_the_card(card: ModelCard) -> None:
    """A name such as 7B or 30B-A3B is rounded by its publisher, by a tenth at most."""
    active = re.search(r"-a(\d+)b", card.id)
    if active:
        assert card.active_parameters == pytest.approx(int(active[1]) * 1e9, rel=0.15)
    total = re.search(r"-(\d+(?:\.\d+)?)b(?:-|$)", card.id)
    if total and "8x" not in card.id:
        assert card.parameters == pytest.approx(float(total[1]) * 1e9, rel=0.19)


@pytest.mark.parametrize("card", WELL_KNOWN, ids=lambda card: card.id)
def test_memory_leaves_room_to_work_but_is_not_fanciful(card: ModelCard) -> None:
    weights_gib = card.parameters * card.weight_bits / 8 / GIB
    assert weights_gib < card.gpu_memory_gib <= weights_gib * 1.5 + 5


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_what_is_said_of_context_languages_and_prices_agrees(card: ModelCard) -> None:
    assert (Capability.LONG_CONTEXT in card.capabilities) == (
        card.task is Task.CHAT and card.context_length >= 100_000
    )
    if Capability.MULTILINGUAL in card.capabilities:
        assert len(card.languages) > 1
    assert (Capability.STREAMING in card.capabilities) == (card.task is Task.CHAT)
    if card.task in (Task.EMBEDDING, Task.RERANKING):
        assert card.prices.output_pico_usd == 0
    assert card.prices.input_pico_usd + card.prices.output_pico_usd > 0


def test_no_two_cards_name_the_same_weights() -> None:
    sources = [card.source for card in CARDS]
    assert len({str(source) for source in sources}) == len(sources)


def test_cards_are_indented_text_without_long_lines() -> None:
    for file in BUILTIN.glob("*.yaml"):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert len(line) <= 160, f"{file.name}: {line}"
            assert "\t" not in line, file.name


def test_the_cards_travel_in_the_package() -> None:
    assert Path(BUILTIN).parent.name == "penstock_catalog"
    assert len(list(BUILTIN.glob("*.yaml"))) == len(CARDS)
