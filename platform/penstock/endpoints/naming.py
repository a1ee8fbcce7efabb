"""Names for endpoints that nobody has named yet."""

from __future__ import annotations

import itertools
import re

LONGEST, SHORTEST = 32, 3
NOT_ALLOWED = re.compile(r"[^a-z0-9]+")


def free_name(model: str, taken: set[str]) -> str:
    """A name after a model's own that `taken` has not, and that stands in a URL; numbered where need be."""
    own = NOT_ALLOWED.sub("-", model.rpartition("/")[2].lower()).strip("-")
    if not own[:1].isalpha():
        own = f"model-{own}".rstrip("-")
    if len(own) < SHORTEST:
        own = f"{own}-model"
    numbered = (f"-{number}" for number in itertools.count(2))
    for ending in itertools.chain([""], numbered):
        name = own[: LONGEST - len(ending)].rstrip("-") + ending
        if name not in taken:
            return name
    raise AssertionError("numbers do not end")
