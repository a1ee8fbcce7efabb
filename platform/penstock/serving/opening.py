"""What a client sees while its request waits, where it asked to: comments, before the stream's own events."""

from __future__ import annotations

from litestar.types import Send

from penstock.routing.directory import Standing


class Opening:
    """The beginning of a stream: comments are legal there, and most clients skip them."""

    __slots__ = ("_headers", "_send", "begun")

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.begun = False
        """The response's head has left: from here on, errors are events."""

    async def tell(self, waited_s: float, standing: Standing) -> None:
        """Say how long the request has waited, and how its model stands."""
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        body = f": waited {waited_s:.0f} s; the model is {standing}\n\n".encode()
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
