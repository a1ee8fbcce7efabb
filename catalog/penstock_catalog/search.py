"""Searching what is offered: words, facets with counts, and an order. Knows no database and no tenant.

What changes from minute to minute (how a model stands, what it costs the one who asks, how fast it was) is
handed in. Within a facet any of the chosen values will do, but a model must have all chosen capabilities. A
count beside a value says how many models there would be with it, all other facets as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

import msgspec

from penstock_catalog.cards import Capability, EndpointKind, Meaningful, ModelCard, Task
from penstock_catalog.words import Match, Tier, WordIndex

BILLION: Final = 10**9

CONTEXTS: Final = (8_192, 32_768, 131_072, 1_000_000)
"""Context lengths that people ask for, as the least that will do."""
PRICES_PICO_USD: Final = (100_000, 500_000, 1_000_000, 5_000_000)
"""Input prices that people ask for, as the most that will do: 0.10, 0.50, 1 and 5 dollars per 1M tokens."""

Mask: TypeAlias = int
"""A set of listed models: bit n is the nth."""


class State(Meaningful):
    """How a model stands for somebody who wants to call it."""

    LIVE = "live", "answers at once"
    SLEEPING = "sleeping", "wakes when it is asked for"
    NOT_DEPLOYED = "not_deployed", "has no pool that could answer"

    @property
    def words(self) -> str:
        """As people read it."""
        return self.value.replace("_", " ")


class Size(Meaningful):
    """How large a model is, by all its weights."""

    TINY = "under-1b", "under 1B parameters"
    SMALL = "1b-10b", "1B to under 10B"
    MEDIUM = "10b-40b", "10B to under 40B"
    LARGE = "40b-100b", "40B to under 100B"
    HUGE = "over-100b", "100B and more"


SIZES: Final = (
    (BILLION, Size.TINY),
    (10 * BILLION, Size.SMALL),
    (40 * BILLION, Size.MEDIUM),
    (100 * BILLION, Size.LARGE),
)


class Sort(Meaningful):
    """Which come first."""

    RELEVANCE = "relevance", "best match"
    PRICE = "price", "cheapest first"
    CONTEXT = "context", "longest context"
    SIZE = "size", "smallest first"
    NEWEST = "newest", "newest first"
    SPEED = "speed", "fastest first"


class Facet(Meaningful):
    """What a search can be narrowed by; the value is the parameter's name."""

    STATE = "state", "State"
    TASK = "task", "Task"
    CAPABILITY = "capability", "Can do"
    CONTEXT = "context", "Context"
    PRICE = "price", "Input price"
    SIZE = "size", "Size"
    LICENCE = "licence", "Licence"
    ENDPOINT = "endpoint", "Endpoints"


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it is offered to somebody now."""

    card: ModelCard
    state: State = State.NOT_DEPLOYED
    reason: str = ""
    """Why it stands so, in words."""
    input_pico_usd: int | None = None
    """Per token, as the one who asks pays; None: it has no price."""
    output_pico_usd: int | None = None
    first_token_us: int | None = None
    """The median that was measured lately; None: nothing was."""
    tokens_per_s: float | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody looks for; what is empty or None does not narrow."""

    text: str = ""
    states: frozenset[State] = frozenset()
    tasks: frozenset[Task] = frozenset()
    capabilities: frozenset[Capability] = frozenset()
    """All of them."""
    context_min: int | None = None
    input_pico_usd_max: int | None = None
    sizes: frozenset[Size] = frozenset()
    licences: frozenset[str] = frozenset()
    endpoints: frozenset[EndpointKind] = frozenset()
    sort: Sort = Sort.RELEVANCE

    def without(self, facet: Facet) -> Asked:
        """The same, not narrowed by one facet."""
        return msgspec.structs.replace(self, **{FIELDS[facet]: getattr(EVERYTHING, FIELDS[facet])})

    def chosen(self, facet: Facet) -> frozenset[Any]:
        """The values that a facet is narrowed to."""
        value = getattr(self, FIELDS[facet])
        if isinstance(value, frozenset):
            return value
        return frozenset() if value is None else frozenset({value})

    @property
    def narrowed(self) -> list[Facet]:
        """The facets that narrow."""
        return [facet for facet in Facet if self.chosen(facet)]


