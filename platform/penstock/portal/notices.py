"""What a page says at its top after something was done: named in the address, worded only here."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "saved": "Saved.",
    "limits-saved": "The limits hold within a second.",
    "key-revoked": "The key is revoked. Requests with it are refused within seconds.",
    "project-made": "The project is there. Create a key for it to use it.",
    "signed-out": "You are signed out.",
    "session-ended": "Your session has ended. Sign in to go on where you were.",
}
