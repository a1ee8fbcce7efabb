"""What a simulated engine knows and does, without HTTP: its requests, their tokens, its oracle."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from penstock_engines.adapter_names import place_of
from penstock_engines.receipt_log import Line, ReceiptLog, now_ms
from penstock_engines.simulated import wire
from penstock_engines.simulated.faults import NONE, Fault
from penstock_engines.simulated.prefix_cache import PrefixCache

TALLIES_MAX: Final = 100_000
NAMELESS: Final = "simulated-"
"""What requests without an id are called, with a number."""


class Outcome(StrEnum):
    """How far a request has come."""

    RUNNING = "running"
    """Tokens are being made."""
    FINISHED = "finished"
    """All its tokens were made."""
    ABORTED = "aborted"
    """Its client left, or a fault cut it."""


@dataclass(slots=True)
class Tally:
    """What the engine made for one request: the oracle."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int = 0
    outcome: Outcome = Outcome.RUNNING


@dataclass
class Settings:
    """How the engine behaves when nothing is broken."""

    model: str
    tokens_per_second: float = 0.0
    """Per choice; 0: as fast as the client reads."""
    first_token_ms: float = 0.0
    answer_tokens: int = 16
    """Length of an answer that neither `max_tokens` nor `ignore_eos` makes another."""
    context_length: int = 1_048_576
    dimensions: int = 8
    adapters: Path | None = None
    """Where adapters of the model lie; None: it takes none."""
    prefix_cache: bool = False
    """Whether prompts' beginnings are known again; without it only a fault says that any were."""


@dataclass
class Engine:
    """All requests of one simulated engine."""

    settings: Settings
    fault: Fault = NONE
    hung: bool = False
    asleep: bool = False
    running: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    log: ReceiptLog | None = None
    prefixes: PrefixCache = field(default_factory=PrefixCache)
    adapters: dict[str, Path] = field(default_factory=dict)
    """Those it has loaded, by digest."""
    _names: dict[int, str] = field(default_factory=dict)
    """What running requests are called, by the identity of their tally."""
    _tries: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Requests that came more than once: how often before, and the tokens of that."""

    def serves(self, model: str) -> bool:
        """Whether it is, or finds, what a request names."""
        if model == self.settings.model or model in self.adapters:
            return True
        folder = self.settings.adapters
        place = place_of(folder, model) if folder is not None else None
        if place is not None:
            self.adapters[model] = place
        return place is not None

    def begin(self, request_id: str, prompt_tokens: int, cached_tokens: int) -> Tally:
        """Take on a request; the oldest are forgotten when there are too many."""
        tally = Tally(prompt_tokens, cached_tokens)
        if (before := self.tallies.get(request_id)) is not None:
            tries, *sums = self._tries.get(request_id, (0, 0, 0, 0))
            told = (before.prompt_tokens, before.cached_tokens, before.completion_tokens)
            prompt, cached, completion = (now + more for now, more in zip(sums, told, strict=True))
            self._tries[request_id] = (tries + 1, prompt, cached, completion)
        self._names[id(tally)] = request_id
        if len(self.tallies) >= TALLIES_MAX:
            del self.tallies[next(iter(self.tallies))]
        self.tallies[request_id] = tally
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self.running += 1
        return tally

    def end(self, tally: Tally, outcome: Outcome) -> None:
        """Be done with a request."""
        if tally.outcome is Outcome.RUNNING:
            tally.outcome = outcome
            self.running -= 1
            name = self._names.pop(id(tally))
            if self.log is not None:
                self.log.add(self._line(name, tally))

    def close(self) -> None:
        """End by itself, with everything written down."""
        if self.log is not None:
            self.log.close()

    def _line(self, name: str, tally: Tally) -> Line:
        """The receipt of a request that is over, with what it used when it came before."""
        tries, prompt, cached, completion = self._tries.get(name, (0, 0, 0, 0))
        told = (tally.prompt_tokens, tally.cached_tokens, tally.completion_tokens)
        aborted = tally.outcome is Outcome.ABORTED
        whole = (prompt + told[0], cached + told[1], completion + told[2])
        # Names that we gave ourselves are no ids.
        name = "" if name.startswith(NAMELESS) else name
        return Line(name, now_ms(), *whole, tries + 1, aborted, *told)

    def count(self, tally: Tally, tokens: int) -> None:
        """Tokens were made."""
        tally.completion_tokens += tokens
        self.generation_tokens += tokens

    def sleep(self) -> bytes:
        """Take no more requests, as after vLLM's /sleep; those in hand are lost."""
        self.asleep = not self.fault.sleepless
        return b'{"status":"sleeping","level":1}'

    def wake_up(self) -> bytes:
        """Take requests again."""
        self.asleep = self.asleep and self.fault.sleepless
        return b'{"status":"awake","tags":null}'

    def state(self) -> dict[str, str | int]:
        """Which start of the engine this is, and how busy."""
        if self.log is None:
            return {"boot": "", "in_hand": self.running, "done": 0}
        return {"boot": self.log.boot, "in_hand": self.running, "done": self.log.requests}

    def metrics(self) -> bytes:
        """The page that vLLM's figures are read from."""
        figures = {
            "num_requests_running": self.running,
            "num_requests_waiting": 0,
            "kv_cache_usage_perc": min(1.0, self.running / 256),
            "prompt_tokens_total": self.prompt_tokens,
            "prompt_tokens_cached_total": self.cached_tokens,
            "generation_tokens_total": self.generation_tokens,
            "num_preemptions_total": 0,
        }
        labels = f'{{engine="0",model_name="{self.settings.model}"}}'
        return "".join(f"vllm:{name}{labels} {float(value)}\n" for name, value in figures.items()).encode()


