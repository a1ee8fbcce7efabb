"""What can go wrong on the machine itself: each message is one sentence, and what to do about it."""

from __future__ import annotations


class LocalError(Exception):
    """Something about this machine keeps Penstock from running; the text is for the person who started it."""


class StateError(LocalError):
    """The state folder cannot be used: taken, foreign, unwritable, full, or made by another version."""


class SoftwareError(LocalError):
    """A program that Penstock starts is missing or cannot be run by the account that must run it."""


class ChildError(LocalError):
    """A child process did not become ready, or ended while it was needed."""

    @property
    def brief(self) -> str:
        """What happened, without the end of the log."""
        return str(self).partition(":\n")[0]


class PortError(LocalError):
    """The address to listen on cannot be had."""
