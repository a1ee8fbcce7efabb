"""Short patterns that stand for many phrasings, and the small damage that real typing does to them.

`how {do|can} I {make|create} a key` stands for four sentences. Braces nest; an alternative written in
capitals (`{PLACE}`) is drawn from a word list.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

Words = Mapping[str, Sequence[str]]

# fmt: off
_SYLLABLES = (
    "ba", "cor", "di", "el", "fen", "go", "hul", "ir", "jo", "kam", "lu", "mor", "ne", "ol", "pra", "qui",
    "ri", "sto", "tun", "ul", "ver", "wex", "yl", "zan", "ta", "lis", "men", "dor", "ga", "shi", "nok", "pe",
)
# fmt: on
_KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def expansions(pattern: str) -> Iterator[str]:
    """Yield every sentence that a pattern without word lists stands for."""
    before, choices, after = _first_group(pattern)
    if choices is None:
        yield before
        return
    for choice in choices:
        for middle in expansions(choice):
            for rest in expansions(after):
                yield before + middle + rest


def draw(pattern: str, rng: random.Random, words: Words | None = None) -> str:
    """Draw one of the sentences that a pattern stands for."""
    before, choices, after = _first_group(pattern)
    if choices is None:
        return before
    choice = rng.choice(choices)
    middle = _draw_word(choice, rng, words) if words and choice.isupper() else draw(choice, rng, words)
    return before + middle + draw(after, rng, words)


def invented_word(rng: random.Random) -> str:
    """Make a word that no language has, of one to four syllables."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 4)))


def invented_name(rng: random.Random) -> str:
    """Make a capitalised word, as of a town nobody has heard of."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4))).capitalize()


def mistype(text: str, rng: random.Random) -> str:
    """Do one thing that fingers do: drop, double, swap or miss a letter inside a longer word."""
    places = [
        i
        for i in range(1, len(text) - 1)
        if text[i - 1].isalpha() and text[i].isalpha() and text[i + 1].isalpha()
    ]
    if not places:
        return text
    i = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:i] + text[i + 1 :]
    if kind == 1:
        return text[:i] + text[i] + text[i:]
    if kind == 2:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + rng.choice("abcdefghijklmnopqrstuvwxyz") + text[i + 1 :]


def as_typed(text: str, rng: random.Random, *, typos: bool = True) -> str:
    """Vary casing and end marks as people do, and sometimes mistype."""
    if typos and rng.random() < 0.12:
        text = mistype(text, rng)
    casing = rng.random()
    if casing < 0.45:
        text = text[:1].upper() + text[1:]
    elif casing < 0.60:
        text = text.lower()
    elif casing < 0.62:
        text = text.upper()
    if text[-1:].isalnum():
        text += rng.choice(("", "", "?", "?", "?", ".", "!", " ?"))
    return text


def _draw_word(name: str, rng: random.Random, words: Words | None) -> str:
    """Draw from a list; one word in eight is invented, so that being unknown is itself learnt."""
    if name == "NUMBER":
        return str(rng.choice((rng.randint(0, 12), rng.randint(13, 100), rng.randint(101, 9999))))
    if name == "KEYS":
        row = rng.choice(_KEYBOARD_ROWS)
        return "".join(rng.choice(row) for _ in range(rng.randint(3, 8)))
    if name == "NONSENSE":
        return invented_word(rng)
    if words is None or name not in words:
        return name
    if rng.random() < 0.125:
        return invented_name(rng) if words[name][0][0].isupper() else invented_word(rng)
    return rng.choice(words[name])


def _first_group(pattern: str) -> tuple[str, list[str] | None, str]:
    """Split at the first brace group: text before, alternatives (None without a group), text after."""
    start = pattern.find("{")
    if start < 0:
        return pattern, None, ""
    depth, choices, piece_start = 0, [], start + 1
    for i in range(start, len(pattern)):
        if pattern[i] == "{":
            depth += 1
        elif pattern[i] == "|" and depth == 1:
            choices.append(pattern[piece_start:i])
            piece_start = i + 1
        elif pattern[i] == "}":
            depth -= 1
            if depth == 0:
                choices.append(pattern[piece_start:i])
                return pattern[:start], choices, pattern[i + 1 :]
    message = f"a brace is never closed in the pattern {pattern!r}"
    raise ValueError(message)
