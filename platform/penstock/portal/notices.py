"""What a page says at its top after something was done: named in the address, worded only here."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "saved": "Saved.",
    "limits-saved": "The limits hold within a second.",
    "key-revoked": "The key is revoked. Requests with it are refused within seconds.",
    "project-made": "The project is there. Create a key for it to use it.",
    "endpoint-changed": "The endpoint is changed. Gateways follow within a second.",
    "endpoint-suspended": "The endpoint is suspended: it takes no requests, and its minutes cost nothing.",
    "endpoint-resumed": "The endpoint takes requests again.",
    "endpoint-deleted": "The endpoint and its keys are gone. What it used stays on the bill.",
    "organisation-made": "The organisation is there. Invite its first owner, or make it a key.",
    "plan-assigned": "The organisation has its new plan; gateways follow within a second.",
    "pool-made": "The model has a pool. It sleeps until somebody asks for it.",
    "pool-changed": "The pool is changed; gateways and the controller follow within a second.",
    "pool-rolled": "A new version rolls out. Requests go on meanwhile.",
    "pool-rolled-back": "The chosen version rolls out again. Requests go on meanwhile.",
    "price-added": "The price is added. What was charged before does not change.",
    "signed-out": "You are signed out.",
    "welcome": "Your account is ready. This is what your organisation uses.",
    "joined": "You are a member now.",
    "sign-in-again": "That took too long: give your password again.",
    "name-changed": "Your name was changed.",
    "password-changed": "Your password was changed. You are signed out everywhere else.",
    "theme-changed": "This browser remembers how you like it.",
    "session-ended-there": "That browser is signed out.",
    "sessions-ended": "You are signed out everywhere else.",
    "second-factor-removed": "Your second factor was removed. Signing in takes your password only.",
    "session-ended": "Your session has ended. Sign in to go on where you were.",
}
