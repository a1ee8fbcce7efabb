"""What a page says at its top after something was done: named in the address, worded only here."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "signed-out": "You are signed out.",
    "session-ended": "Your session has ended. Sign in to go on where you were.",
}
