"""Questions to an engine off the token path: a real one-token answer, and its figures."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from penstock_catalog.cards import Task
from penstock_engines import scrape
from penstock_engines.failures import EngineFailure, ScrapeError, SleepError
from penstock_engines.scrape import EngineFigures
from penstock_engines.spec import EngineSpec

SCRAPE_S: Final = 10.0
"""The metrics page takes milliseconds; an engine that is this late is not well."""

SLEEPING: Final = {True: '{"is_sleeping":true}', False: '{"is_sleeping":false}'}

CHAT: Final = "/v1/chat/completions"


class ProbeError(EngineFailure):
    """The engine gave no proper answer to a probe."""


class EngineProbe:
    """A client of one engine's socket, for its keeper."""

    def __init__(self, spec: EngineSpec, socket: Path) -> None:
        self._spec = spec
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        # One connection at a time, none kept: a keeper asks seldom, and each question should find out whether
        # the engine still accepts.
        limits = httpx.Limits(max_keepalive_connections=0)
        transport_client = httpx.AsyncClient(transport=transport, base_url="http://engine", limits=limits)
        self._client = transport_client

    async def __aenter__(self) -> Self:
        """Use as a context so that the connection is closed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def listening(self) -> bool:
        """Whether the engine accepts requests; says nothing about whether it answers them."""
        try:
            response = await self._client.get("/health", timeout=SCRAPE_S)
        except httpx.HTTPError:
            return False
        return response.status_code == httpx.codes.OK

    async def answer(self, timeout_s: float) -> None:
        """Have the engine do the smallest real piece of its work; raises ProbeError unless it does."""
        path, body = _smallest_work(self._spec)
        response = await self._post(path, body, timeout_s)
        if response.status_code == httpx.codes.BAD_REQUEST and path == CHAT:
            # A model without a chat template, or with one that wants other words, completes text as well.
            body = {"json": {"model": self._spec.model, "prompt": "a", "max_tokens": 1}}
            response = await self._post("/v1/completions", body, timeout_s)
        if response.status_code != httpx.codes.OK:
            raise ProbeError(f"a one-token request was answered with status {response.status_code}")

    async def _post(self, path: str, body: dict[str, Any], timeout_s: float) -> httpx.Response:
        try:
            return await self._client.post(path, timeout=timeout_s, **body)
        except httpx.TimeoutException:
            raise ProbeError(f"no answer to a one-token request within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise ProbeError(f"no answer to a one-token request: {type(error).__name__}") from None

    async def sleep(self, level: int, timeout_s: float) -> None:
        """Have the engine free its GPU's memory; raises SleepError unless it says that it sleeps."""
        await self._turn(f"/sleep?level={level}", timeout_s, asleep=True)

    async def wake_up(self, timeout_s: float) -> None:
        """Have the engine take its GPU's memory again; raises SleepError unless it says that it is awake."""
        await self._turn("/wake_up", timeout_s, asleep=False)

    async def _turn(self, path: str, timeout_s: float, *, asleep: bool) -> None:
        try:
            done = await self._client.post(path, timeout=timeout_s)
            said = await self._client.get("/is_sleeping", timeout=SCRAPE_S)
        except httpx.HTTPError as error:
            raise SleepError(f"no answer to POST {path}: {type(error).__name__}") from None
        if done.status_code != httpx.codes.OK or said.text.replace(" ", "") != SLEEPING[asleep]:
            raise SleepError(f"POST {path} was answered with status {done.status_code}: {said.text[:100]}")

    async def figures(self) -> EngineFigures:
        """Read the engine's figures; raises ScrapeError."""
        try:
            response = await self._client.get("/metrics", timeout=SCRAPE_S)
        except httpx.HTTPError as error:
            raise ScrapeError(f"no answer to GET /metrics: {type(error).__name__}") from None
        if response.status_code != httpx.codes.OK:
            raise ScrapeError(f"GET /metrics was answered with status {response.status_code}")
        return scrape.parse(response.text)


def _smallest_work(spec: EngineSpec) -> tuple[str, dict[str, Any]]:
    model = spec.model
    if spec.task is Task.EMBEDDING:
        return "/v1/embeddings", {"json": {"model": model, "input": "a"}}
    if spec.task is Task.RERANKING:
        return "/v1/rerank", {"json": {"model": model, "query": "a", "documents": ["a"]}}
    if spec.task is Task.TRANSCRIPTION:
        return "/v1/audio/transcriptions", {
            "data": {"model": model},
            "files": {"file": ("a.wav", _silence())},
        }
    # The route that people use first is the one that should not be slow the first time.
    messages = [{"role": "user", "content": "a"}]
    return CHAT, {"json": {"model": model, "messages": messages, "max_tokens": 1}}


def _silence() -> bytes:
    """A tenth of a second of it, 16 kHz, one channel."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(3_200))
    return buffer.getvalue()
