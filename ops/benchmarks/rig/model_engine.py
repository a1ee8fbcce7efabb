"""An engine in virtual time that batches as vLLM does: steps, a largest batch, prefill, a prefix cache.

Every step makes one token for each running request and takes as long as its prompts and its batch make it.
Prompts are lists of parts, each with a name: what begins with the same names has the same beginning.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

Part = tuple[str, int]
"""A part of a prompt: its name, which tells it from others, and its tokens."""


@dataclass(frozen=True)
class Machine:
    """What an engine can do: about a 7B model on one small GPU."""

    batch_max: int = 8
    step_s: float = 0.02
    """A step that only decodes."""
    prefill_tokens_per_s: float = 8_000.0
    step_tokens_max: int = 2_048
    """Prompt tokens read in one step at most: longer ones take several (chunked prefill)."""
    cache_tokens: int = 0
    """Tokens its prefix cache keeps; 0: it has none."""


@dataclass(eq=False)
class Work:
    """One request at an engine."""

    prompt: list[Part]
    output_tokens: int
    on_token: Callable[[Work], None]
    """Told after every token."""
    made_tokens: int = 0
    cached_tokens: int = 0
    unread_tokens: int = 0
    """Of the prompt; no token is made before all is read."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def prompt_tokens(self) -> int:
        """Of the whole prompt, cached or not."""
        return sum(tokens for _, tokens in self.prompt)


class PrefixCache:
    """Beginnings of prompts, the longest unused dropped first."""

    def __init__(self, tokens_max: int) -> None:
        self._tokens_max = tokens_max
        self._tokens = 0
        self._parts: OrderedDict[str, int] = OrderedDict()

    def meet(self, prompt: list[Part]) -> int:
        """Tokens at the beginning that are here; the prompt is here afterwards."""
        known = 0
        for name, tokens in prompt:
            if name not in self._parts:
                break
            known += tokens
        # The first part is used last, so that an end is dropped before what it continues.
        for name, tokens in reversed(prompt):
            self._tokens += tokens - self._parts.pop(name, 0)
            self._parts[name] = tokens
        while self._tokens > self._tokens_max:
            self._tokens -= self._parts.popitem(last=False)[1]
        return known


class ModelEngine:
    """One engine; first come, first served within, as vLLM is."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._cache = PrefixCache(machine.cache_tokens)
        self._waiting: deque[Work] = deque()
        self._running: list[Work] = []
        self._stepping: asyncio.TimerHandle | None = None
        self.busy_s = 0.0

    def begin(self, work: Work) -> None:
        """Take a request."""
        self._waiting.append(work)
        if self._stepping is None:
            self._step()

    def _step(self) -> None:
        """Begin a step: let in whom there is room for, and know when it ends."""
        while self._waiting and len(self._running) < self._machine.batch_max:
            work = self._waiting.popleft()
            if self._machine.cache_tokens:
                work.cached_tokens = self._cache.meet(work.prompt)
            work.unread_tokens = work.prompt_tokens - work.cached_tokens
            self._running.append(work)
        if not self._running:
            self._stepping = None
            return
        left = self._machine.step_tokens_max
        for work in self._running:
            read = min(left, work.unread_tokens)
            work.unread_tokens -= read
            left -= read
        read = self._machine.step_tokens_max - left
        took_s = self._machine.step_s + read / self._machine.prefill_tokens_per_s
        self.busy_s += took_s
        self._stepping = asyncio.get_running_loop().call_later(took_s, self._stepped)

    def _stepped(self) -> None:
        """End a step: every running request whose prompt is read has one token more."""
        running, self._running = self._running, []
        over = []
        for work in running:
            if work.unread_tokens:
                self._running.append(work)
                continue
            work.made_tokens += 1
            work.on_token(work)
            if work.made_tokens >= work.output_tokens:
                over.append(work)
            else:
                self._running.append(work)
        for work in over:
            work.over.set()
        # Whoever waited for a place of theirs is here before the next step begins.
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, self._step)
