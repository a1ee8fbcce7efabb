"""The three limits as fields of a form, for keys and projects alike."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.access.limits import MOST, RateLimits
from penstock.portal.forms import FormError

FIELDS = {
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
    "concurrent_requests": "Requests at once",
}
WRONG = f"a whole number from 1 to {MOST:,}; leave it empty for no limit"


def read(values: Mapping[str, str]) -> RateLimits:
    """What was typed; raises FormError with a sentence for every field that is wrong."""
    wanted: dict[str, int] = {}
    errors: dict[str, str] = {}
    for name in FIELDS:
        text = values.get(name, "").strip().replace(",", "").replace("_", "")
        if not text:
            continue
        if text.isascii() and text.isdigit() and 1 <= int(text[:20]) <= MOST:
            wanted[name] = int(text)
        else:
            errors[name] = WRONG
    if errors:
        raise FormError(errors, values)
    return RateLimits(**wanted)


def values(limits: RateLimits) -> dict[str, str]:
    """Limits as the fields show them."""
    return {name: str(most) for name, most in msgspec.to_builtins(limits).items()}
