"""Passing server-sent events through as bytes while reading the engine's running token count out of them.

The engine puts `"usage":{…}` on every event because we ask it to. What the client did not ask for is cut out
as a slice of bytes, never parsed and written again. The bytes `,"usage":{` cannot stand inside a JSON string,
where every quotation mark is escaped, so finding them finds the field.
"""

from __future__ import annotations

import re

import msgspec

from penstock.serving.call import UsageView
from penstock.serving.usage import CompletionDetails, EngineUsage, decode_usage

END = b"\n\n"
DONE = b"data: [DONE]"
FIELD = b',"usage":'
FIELD_OPEN = FIELD + b"{"
NULL = FIELD + b"null"
NO_CHOICES = b'"choices":[]'
ERROR_KEY = b'"error":'
ERROR = re.compile(rb'"error": ?\{')
"""A key, so never inside a text; an object, so never a token called "error" among the legacy logprobs."""
ERROR_OBJECT = b'"object":"error"'
"""How vLLM's older releases say it, and engines that follow them."""
ABORTED = b'"finish_reason":"abort"'


class Numbered(msgspec.Struct):
    """The choice that an event belongs to."""

    index: int = 0


class NumberedEvent(msgspec.Struct):
    """As much of an event as tells whose count it bears."""

    choices: list[Numbered] = []


decode_numbered = msgspec.json.Decoder(NumberedEvent).decode


class EventStream:
    """One engine stream: `feed` takes what a read brought and gives what may leave at once.

    From `[DONE]` on everything is kept in `held`: the last byte leaves only after the journal has the record.
    """

    __slots__ = (
        "_counts",
        "_final",
        "_latest",
        "_n",
        "_partial",
        "_single",
        "_view",
        "done",
        "failed",
        "held",
    )

    def __init__(self, view: UsageView, *, prompts: int = 1, n: int = 1) -> None:
        self._view = view
        self._n = n
        self._single = prompts * n == 1
        self._partial = b""
        self._latest = b""
        self._final = b""
        self._counts: dict[int, bytes] = {}
        self.held = b""
        self.done = False
        """The engine said `[DONE]`."""
        self.failed = False
        """The engine reported an error, or cut the answer off itself, instead of finishing it."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they came; return whole events, in the client's view."""
        if self._partial:
            data = self._partial + data
            self._partial = b""
        if not data.endswith(END):
            cut = data.rfind(END) + len(END) if END in data else 0
            data, self._partial = data[:cut], data[cut:]
            if not data:
                return b""
        if ABORTED in data or ERROR_OBJECT in data or (ERROR_KEY in data and ERROR.search(data)):
            self.failed = True
            return b""
        # Only at an event's start: a text may say [DONE], but holds no bare line break.
        before, found, after = data.partition(END + DONE)
        if found:
            self.done = True
            data, self.held = before + END, DONE + after
        elif data.startswith(DONE):
            self.done = True
            data, self.held = b"", data
        if FIELD_OPEN not in data:
            return data
        if data.find(END) == len(data) - len(END):
            return self._pass(data)
        events = data.split(END)
        return b"".join([self._pass(event + END) for event in events[:-1]])

    def usage(self) -> EngineUsage | None:
        """The engine's count so far: the final one, or the sum of the choices' latest; None before any."""
        if latest := self._final or self._latest:
            return decode_usage(latest)
        if not self._counts:
            return None
        counts = {index: decode_usage(count) for index, count in self._counts.items()}
        # Each choice repeats its prompt's count; the n choices of a prompt stand together.
        prompts = {index // self._n: count.prompt_tokens for index, count in counts.items()}
        reasoning = CompletionDetails(sum(count.reasoning_tokens for count in counts.values()))
        output = sum(count.output_tokens for count in counts.values())
        return EngineUsage(sum(prompts.values()), output, None, reasoning)

    def _pass(self, event: bytes) -> bytes:
        """Note one event's count and cut it as the client's view says."""
        at = event.rfind(FIELD_OPEN)
        if at < 0:
            return event
        start = at + len(FIELD)
        end = _object_end(event, start)
        count = event[start:end]
        if NO_CHOICES in event:
            self._final = count
            return b"" if self._view is UsageView.HIDDEN else event
        if self._single:
            self._latest = count
        else:
            numbered = decode_numbered(event[len(b"data: ") :])
            self._counts[numbered.choices[0].index if numbered.choices else 0] = count
        if self._view is UsageView.CONTINUOUS:
            return event
        return event[:at] + (NULL if self._view is UsageView.FINAL else b"") + event[end:]


def _object_end(event: bytes, start: int) -> int:
    """Index after the object that opens at `start`; usage holds numbers, nulls and objects of those only."""
    end = event.index(b"}", start) + 1
    while event.count(b"{", start, end) > event.count(b"}", start, end):
        end = event.index(b"}", end) + 1
    return end
