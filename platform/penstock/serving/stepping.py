"""Writing to an ASGI server from a protocol callback, without waking a task for every chunk.

A server's `send` is a coroutine that returns without waiting as long as the client keeps up. Stepping it in
the callback that brought the bytes saves a future, a task switch and a turn of the event loop per chunk. When
the client does not keep up, the step suspends, and the request's own task takes the coroutine over and
finishes it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, cast

from litestar.types import Message, Send


class Suspended:
    """A coroutine that was begun outside a task and waits; awaiting this in a task finishes it."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        """Hand what the coroutine waits for to the task, and the task's answers to the coroutine."""
        waits_for = self._waits_for
        while True:
            try:
                answer = yield waits_for
            except BaseException as error:  # noqa: BLE001 - whatever ends the task must reach the coroutine
                thrown: BaseException | None = error
            else:
                thrown = None
            try:
                waits_for = self._coroutine.throw(thrown) if thrown else self._coroutine.send(answer)
            except StopIteration:
                return

    def close(self) -> None:
        """Give the coroutine up."""
        self._coroutine.close()


def step(send: Send, message: Message) -> Suspended | None:
    """Begin to send; None when it is done already, else what remains to be awaited."""
    # ASGI promises an awaitable only; every server and middleware gives a coroutine, which can be stepped.
    coroutine = cast("Coroutine[Any, Any, None]", send(message))
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return Suspended(coroutine, waits_for)