class Generation:
    """One answer in the making, all its choices in step."""

    def __init__(
        self,
        engine: Engine,
        form: wire.Wire,
        tally: Tally,
        fault: Fault,
        *,
        choices: int,
        tokens: int,
        finish: bytes,
        streamed: bool,
        usage: bool,
        write: Callable[[bytes], None],
        cut: Callable[[], None],
        over: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._form = form
        self._tally = tally
        self._fault = fault
        self._choices = choices
        self._tokens = tokens
        self._finish = finish
        self._streamed = streamed
        self._usage = usage and not fault.without_usage
        self._write = write
        self._cut = cut
        self._over = over
        self._made = 0
        self._has_hung = False
        self._paused = False
        self._timer: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        rate = engine.settings.tokens_per_second
        self._pace_s = 1.0 / rate if rate else 0.0

    def start(self) -> None:
        """Begin; the first token comes after the time to the first token."""
        wait_ms = self._fault.first_token_ms
        wait_s = (self._engine.settings.first_token_ms if wait_ms is None else wait_ms) / 1000
        self._timer = (
            self._loop.call_later(wait_s, self._open) if wait_s else self._loop.call_soon(self._open)
        )

    def abort(self) -> None:
        """The client is gone: make no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._engine.end(self._tally, Outcome.ABORTED)

    def pause(self) -> None:
        """The client does not read."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        if self._timer is None and self._tally.outcome is Outcome.RUNNING:
            self._timer = self._loop.call_soon(self._step)

    def _open(self) -> None:
        if self._streamed:
            opening = b"".join(
                self._form.first(index, self._tally.prompt_tokens) for index in range(self._choices)
            )
            self._write(opening)
        self._step()

    def _step(self) -> None:
        """Make one token of every choice."""
        self._timer = None
        if self._paused or self._break():
            return
        number = self._made
        self._made += 1
        self._engine.count(self._tally, self._choices)
        last = self._made == self._tokens
        if self._streamed:
            finish = self._finish if last else None
            prompt_tokens = self._tally.prompt_tokens
            events = [
                self._form.token(index, number, prompt_tokens, finish) for index in range(self._choices)
            ]
            self._write(events[0] if len(events) == 1 else b"".join(events))
        if last:
            self._close()
        elif self._pace_s:
            self._timer = self._loop.call_later(self._pace_s, self._step)
        else:
            self._timer = self._loop.call_soon(self._step)

    def _close(self) -> None:
        tally = self._tally
        self._engine.end(tally, Outcome.FINISHED)
        if self._streamed:
            counts = (tally.prompt_tokens, tally.cached_tokens, tally.completion_tokens)
            self._write((self._form.usage(*counts) if self._usage else b"") + wire.DONE)
        self._over()

    def _break(self) -> bool:
        """Let happen what is due before the next token; whether something stopped this request."""
        fault = self._fault
        engine = self._engine
        reached = self._made * self._choices + 1
        if fault.die_at_token is not None and reached >= fault.die_at_token:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.hang_at_token is not None and reached >= fault.hang_at_token and not self._has_hung:
            engine.hung = self._has_hung = True
        if engine.hung:
            # Looks again now and then, so that a mended engine goes on.
            self._timer = self._loop.call_later(0.05, self._step)
            return True
        if fault.cut_at_token is not None and reached >= fault.cut_at_token:
            engine.end(self._tally, Outcome.ABORTED)
            self._cut()
            return True
        if fault.error_at_token is not None and reached >= fault.error_at_token:
            engine.end(self._tally, Outcome.ABORTED)
            if self._streamed:
                problem = wire.error(fault.error_text, "InternalServerError", None, 500)
                self._write(wire.chunk(b"data: %b\n\n" % problem) + wire.DONE)
            self._over()
            return True
        return False
