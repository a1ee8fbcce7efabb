"""Searching: what comes first, what a typing mistake finds, and that every count beside a facet is true."""

from __future__ import annotations

import datetime
import random
import string
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_catalog import words
from penstock_catalog.cards import Capability, EndpointKind, ModelCard, Task
from penstock_catalog.search import (
    CONTEXTS,
    PRICES_PICO_USD,
    Asked,
    Facet,
    Found,
    Listed,
    Listing,
    Size,
    Sort,
    State,
    size_of,
)
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_catalog.words import Tier

SHELF = Shelf.open([BUILTIN])
SOME = SHELF.cards[0]


def card(model: str, name: str = "", **fields: object) -> ModelCard:
    made = {"id": model, "name": name or model.partition("/")[2], "summary": "A model.", "notes": ""} | fields
    return msgspec.structs.replace(SOME, publisher=model.partition("/")[0], **made)


def listed(cards: list[ModelCard], seed: int = 1) -> list[Listed]:
    """As some organisation may find them."""
    dice = random.Random(seed)
    return [
        Listed(
            card=each,
            state=dice.choice(list(State)),
            input_pico_usd=dice.choice([None, 0, 100_000, 600_000, 9_000_000]),
            tokens_per_s=dice.choice([None, 10.0, 90.0]),
        )
        for each in cards
    ]


def ids(cards: list[ModelCard], text: str, **asked: object) -> list[str]:
    found = Listing(cards).search(Asked(text=text, **asked), [Listed(card=each) for each in cards])  # type: ignore[arg-type]
    return [hit.listed.card.id for hit in found.hits]


def test_exact_comes_before_beginning_before_words() -> None:
    cards = [
        card("acme/z", "Small words", summary="A chat model."),
        card("acme/my-chat"),
        card("acme/chatter"),
        card("zeta/chat"),
    ]
    assert ids(cards, "chat") == ["zeta/chat", "acme/chatter", "acme/my-chat", "acme/z"]


def test_a_word_in_the_title_comes_before_one_in_the_text() -> None:
    cards = [card("acme/a", summary="Knows whales."), card("acme/of-whales"), card("acme/b", notes="whales")]
    assert ids(cards, "whales") == ["acme/of-whales", "acme/a", "acme/b"]


@pytest.mark.parametrize(
    "text", ["qwne", "qween", "qwn3", "Qwen", "QWEN3-8B", "qwen 3 8b", "qwen38b", "8b qwen"]
)
def test_a_name_is_found_however_it_is_typed(text: str) -> None:
    assert any(hit.id == "qwen/qwen3-8b" for hit in SHELF.search(text)), text


@pytest.mark.parametrize("text", ["llama3.1", "llama-3.1", "llama 3.1 8b", "meta llama", "lama", "lllama"])
def test_gaps_and_typing_mistakes_do_no_harm(text: str) -> None:
    assert "meta/llama-3.1-8b-instruct" in [each.id for each in SHELF.search(text)], text


def test_what_is_close_is_only_shown_where_nothing_has_the_word() -> None:
    cards = [card("acme/coder"), card("acme/codec")]
    assert ids(cards, "coder") == ["acme/coder"]
    assert set(ids(cards, "codex")) == {"acme/coder", "acme/codec"}
    found = Listing(cards).search(Asked(text="codex"), [Listed(card=each) for each in cards])
    assert found.mistaken
    assert {hit.match.tier for hit in found.hits if hit.match} == {Tier.TYPING}


def test_a_mistake_that_is_a_word_elsewhere_is_forgiven_where_no_model_has_all_words() -> None:
    cards = [card("acme/llama-coder"), card("acme/lama")]
    assert ids(cards, "lama coder") == ["acme/llama-coder"]


def test_short_words_are_taken_as_they_are() -> None:
    assert ids([card("acme/phi")], "pho") == []


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "' or 1=1 --", "\u202e\u0000", "%", "{{ 7*7 }}", "x" * 10_000]
)
def test_hostile_text_is_only_a_text(text: str) -> None:
    assert ids([card("acme/chat")], text) == []


def test_accents_and_other_scripts_are_read() -> None:
    cards = [card("acme/cafe", "Café Modèle"), card("acme/nihon", "日本語モデル")]
    assert ids(cards, "modele") == ["acme/cafe"]
    assert ids(cards, "日本語") == ["acme/nihon"]


def test_an_empty_text_finds_everything_and_live_models_come_first() -> None:
    cards = [card("acme/a"), card("acme/b")]
    found = Listing(cards).search(Asked(), [Listed(card=cards[0]), Listed(card=cards[1], state=State.LIVE)])
    assert [hit.listed.card.id for hit in found.hits] == ["acme/b", "acme/a"]


@given(st.text(alphabet=string.ascii_lowercase + "0123456789 -./é<", max_size=30))
def test_no_text_is_too_strange_and_every_hit_has_a_reason(text: str) -> None:
    matches = SHELF.listing.words.match(text)
    assert (matches is None) == (not text.strip())
    assert set(matches or ()) <= set(range(len(SHELF.cards)))


@given(st.integers(min_value=0), st.sampled_from(["drop", "swap", "mistake", "double"]))
def test_one_typing_mistake_in_a_long_word_is_forgiven(seed: int, kind: str) -> None:
    dice = random.Random(seed)
    name = "".join(dice.choices(string.ascii_lowercase, k=dice.randrange(6, 12)))
    at = dice.randrange(len(name) - 1)
    typed = {
        "drop": name[:at] + name[at + 1 :],
        "swap": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        "mistake": name[:at] + dice.choice(string.ascii_lowercase) + name[at + 1 :],
        "double": name[:at] + name[at] + name[at:],
    }[kind]
    assert ids([card(f"acme/{name}")], typed) == [f"acme/{name}"]


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_distance_is_the_same_both_ways_and_0_only_of_the_same(one: str, other: str) -> None:
    there, back = words.distance(one, other, 9), words.distance(other, one, 9)
    assert there == back
    assert (there == 0) == (one == other)
    assert there <= max(len(one), len(other))


