"""Steps on the terminal: each is shown while it works, with its time; plain lines where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Steps:
    """Shows what is being done, on standard error, so that standard output stays for the result."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._status: Status | None = None
        self._waited_for: Sequence[str] = ()
        self._began = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a step from its beginning to its end with the seconds it took; a failure is marked."""
        began = time.monotonic()
        self._status = self._console.status(escape(name)) if self._console.is_terminal else None
        if self._status:
            self._status.start()
        mark = "[red]✗[/red]"
        try:
            yield
            mark = "[green]✓[/green]"
        finally:
            if self._status:
                self._status.stop()
            self._status = None
            self._say(f"{mark} {escape(name)} [dim]{time.monotonic() - began:.1f} s[/dim]")

    def waits_for(self, things: Sequence[str]) -> None:
        """Say what the running step waits for: all of it on a terminal, else what has changed."""
        if self._status:
            self._status.update(escape(", ".join(things)))
        else:
            for thing in things:
                if thing not in self._waited_for:
                    self._say(f"  {escape(thing)}")
        self._waited_for = things

    def note(self, text: str) -> None:
        """One line between steps: something that happened."""
        self._say(escape(text))

    def total_s(self) -> float:
        """Tell the seconds since this began."""
        return time.monotonic() - self._began

    def _say(self, text: str) -> None:
        try:
            self._console.print(text, soft_wrap=True)
        except OSError:  # the terminal is gone; the work goes on
            pass
