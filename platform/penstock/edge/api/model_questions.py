"""Searches for models and reckonings of their cost as they stand in a URL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from penstock.edge.refusals import BadRequest
from penstock_billing import price_units
from penstock_billing.estimates import REQUESTS_MAX, TOKENS_MAX, Traffic
from penstock_catalog.cards import Capability, EndpointKind, Meaningful, Task
from penstock_catalog.search import Asked, Facet, Size, Sort, State

W = TypeVar("W", bound=Meaningful)
COMPARED_MAX = 4
"""Models side by side; more do not fit on a screen."""
INPUT = price_units.BY_NAME["input"]
WORDS: dict[str, tuple[str, type[State | Task | Capability | Size | EndpointKind]]] = {
    "state": ("states", State),
    "task": ("tasks", Task),
    "capability": ("capabilities", Capability),
    "size": ("sizes", Size),
    "endpoint": ("endpoints", EndpointKind),
}
"""Parameters that take words: the field of Asked, and the vocabulary."""


def understand(pairs: Iterable[tuple[str, str]]) -> tuple[Asked, list[tuple[str, str]]]:
    """Read a search out of a query string; what cannot be meant is left out, and told by its parameter."""
    words: dict[str, set[Any]] = {field: set() for field, _ in WORDS.values()}
    fields: dict[str, Any] = {}
    licences: set[str] = set()
    problems: list[tuple[str, str]] = []
    for name, raw in pairs:
        value = raw.strip()
        if not value:
            continue
        try:
            if name == "q":
                fields["text"] = value
            elif name == "licence":
                licences.add(value)
            elif name == "context":
                fields["context_min"] = _whole(value)
            elif name == "price":
                fields["input_pico_usd_max"] = _price(value)
            elif name == "sort":
                fields["sort"] = _word(Sort, value)
            elif name in WORDS:
                field, kind = WORDS[name]
                words[field].add(_word(kind, value))
        except ValueError:
            problems.append((name, f"{value[:60]!r} is not {_accepted(name)}"))
    fields |= {field: frozenset(values) for field, values in words.items()}
    return Asked(licences=frozenset(licences), **fields), problems


def spoken(asked: Asked) -> list[tuple[str, str]]:
    """Write a search as the parameters that `understand` reads; what does not narrow is left out."""
    pairs = [("q", asked.text)] if asked.text else []
    for facet in Facet:
        pairs += [(facet.value, value_text(facet, each)) for each in sorted(asked.chosen(facet))]
    if asked.sort is not Sort.RELEVANCE:
        pairs.append(("sort", asked.sort.value))
    return pairs


def value_text(facet: Facet, value: Any) -> str:
    """A facet's value as it stands in a URL: words, tokens, dollars per 1M tokens."""
    return price_units.usd_text(INPUT, value) if facet is Facet.PRICE else str(value)


def check_compared(models: Sequence[str]) -> list[str]:
    """Each model once; raises BadRequest for more than fit beside each other."""
    distinct = list(dict.fromkeys(models))
    if len(distinct) > COMPARED_MAX:
        raise BadRequest(f"at most {COMPARED_MAX} models are compared at once", param="model")
    return distinct


def traffic_of(pairs: Iterable[tuple[str, str]]) -> tuple[Traffic, dict[str, str]]:
    """Read traffic; what cannot be meant is as if it were not there, and told by its parameter."""
    given: dict[str, int] = {}
    problems: dict[str, str] = {}
    for name, raw in pairs:
        value = raw.strip().replace(",", "").replace("_", "")
        if name not in Traffic.__struct_fields__ or not value:
            continue
        try:
            given[name] = getattr(msgspec.convert({name: _whole(value)}, Traffic), name)
            problems.pop(name, None)
        except (ValueError, msgspec.ValidationError):
            most = REQUESTS_MAX if name == "requests_per_day" else TOKENS_MAX
            problems[name] = f"a whole number from 0 to {most:,}"
    traffic = Traffic(**given)
    if traffic.cached_tokens > traffic.input_tokens and "cached_tokens" not in problems:
        problems["cached_tokens"] = f"at most the {traffic.input_tokens:,} input tokens can be cached"
    return traffic, problems


def _word(vocabulary: Iterable[W], value: str) -> W:
    """Find a word of a vocabulary; raises ValueError."""
    for each in vocabulary:
        if each.value == value:
            return each
    raise ValueError(value)


def _accepted(name: str) -> str:
    if name in WORDS:
        return "one of " + ", ".join(WORDS[name][1])
    return {
        "sort": "one of " + ", ".join(Sort),
        "context": "a number of tokens such as 32768",
        "price": "dollars per 1M input tokens such as 0.50",
    }[name]


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 12):
        raise ValueError(value)
    return int(value)


def _price(value: str) -> int:
    return price_units.pico_usd(INPUT, value)