def asked_by(seed: int) -> Asked:
    dice = random.Random(seed)

    def some(values: list[object]) -> frozenset[object]:
        return frozenset(dice.sample(values, dice.choice([0, 0, 0, 1, 2])))

    return Asked(
        text=dice.choice(["", "", "qwen", "coder", "a"]),
        states=some(list(State)),  # type: ignore[arg-type]
        tasks=some(list(Task)),  # type: ignore[arg-type]
        capabilities=some(list(Capability)),  # type: ignore[arg-type]
        context_min=dice.choice([None, None, *CONTEXTS, 5000]),
        input_pico_usd_max=dice.choice([None, None, *PRICES_PICO_USD, 1]),
        sizes=some(list(Size)),  # type: ignore[arg-type]
        licences=some(["MIT", "Apache-2.0", "no such"]),  # type: ignore[arg-type]
        endpoints=some(list(EndpointKind)),  # type: ignore[arg-type]
        sort=dice.choice(list(Sort)),
    )


def fits(each: Listed, asked: Asked) -> bool:
    """What a search means, said the slow way."""
    one = each.card
    return (
        (not asked.states or each.state in asked.states)
        and (not asked.tasks or one.task in asked.tasks)
        and asked.capabilities <= set(one.capabilities)
        and (asked.context_min is None or one.context_length >= asked.context_min)
        and (
            asked.input_pico_usd_max is None
            or (each.input_pico_usd is not None and each.input_pico_usd <= asked.input_pico_usd_max)
        )
        and (not asked.sizes or size_of(one) in asked.sizes)
        and (not asked.licences or one.licence in asked.licences)
        and (not asked.endpoints or bool(asked.endpoints & set(one.endpoints)))
    )


def with_value(asked: Asked, facet: Facet, value: object) -> Asked:
    """The same, narrowed to one value of a facet; a capability is wanted besides the others."""
    if facet is Facet.CAPABILITY:
        return msgspec.structs.replace(asked, capabilities=asked.capabilities | {value})  # type: ignore[operator]
    if facet is Facet.CONTEXT:
        return msgspec.structs.replace(asked, context_min=value)
    if facet is Facet.PRICE:
        return msgspec.structs.replace(asked, input_pico_usd_max=value)
    field = {
        "state": "states",
        "task": "tasks",
        "size": "sizes",
        "licence": "licences",
        "endpoint": "endpoints",
    }
    return msgspec.structs.replace(asked, **{field[facet.value]: frozenset({value})})


@given(st.integers(min_value=0))
def test_hits_and_counts_are_what_a_slow_reading_says(seed: int) -> None:
    asked, offers = asked_by(seed), listed(SHELF.cards, seed)
    by_text = SHELF.listing.words.match(asked.text)
    among = [each for place, each in enumerate(offers) if by_text is None or place in by_text]
    found: Found = SHELF.listing.search(asked, offers)
    assert {hit.listed.card.id for hit in found.hits} == {e.card.id for e in among if fits(e, asked)}
    for facet, choices in found.facets.items():
        for choice in choices:
            narrowed = with_value(asked, facet, choice.value)
            assert choice.count == sum(fits(each, narrowed) for each in among), (facet, choice)
            assert choice.chosen == (choice.value in asked.chosen(facet))
    for facet, count in found.widened.items():
        assert count == sum(fits(each, asked.without(facet)) for each in among) > 0
    assert bool(found.hits) or found.any_text == (
        sum(fits(each, asked) for each in offers) if asked.text else 0
    )


def test_each_order_puts_what_is_not_known_last() -> None:
    cards = [card(f"acme/{n}", context_length=n, parameters=n * 10**6) for n in (2, 1, 3)]
    cards = [
        msgspec.structs.replace(each, released=datetime.date(2020 + place, 1, 1))
        for place, each in enumerate(cards)
    ]
    offers = [
        Listed(card=cards[0]),
        Listed(card=cards[1], input_pico_usd=5, tokens_per_s=1.0),
        Listed(card=cards[2], input_pico_usd=0, tokens_per_s=9.0),
    ]
    listing = Listing(cards)

    def order(sort: Sort) -> str:
        hits = listing.search(Asked(sort=sort), offers).hits
        return "".join(hit.listed.card.id[-1] for hit in hits)

    assert order(Sort.PRICE) == "312"
    assert order(Sort.SPEED) == "312"
    assert order(Sort.CONTEXT) == "321"
    assert order(Sort.SIZE) == "123"
    assert order(Sort.NEWEST) == "312"


def test_a_search_among_500_models_takes_milliseconds() -> None:
    dice = random.Random(3)
    cards = [
        msgspec.structs.replace(dice.choice(SHELF.cards), id=f"acme/{dice.randbytes(6).hex()}-{n}")
        for n in range(500)
    ]
    listing, offers = Listing(cards), listed(cards)
    took_s = []
    for text in ("qwen", "qwne coder", "a", "multilingual embedding", "llama3", "", "instruct", "zzzzzzzz"):
        started_s = time.process_time()
        listing.search(Asked(text=text, tasks=frozenset({Task.CHAT})), offers)
        took_s.append(time.process_time() - started_s)
    # Ten times the processor time it takes here: only another order of growth would fail it, not neighbours.
    assert sorted(took_s)[-1] < 0.1