FIELDS: Final = {
    Facet.STATE: "states",
    Facet.TASK: "tasks",
    Facet.CAPABILITY: "capabilities",
    Facet.CONTEXT: "context_min",
    Facet.PRICE: "input_pico_usd_max",
    Facet.SIZE: "sizes",
    Facet.LICENCE: "licences",
    Facet.ENDPOINT: "endpoints",
}
"""Of Asked, by facet."""
EVERYTHING: Final = Asked()


class Choice(msgspec.Struct, frozen=True):
    """One value of a facet."""

    value: Any
    count: int
    """Models there would be with it."""
    chosen: bool


class Hit(msgspec.Struct, frozen=True):
    """One model that was found."""

    listed: Listed
    match: Match | None
    """None where nothing was typed."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a search."""

    hits: list[Hit]
    facets: dict[Facet, list[Choice]]
    widened: dict[Facet, int]
    """Where nothing was found: how many there are without each facet, where that helps."""
    any_text: int = 0
    """Where nothing was found: how many there are whatever the text."""

    @property
    def mistaken(self) -> bool:
        """Nothing has the words that were typed; what is here differs by a typing mistake."""
        return bool(self.hits) and self.hits[0].match is not None and self.hits[0].match.tier is Tier.TYPING


class Listing:
    """A fixed set of cards, to be searched with what is true of them at the moment."""

    def __init__(self, cards: Sequence[ModelCard]) -> None:
        self.cards = tuple(cards)
        self.words = WordIndex(self.cards)
        self._all: Mask = (1 << len(self.cards)) - 1
        self._fixed: dict[Facet, dict[Any, Mask]] = {
            Facet.TASK: self._masks(lambda card: (card.task,), Task),
            Facet.CAPABILITY: self._masks(lambda card: card.capabilities, Capability),
            Facet.SIZE: self._masks(lambda card: (size_of(card),), Size),
            Facet.LICENCE: self._masks(lambda card: (card.licence,), ()),
            Facet.ENDPOINT: self._masks(lambda card: card.endpoints, EndpointKind),
            Facet.CONTEXT: {
                least: self._mask(lambda card, least=least: card.context_length >= least)  # type: ignore[misc]
                for least in CONTEXTS
            },
        }
        for licence in sorted(self._fixed[Facet.LICENCE]):
            # In order of their names: a list that jumps about with each letter typed cannot be read.
            self._fixed[Facet.LICENCE][licence] = self._fixed[Facet.LICENCE].pop(licence)

    def search(self, asked: Asked, listed: Sequence[Listed]) -> Found:
        """Find what is asked for; `listed` has one of each card, in the cards' order."""
        masks = self._fixed | {
            Facet.STATE: {state: _mask_of(each.state is state for each in listed) for state in State},
            Facet.PRICE: {
                most: _mask_of(_costs_at_most(each, most) for each in listed) for most in PRICES_PICO_USD
            },
        }
        matches = self.words.match(asked.text)
        by_text = self._all if matches is None else _mask_at(matches)
        narrowing = {facet: self._narrowed(facet, asked, masks, listed) for facet in asked.narrowed}
        found = _all_of(by_text, narrowing.values())
        hits = [
            Hit(each, None if matches is None else matches[place])
            for place, each in enumerate(listed)
            if found >> place & 1
        ]
        return Found(
            hits=_sorted(hits, asked.sort),
            facets={facet: self._choices(facet, asked, masks, by_text, narrowing) for facet in Facet},
            widened={} if found else _widened(by_text, narrowing),
            any_text=0 if found or matches is None else _all_of(self._all, narrowing.values()).bit_count(),
        )

    def _narrowed(
        self, facet: Facet, asked: Asked, masks: dict[Facet, dict[Any, Mask]], listed: Sequence[Listed]
    ) -> Mask:
        """Models that satisfy one facet."""
        if facet is Facet.CAPABILITY:
            return _all_of(self._all, (masks[facet][each] for each in asked.capabilities))
        if asked.context_min is not None and facet is Facet.CONTEXT:
            least = asked.context_min
            return self._mask(lambda card: card.context_length >= least)
        if asked.input_pico_usd_max is not None and facet is Facet.PRICE:
            most = asked.input_pico_usd_max
            return _mask_of(_costs_at_most(each, most) for each in listed)
        return _any_of(masks[facet].get(value, 0) for value in asked.chosen(facet))

    def _choices(
        self,
        facet: Facet,
        asked: Asked,
        masks: dict[Facet, dict[Any, Mask]],
        by_text: Mask,
        narrowing: dict[Facet, Mask],
    ) -> list[Choice]:
        # A model must have all capabilities, so one more is counted among those that have the chosen ones.
        others = [
            mask for other, mask in narrowing.items() if other is not facet or facet is Facet.CAPABILITY
        ]
        base = _all_of(by_text, others)
        chosen = asked.chosen(facet)
        return [
            Choice(value, (mask & base).bit_count(), value in chosen)
            for value, mask in masks[facet].items()
            if mask & base or value in chosen
        ]

    def _mask(self, holds: Callable[[ModelCard], bool]) -> Mask:
        return _mask_of(holds(card) for card in self.cards)

    def _masks(self, values: Callable[[ModelCard], Iterable[Any]], order: Iterable[Any]) -> dict[Any, Mask]:
        masks: dict[Any, Mask] = dict.fromkeys(order, 0)
        for place, card in enumerate(self.cards):
            for value in values(card):
                masks[value] = masks.get(value, 0) | 1 << place
        return masks


