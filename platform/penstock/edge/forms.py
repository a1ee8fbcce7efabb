"""Reading an upload of an adapter: multipart/form-data, its weights straight to the disk as they come."""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec
from litestar.types import Receive
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from penstock.adapters import settings, tensors
from penstock.adapters.errors import AdapterRefused, AdapterTooLarge
from penstock.adapters.store import Incoming, check_room
from penstock.edge.refusals import BadRequest, UnsupportedMedia
from penstock.edge.wire import ClientLeft, Head

STALL_S = 60.0
"""How long a client may send nothing."""
TEXT_BYTES_MAX = 4096
OVERHEAD_BYTES = 64 * 1024
"""Of a form, beside its files: boundaries, headers and texts."""
LINGER_S = 5.0
"""How long a client that was refused may go on sending."""
WRITE_BYTES = 2**20
"""So much is collected before a thread writes it."""
BOUNDARY = re.compile(
    rb'multipart/form-data\s*;.*\bboundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?', re.IGNORECASE
)
TEXTS = ("model", "name", "project", "description", "activate")
FILES = ("config", "weights")
TRUTHS = {"true": True, "false": False}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """An upload's fields; its weights are on the disk."""

    model: str
    name: str
    project: str
    description: str | None
    activate: bool
    config: bytes

    def without_config(self) -> tuple[str, str, str, str | None, bool]:
        """What tells it from another upload of the same files."""
        return self.model, self.name, self.project, self.description, self.activate


async def read(head: Head, sending: Sending, incoming: Incoming, bytes_max: int) -> Form:
    """Read a whole upload.

    Raises UnsupportedMedia, BadRequest naming the field, AdapterRefused for what is pickled by its name,
    AdapterTooLarge, NoRoom, and ClientLeft.
    """
    found = BOUNDARY.match(head.content_type)
    if found is None:
        raise UnsupportedMedia(
            "send the adapter as multipart/form-data with the fields model, name, config and weights: "
            "curl -F model=… -F name=… -F config=@adapter_config.json -F weights=@adapter_model.safetensors"
        )
    if head.content_length > bytes_max + OVERHEAD_BYTES + settings.BYTES_MAX:
        raise _too_large(bytes_max)
    await asyncio.to_thread(check_room, incoming.folder, head.content_length)
    reader = _Reader(incoming, bytes_max)
    parser = PushMultipartParser(found[1].decode(), max_segment_count=len(TEXTS) + len(FILES), strict=True)
    try:
        while sending.more:
            data = await sending.next()
            for event in parser.parse(data) if data else ():
                await reader.take(event)
        parser.close()
    except MultipartError as error:
        raise BadRequest(
            f"the body is no complete multipart/form-data: {error}", code="invalid_form"
        ) from None
    await reader.flush()
    await asyncio.to_thread(incoming.close)
    return reader.form()


class Sending:
    """A body as its client sends it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True
        """Whether the end has not come yet."""

    async def next(self) -> bytes:
        """What comes next; raises ClientLeft, or BadRequest when nothing does for too long."""
        try:
            async with asyncio.timeout(STALL_S):
                message = await self._receive()
        except TimeoutError:
            text = f"nothing came for {STALL_S:.0f} s: send it again"
            raise BadRequest(text, code="upload_stalled") from None
        if message["type"] != "http.request":
            raise ClientLeft
        self.more = message["more_body"]
        return message["body"]

    async def discard(self) -> None:
        """Read on for a while: a client whose connection is closed while it sends sees no refusal."""
        with contextlib.suppress(TimeoutError, ClientLeft):
            async with asyncio.timeout(LINGER_S):
                while self.more:
                    await self.next()


class _Reader:
    """Takes a form's parts as they come."""

    def __init__(self, incoming: Incoming, bytes_max: int) -> None:
        self._incoming = incoming
        self._bytes_max = bytes_max
        self._fields: dict[str, bytearray] = {}
        self._now = ""
        self._written = 0

    async def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """Take the head of a part, a piece of it, or its end."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event:
            kept = self._fields[self._now]
            kept += event
            size = len(kept) + (self._written if self._now == "weights" else 0)
            if size > self._most(self._now):
                raise self._exceeded(self._now)
            if self._now == "weights" and len(kept) >= WRITE_BYTES:
                await self.flush()

    async def flush(self) -> None:
        """Have what came of the weights written."""
        kept = self._fields.get("weights")
        if kept:
            self._written += len(kept)
            data = bytes(kept)
            kept.clear()
            await asyncio.to_thread(self._incoming.write, data)

    def form(self) -> Form:
        """The whole form; raises BadRequest for what is missing or makes no sense."""
        for name in ("model", "name", "config", "weights"):
            if name not in self._fields:
                raise BadRequest(f"{name} is required", param=name, code="missing_required_parameter")
        texts = {name: self._text(name) for name in TEXTS if name in self._fields}
        activate = texts.get("activate", "true")
        if activate not in TRUTHS:
            raise BadRequest(f"activate is {activate[:40]!r}: true or false is accepted", param="activate")
        return Form(
            model=texts["model"],
            name=texts["name"],
            project=texts.get("project", "default"),
            description=texts.get("description"),
            activate=TRUTHS[activate],
            config=bytes(self._fields["config"]),
        )

    def _begin(self, part: MultipartSegment) -> None:
        if part.filename:
            try:
                tensors.check_name(part.filename)
            except tensors.TensorsRefused as error:
                raise AdapterRefused(str(error), part.name[:80]) from None
        if part.name not in TEXTS + FILES:
            raise BadRequest(
                f"unknown field {part.name[:80]!r}; known are {', '.join(TEXTS + FILES)}",
                param=part.name[:80],
                code="unknown_parameter",
            )
        if part.name in self._fields:
            raise BadRequest(f"{part.name} is there more than once", param=part.name)
        self._now = part.name
        self._fields[part.name] = bytearray()

    def _text(self, name: str) -> str:
        try:
            return self._fields[name].decode()
        except UnicodeDecodeError:
            raise BadRequest(f"{name} is not UTF-8", param=name) from None

    def _most(self, name: str) -> int:
        if name == "weights":
            return self._bytes_max
        return settings.BYTES_MAX if name == "config" else TEXT_BYTES_MAX

    def _exceeded(self, name: str) -> Exception:
        if name == "weights":
            return _too_large(self._bytes_max)
        return BadRequest(f"{name} has more than {self._most(name)} bytes, the most accepted", param=name)


def _too_large(bytes_max: int) -> AdapterTooLarge:
    return AdapterTooLarge(
        f"the adapter has more than {bytes_max} bytes, the most that is accepted here: train it with a "
        "smaller rank, or on fewer modules",
        "weights",
    )
