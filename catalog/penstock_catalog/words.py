"""Finding cards by words: an index in memory, and how well each card answers what was typed.

A word finds the words that it is, that it begins, and that it stands in where names are written with or
without gaps ("llama3" is in "Llama 3.1"). Only where it finds nothing, words that differ by a typing mistake
count. Every word must be found, in any order.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from penstock_catalog.cards import ModelCard

TEXT_MAX: Final = 200
"""Characters of a search; what is beyond is not read."""
WORDS_MAX: Final = 10
TYPING_FROM: Final = 4
"""Shorter words are not taken for others: "phi" is not "pro"."""
TWO_MISTAKES_FROM: Final = 8
INSIDE_FROM: Final = 3
"""Shorter ones stand inside of too many names by chance."""

TITLE, PUBLISHER, VOCABULARY, SUMMARY, NOTES = 12, 6, 5, 3, 1
"""What a word is worth, by where it stands."""
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r"[^\W\d_]+|\d+")


class Tier(IntEnum):
    """How a card answers what was typed; a higher one always comes first."""

    TYPING = 1
    """With a typing mistake."""
    WORDS = 2
    """It has the words."""
    BEGINNING = 3
    """Its id or name begins so."""
    EXACT = 4
    """That is its id or name."""


class Match(NamedTuple):
    """How well one card answers."""

    tier: Tier
    score: int


class WordIndex:
    """The words of a fixed set of cards, by their place in it."""

    def __init__(self, cards: Sequence[ModelCard]) -> None:
        self._titles = [_titles(card) for card in cards]
        self._tight = [tuple(_tight(title) for title in titles) for titles in self._titles]
        self._places: dict[str, dict[int, int]] = {}
        for place, card in enumerate(cards):
            self._add(place, TITLE, (card.id, card.name))
            self._add(place, PUBLISHER, (card.publisher,))
            spoken = [each.value for each in (card.task, *card.capabilities, *card.endpoints)]
            self._add(place, VOCABULARY, (*spoken, card.licence))
            self._add(place, SUMMARY, (card.summary,))
            self._add(place, NOTES, (card.notes,))
        self._words = sorted(self._places)
        self._shortened: dict[str, list[str]] = {}
        for word in self._words:
            for shorter in _without(word) if len(word) >= TYPING_FROM else ():
                self._shortened.setdefault(shorter, []).append(word)

    def match(self, text: str) -> dict[int, Match] | None:
        """The places of the cards that have every word of a text; None where nothing was typed."""
        words = _words(text)
        if not words:
            return {} if text.strip() else None
        found = [self._of_word(word) for word in words]
        near = [not places for places in found]
        found = [places or self._near(word) for places, word in zip(found, words, strict=True)]
        together = _together(found)
        if not together:
            # Each word is somewhere, and no card has all of them: one may be a mistake that is a word too.
            found = [
                self._near(word) | places if not slipped else places
                for places, word, slipped in zip(found, words, near, strict=True)
            ]
            together, near = _together(found), [True]
        return self._ranked(together, text, mistaken=any(near))

    def _ranked(self, together: dict[int, int], text: str, *, mistaken: bool) -> dict[int, Match]:
        folded, tight = _fold(text).strip(), _tight(text)
        ranked = {}
        for place, score in together.items():
            tier = Tier.TYPING if mistaken else Tier.WORDS
            if folded in self._titles[place] or tight in self._tight[place]:
                tier = Tier.EXACT
            elif any(title.startswith(folded) for title in self._titles[place]) or any(
                title.startswith(tight) for title in self._tight[place]
            ):
                tier = Tier.BEGINNING
            ranked[place] = Match(tier, score)
        return ranked

    def _add(self, place: int, worth: int, texts: Iterable[str]) -> None:
        for text in texts:
            for word in _words(text, most=None):
                for each in {word, *_PART.findall(word)}:
                    places = self._places.setdefault(each, {})
                    places[place] = max(places.get(place, 0), worth)

    def _of_word(self, word: str) -> dict[int, int]:
        """Cards with a word that is this one or begins so, or whose name has it without gaps."""
        found: dict[int, int] = {}
        if len(word) >= INSIDE_FROM:
            for place, titles in enumerate(self._tight):
                if any(word in title for title in titles):
                    found[place] = TITLE - 1
        for number in range(bisect.bisect_left(self._words, word), len(self._words)):
            other = self._words[number]
            if not other.startswith(word):
                break
            for place, worth in self._places[other].items():
                value = 2 * worth if other == word else worth
                if value > found.get(place, 0):
                    found[place] = value
        return found

    def _near(self, word: str) -> dict[int, int]:
        """Cards with a word that differs by one typing mistake; long words by two."""
        if len(word) < TYPING_FROM:
            return {}
        most = 2 if len(word) >= TWO_MISTAKES_FROM else 1
        found: dict[int, int] = {}
        candidates = {other for shorter in _without(word) for other in self._shortened.get(shorter, ())}
        for other in candidates:
            if distance(word, other, most) > most:
                continue
            for place, worth in self._places[other].items():
                found[place] = max(found.get(place, 0), worth)
        return found


def distance(one: str, other: str, most: int) -> int:
    """How many letters were added, left out, mistaken or swapped; at most `most` + 1."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, against in enumerate(other, 1):
            steps = min(above[column] + 1, line[column - 1] + 1, above[column - 1] + (letter != against))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == against:
                steps = min(steps, before[column - 2] + 1)
            line.append(steps)
        if min(line) > most:
            return most + 1
        before, above = above, line
    return min(above[-1], most + 1)


def _together(found: list[dict[int, int]]) -> dict[int, int]:
    places = set(found[0]).intersection(*found[1:])
    return {place: sum(each[place] for each in found) for place in places}


def _titles(card: ModelCard) -> tuple[str, ...]:
    """What somebody who knows the model types."""
    return card.id, card.id.partition("/")[2], _fold(card.name)


def _fold(text: str) -> str:
    """Small letters without accents."""
    decomposed = unicodedata.normalize("NFKD", text[:TEXT_MAX]).casefold()
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _words(text: str, most: int | None = WORDS_MAX) -> list[str]:
    folded = _fold(text) if most is not None else _fold_all(text)
    return list(dict.fromkeys(_WORD.findall(folded)))[:most]


def _fold_all(text: str) -> str:
    return "".join(_fold(text[start : start + TEXT_MAX]) for start in range(0, len(text), TEXT_MAX))


def _tight(text: str) -> str:
    """Letters and digits only."""
    return "".join(_WORD.findall(_fold(text)))


def _without(word: str) -> set[str]:
    """The word, and it with one letter left out; with two where it is long.

    Words that differ by so many mistakes have one of these in common, however they differ.
    """
    shorter = {word[:at] + word[at + 1 :] for at in range(len(word))}
    found = {word} | shorter
    if len(word) >= TWO_MISTAKES_FROM - 1:
        found |= {each[:at] + each[at + 1 :] for each in shorter for at in range(len(each))}
    return found
