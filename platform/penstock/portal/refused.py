"""What the door and accounts refuse, as a form says it: a status, and a sentence beside a field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock.access.passwords import WeakPassword
from penstock.access.people import PersonError
from penstock.access.sealing import Unreadable
from penstock.access.second_factor import SecondFactorError
from penstock.access.sign_in import WrongPassword
from penstock.access.sign_in_limits import TooManyTries
from penstock.portal.forms import FormError, sentence

REFUSED = (FormError, PersonError, WeakPassword, WrongPassword, SecondFactorError, TooManyTries, Unreadable)
UNREADABLE = (
    "Your second factor cannot be read on this installation any more. Whoever runs it can remove it with "
    "`penstock people reset-password --remove-second-factor`."
)


def in_words(error: Exception, field: str) -> tuple[int, dict[str, str]]:
    """The status, and what is said beside `field` where the error names no field of its own."""
    if isinstance(error, FormError):
        return 422, error.errors
    if isinstance(error, TooManyTries):
        then = datetime.now(UTC) + timedelta(seconds=error.retry_after_s)
        return 429, {field: f"{sentence(error)[:-1]}, at {then:%H:%M:%S} UTC."}
    if isinstance(error, Unreadable):
        return 422, {field: UNREADABLE}
    named = error.field if isinstance(error, PersonError) else field
    return 422, {named: sentence(error)}