def size_of(card: ModelCard) -> Size:
    """How large a model is."""
    return next((size for limit, size in SIZES if card.parameters < limit), Size.HUGE)


def _costs_at_most(listed: Listed, most: int) -> bool:
    return listed.input_pico_usd is not None and listed.input_pico_usd <= most


def _mask_of(holds: Iterable[bool]) -> Mask:
    return int("".join("1" if each else "0" for each in holds)[::-1] or "0", 2)


def _mask_at(places: Iterable[int]) -> Mask:
    return _any_of(1 << place for place in places)


def _all_of(start: Mask, masks: Iterable[Mask]) -> Mask:
    for mask in masks:
        start &= mask
    return start


def _any_of(masks: Iterable[Mask]) -> Mask:
    found = 0
    for mask in masks:
        found |= mask
    return found


def _widened(by_text: Mask, narrowing: dict[Facet, Mask]) -> dict[Facet, int]:
    counts = {
        facet: _all_of(by_text, (mask for other, mask in narrowing.items() if other is not facet)).bit_count()
        for facet in narrowing
    }
    return {facet: count for facet, count in counts.items() if count}


STATE_ORDER: Final = {state: place for place, state in enumerate(State)}


def _sorted(hits: list[Hit], sort: Sort) -> list[Hit]:
    """In the order asked for; what is alike by match, state and date."""
    keys: dict[Enum, Callable[[Hit], Any]] = {
        Sort.RELEVANCE: lambda hit: 0,  # noqa: ARG005 - only the rest of the key counts
        Sort.PRICE: lambda hit: _last(hit.listed.input_pico_usd),
        Sort.CONTEXT: lambda hit: -hit.listed.card.context_length,
        Sort.SIZE: lambda hit: hit.listed.card.parameters,
        Sort.NEWEST: lambda hit: -hit.listed.card.released.toordinal(),
        Sort.SPEED: lambda hit: _last(None if hit.listed.tokens_per_s is None else -hit.listed.tokens_per_s),
    }
    first = keys[sort]

    def key(hit: Hit) -> tuple[Any, ...]:
        tier, score = hit.match or (0, 0)
        card = hit.listed.card
        return first(hit), -tier, -score, STATE_ORDER[hit.listed.state], -card.released.toordinal(), card.id

    return sorted(hits, key=key)


def _last(value: float | None) -> tuple[bool, float]:
    """What is not known comes last."""
    return value is None, value or 0
