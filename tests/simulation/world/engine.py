"""Engines: they generate tokens at their own pace and keep their own count, which is the truth of every run.

They speak HTTP to the real engine client, byte for byte as vLLM's server does, and answer for their receipts.
What is asked of them comes in the request's body; what befalls them comes from outside.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
from world.loop import CURRENT, VirtualLoop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"x","choices":[{"index":%d,"delta":{"content":"%b"},"finish_reason":%b}]%b}\n\n'
USAGE = b',"usage":{"prompt_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}'
FINAL = b'data: {"id":"x","choices":[]%b}\n\n'
ERROR = b'data: {"error":{"message":"CUDA error","type":"server_error"}}\n\n'
NOTICES_S = (0.0, 0.03)
"""How long an engine goes on after its client left."""


class Ask(msgspec.Struct, frozen=True):
    """A body as the simulated engines read it."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    """What it would say if nobody stopped it."""
    step_tokens: int
    """Tokens per event."""
    step_s: float
    first_s: float
    n: int = 1
    max_tokens: int | None = None
    stream: bool = True
    trouble: str = ""
    """What goes wrong inside the engine: error, cut, no_usage, refuse, fail, abort."""
    trouble_at: int = 0
    """After how many tokens."""


decode_ask = msgspec.json.Decoder(Ask).decode


class Job:
    """One request at an engine."""

    __slots__ = ("ask", "engine", "made", "request_id", "running", "transport", "waiting_for_receipt")

    def __init__(self, engine: Engine, request_id: str, ask: Ask, transport: Transport) -> None:
        self.engine = engine
        self.request_id = request_id
        self.ask = ask
        self.transport = transport
        self.made = [0] * ask.n
        """Tokens generated, by choice: the truth."""
        self.running = True
        self.waiting_for_receipt: list[Transport] = []

    @property
    def tokens(self) -> int:
        return sum(self.made)


class Engine:
    """One engine process and the socket it listens on."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, name: str, made: dict[str, list[Job]]) -> None:
        self._loop = loop
        self._rng = rng
        self.name = name
        self.socket = f"/engines/{name}.sock"
        self.jobs: dict[str, Job] = {}
        self._transports: dict[Transport, None] = {}
        self._made = made
        self.stalled = False
        self.life = 0
        self.start()

    def start(self) -> None:
        self.stalled = False
        self._loop.sockets[self.socket] = lambda protocol: Transport(self, protocol, self._loop)

    def die(self) -> None:
        """Killed: every connection breaks, and its receipts are gone."""
        self.life += 1
        self._loop.sockets.pop(self.socket, None)
        for job in self.jobs.values():
            job.running = False
        self.jobs = {}
        for transport in list(self._transports):
            transport.lose(ConnectionResetError("reset by peer"))
        self._transports = {}

    def accept(self, transport: Transport) -> None:
        self._transports[transport] = None

    def forget(self, transport: Transport) -> None:
        """The other side is gone: noticed a little later, and what was running for it is stopped."""
        self._transports.pop(transport, None)
        self._loop.outside(self._rng.uniform(*NOTICES_S), self._stop_for, transport)

    def _stop_for(self, transport: Transport) -> None:
        for job in list(self.jobs.values()):
            if job.transport is transport and job.running:
                self._finish(job)

    def take(self, transport: Transport, request: bytes) -> None:
        """A whole request has arrived."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, *headers = head.decode().split("\r\n")
        path = first.split(" ")[1]
        if path.startswith("/penstock/receipts/"):
            request_id, _, question = path.removeprefix("/penstock/receipts/").partition("?")
            waits = question != "wait_ms=0"
            self._loop.outside(0.0005, self._receipt, transport, request_id, self.life, waits)
            return
        request_id = next(
            line.partition(": ")[2] for line in headers if line.lower().startswith("x-request-id")
        )
        ask = decode_ask(body)
        if ask.trouble == "refuse":
            transport.whole(b"400 Bad Request", b'{"error":{"message":"no"}}')
            return
        if ask.trouble == "fail":
            transport.whole(b"500 Internal Server Error", b'{"error":{"message":"died"}}')
            return
        job = Job(self, request_id, ask, transport)
        self.jobs[request_id] = job
        self._made.setdefault(request_id, []).append(job)
        self._loop.outside(ask.first_s, self._begin, job, self.life)

    def _begin(self, job: Job, life: int) -> None:
        if not job.running or life != self.life:
            return
        if self.stalled:
            self._loop.outside(1.0, self._begin, job, life)
            return
        if job.ask.stream:
            job.transport.deliver(HEAD)
        self._step(job, life)

    def _step(self, job: Job, life: int) -> None:
        if not job.running or life != self.life:
            return
        ask = job.ask
        if self.stalled:
            self._loop.outside(1.0, self._step, job, life)
            return
        limit = min(ask.output_tokens, ask.max_tokens or ask.output_tokens)
        events = []
        for index in range(ask.n):
            count = min(ask.step_tokens, limit - job.made[index])
            if count <= 0:
                continue
            job.made[index] += count
            ended = job.made[index] >= limit
            events.append(
                EVENT
                % (index, b"t" * count, b'"stop"' if ended else b"null", self._usage(job, job.made[index]))
            )
        if ask.trouble and ask.trouble != "no_usage" and job.tokens >= ask.trouble_at:
            self._trouble(job, events)
            return
        done = all(made >= limit for made in job.made)
        if ask.stream:
            if done:
                events.append(FINAL % self._usage(job, job.tokens))
                events.append(b"data: [DONE]\n\n")
            job.transport.chunk(b"".join(events), last=done)
        elif done:
            usage = self._usage(job, job.tokens)
            body = b'{"id":"x","choices":[{"index":0,"message":{"content":"%b"}}]%b}' % (
                b"t" * job.tokens,
                usage,
            )
            job.transport.whole(b"200 OK", body)
        if done:
            self._finish(job)
        else:
            self._loop.outside(ask.step_s, self._step, job, life)

    def _usage(self, job: Job, tokens: int) -> bytes:
        if job.ask.trouble == "no_usage":
            return b""
        return USAGE % (job.ask.prompt_tokens, tokens, job.ask.cached_tokens)

    def _trouble(self, job: Job, events: list[bytes]) -> None:
        if job.ask.trouble == "cut" or not job.ask.stream:
            self._finish(job)
            self._transports.pop(job.transport, None)
            job.transport.lose(ConnectionResetError("reset by peer"))
            return
        last = ERROR if job.ask.trouble == "error" else EVENT % (0, b"", b'"abort"', b"")
        job.transport.chunk(b"".join([*events, last, b"data: [DONE]\n\n"]), last=True)
        self._finish(job)

    def _finish(self, job: Job) -> None:
        job.running = False
        for transport in job.waiting_for_receipt:
            self._send_receipt(transport, job)
        job.waiting_for_receipt.clear()

    def _receipt(self, transport: Transport, request_id: str, life: int, waits: bool) -> None:
        job = self.jobs.get(request_id)
        if life != self.life or self.stalled:
            return
        if job is None:
            transport.whole(b"404 Not Found", b"{}")
        elif job.running and waits:
            job.waiting_for_receipt.append(transport)
        else:
            self._send_receipt(transport, job)

    def _send_receipt(self, transport: Transport, job: Job) -> None:
        ask = job.ask
        # An engine that was stopped before its first step has read nothing that it counts.
        counts = (ask.prompt_tokens, ask.cached_tokens, job.tokens)
        finished = b"false" if job.running else b"true"
        receipt = b'{"prompt_tokens":%d,"cached_tokens":%d,"completion_tokens":%d,"finished":%b}'
        transport.whole(b"200 OK", receipt % (*counts, finished))


class Transport:
    """The engine's end of a connection, as the client's protocol sees it."""

    def __init__(self, engine: Engine, protocol: Any, loop: VirtualLoop) -> None:
        self._engine = engine
        self._protocol = protocol
        self._loop = loop
        process = CURRENT.get()
        self._context = process.context if process is not None else None
        self._closed = False
        self._paused = False
        self._held: list[bytes] = []
        engine.accept(self)
        if process is not None:
            process.at_death.append(self.abort)

    # The client's protocol calls these.

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._loop.outside(0.0003, self._engine.take, self, data)

    def abort(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._engine.forget(self)
        self._loop.call_soon(self._protocol.connection_lost, None, context=self._context)

    close = abort

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        if self._held:
            held = b"".join(self._held)
            self._held.clear()
            self._loop.call_soon(self._arrive, held, context=self._context)

    # The engine calls these.

    def deliver(self, data: bytes) -> None:
        if self._closed:
            return
        if self._paused:
            self._held.append(data)
        else:
            self._loop.call_soon(self._arrive, data, context=self._context)

    def _arrive(self, data: bytes) -> None:
        if not self._closed:
            self._protocol.data_received(data)

    def chunk(self, data: bytes, *, last: bool) -> None:
        self.deliver(b"%x\r\n%b\r\n%b" % (len(data), data, b"0\r\n\r\n" if last else b""))

    def whole(self, status: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.deliver(head % (status, len(body)) + body)

    def lose(self, error: Exception) -> None:
        """Break, once what was sent has been read."""
        if not self._closed:
            self._closed = True
            self._held.clear()
            self._loop.call_soon(self._protocol.connection_lost, error, context=self._context)
