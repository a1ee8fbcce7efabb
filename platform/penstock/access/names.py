"""What people may call things: any language, nothing that hides or turns what is read around it."""

from __future__ import annotations

import unicodedata

LENGTH_MAX = 100
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the direction of text: a name with them can look like another one."""


class NameRefused(Exception):
    """A name that is not accepted; the message says what would be."""


def checked(text: str, *, path: bool = False) -> str:
    """A name without blanks around it; raises NameRefused.

    With `path` it stands in addresses, so it has no slash and is not only dots.
    """
    name = text.strip()
    if not 1 <= len(name) <= LENGTH_MAX:
        raise NameRefused(f"a name has 1 to {LENGTH_MAX} characters")
    for character in name:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in TURNING:
            raise NameRefused(
                f"a name has no invisible control characters, and this one has U+{ord(character):04X}"
            )
    if path and ("/" in name or not name.strip(".")):
        raise NameRefused("a name has no slash and is not only dots, because it stands in addresses")
    return name
