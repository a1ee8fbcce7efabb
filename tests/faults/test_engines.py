"""Engines die, hang, miscount and fail in words (rows 17, 18, 19, 20, 24)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from rig.check import outcomes
from rig.client import MODEL, End
from rig.room import Room
from rig.scripted import ScriptedEngine
from rig.server import until

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


async def test_an_engine_killed_under_load_is_free_and_another_goes_on(room: Room) -> None:
    """Row 17: SIGKILL of one of two engines; its streams say so and are free, others notice nothing."""
    engine = await room.start_engine()
    await room.start_engine()
    await room.start_gateway()
    async with room.load(clients=8) as load:
        for _ in range(2):
            await load.more(20)
            engine.kept |= {
                name: made for name, made in (await engine.made()).items() if made["outcome"] != "running"
            }
            await engine.kill()
            await load.more(20)
            await engine.start(MODEL, tokens_per_second=100, answer_tokens=1000)
    events = await room.check()
    failed = [seen for seen in load.seen if seen.end in {End.FAILED, End.REFUSED, End.BROKEN}]
    assert 0 < len(failed) <= 2 * 8
    assert {seen.error["code"] for seen in failed if seen.error} == {"engine_failed"}
    assert outcomes(events)["engine_failed"] >= 1


async def test_an_engine_that_kills_itself_at_a_token_is_said_and_free(room: Room) -> None:
    """Row 17: at the first token, and in the middle."""
    engine = await room.start_engine()
    await room.start_gateway()
    for token in (1, 5):
        if not engine.running:
            await engine.start(MODEL, tokens_per_second=100)
        await engine.breaks(die_at_token=token)
        seen = await room.ask(**STREAM)
        assert seen.error is not None
        assert seen.error["code"] == "engine_failed"
        assert (await room.event(seen))["outcome"] == "engine_failed"
    await room.check()


async def test_an_engine_that_hangs_is_given_up_and_its_requests_are_free(room: Room) -> None:
    """Row 18: no request gets another token and /health says 200; what was begun is never begun again."""
    hanging = await room.start_engine()
    await room.start_engine()
    await room.start_gateway(stall_timeout_s=2, first_byte_timeout_s=4)
    async with room.load(clients=8) as load:
        await load.more(20)
        await hanging.breaks(hang_at_token=3)
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(hanging.socket)), timeout=30
        ) as client:
            assert (await client.get("http://engine/health")).status_code == 200

        async def given_up() -> bool:
            return any(seen.end in {End.FAILED, End.REFUSED} for seen in load.seen)

        await until(given_up, "somebody is told that the engine hangs")
        await hanging.mend()
        await load.more(20)
    events = await room.check()
    assert outcomes(events)["stalled"] >= 1
    # Each request ran at one engine only: what had begun was not begun anew elsewhere.
    counted = [set(await engine.made()) for engine in room.engines]
    assert not counted[0] & counted[1]


def piece(number: int, usage: dict[str, Any] | None = None, finish: str | None = None) -> bytes:
    """The event of one token, as vLLM writes it."""
    choice = {"index": 0, "delta": {"content": f" t{number}"}, "logprobs": None, "finish_reason": finish}
    return event({"choices": [choice]} | ({"usage": usage} if usage else {}))


def event(fields: dict[str, Any]) -> bytes:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
    }
    return b"data: " + json.dumps(head | fields, separators=(",", ":")).encode() + b"\n\n"


def count(prompt: int, completion: int, **more: object) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    } | more


def final(usage: dict[str, Any]) -> bytes:
    return event({"choices": [], "usage": usage})


DONE = b"data: [DONE]\n\n"
THREE = [piece(number, count(7, number)) for number in (1, 2, 3)]
BARE = [piece(number) for number in (1, 2, 3)]
CACHED = {"prompt_tokens_details": {"cached_tokens": 4}}

SCRIPTS: dict[str, tuple[Sequence[bytes], tuple[str, int, int, int]]] = {
    "usage at the end": ([*THREE, final(count(7, 3)), DONE], ("done", 7, 0, 3)),
    "no usage anywhere": ([*BARE, DONE], ("engine_failed", 0, 0, 0)),
    "running count, and none at the end": ([*THREE, DONE], ("done", 7, 0, 3)),
    "usage at the end only": ([*BARE, final(count(7, 3)), DONE], ("done", 7, 0, 3)),
    "usage of zero": ([*BARE, final(count(0, 0)), DONE], ("engine_failed", 0, 0, 0)),
    "usage of zero after a running count": (
        [*THREE, final(count(0, 0)), DONE],
        ("engine_failed", 0, 0, 0),
    ),
    "usage twice": ([*THREE, final(count(7, 3)), final(count(7, 3)), DONE], ("done", 7, 0, 3)),
    "cached tokens in a second usage": (
        [*THREE, final(count(7, 3)), final(count(7, 3, **CACHED)), DONE],
        ("done", 7, 4, 3),
    ),
    "cached tokens beside the last token": (
        [*THREE[:2], piece(3, count(7, 3, **CACHED), "stop"), DONE],
        ("done", 7, 4, 3),
    ),
    "more cached than read": (
        [*THREE, final(count(7, 3, prompt_tokens_details={"cached_tokens": 8})), DONE],
        ("engine_failed", 0, 0, 0),
    ),
    "a count below zero": ([*THREE, final(count(7, -3)), DONE], ("engine_failed", 0, 0, 0)),
}


@pytest.fixture
async def scripted_room(room: Room) -> Any:
    """A gateway in front of whatever a script says."""
    engine = ScriptedEngine(room.folder / "scripted.sock")
    await engine.start()
    await room.register("scripted", engine.socket)
    await room.start_gateway()

    async def run(events: Sequence[bytes]) -> Any:
        engine.events = events
        return await room.ask(**STREAM)

    yield room, run
    await engine.close()


async def test_whatever_an_engine_says_of_its_count_is_billed_once_and_only_if_it_makes_sense(
    scripted_room: Any,
) -> None:
    """Row 19: none, zero, twice, running, late, cached tokens in a second one, nonsense."""
    room, run = scripted_room
    for name, (script, expected) in SCRIPTS.items():
        seen = await run(script)
        row = await room.event(seen)
        found = (row["outcome"], row["input_tokens"], row["cached_tokens"], row["output_tokens"])
        assert found == expected, name
        if expected[0] == "done" and seen.usage is not None:
            assert (seen.usage["prompt_tokens"], seen.usage["completion_tokens"]) == (
                expected[1],
                expected[3],
            )
    await room.check()


ERRORS = {
    "vLLM": b'data: {"error": {"message": "EngineCore died", "type": "Error", "code": 500}}\n\n',
    "compact": b'data: {"error":{"message":"EngineCore died","code":500}}\n\n',
    "older vLLM": b'data: {"object":"error","message":"EngineCore died","type":"Error","code":500}\n\n',
    "beside an id": event({"choices": [], "error": {"message": "EngineCore died", "code": 500}}),
}


@pytest.mark.parametrize("ends_with_done", [True, False])
async def test_an_error_in_the_stream_is_never_billed_as_an_answer(
    scripted_room: Any, ends_with_done: bool
) -> None:
    """Row 20: after two tokens an error comes as data, in all shapes that engines were seen to send."""
    room, run = scripted_room
    for name, error in ERRORS.items():
        seen = await run([*THREE[:2], error, *([DONE] if ends_with_done else [])])
        row = await room.event(seen)
        assert (row["outcome"], row["cost_nano_usd"]) == ("engine_failed", 0), name
        assert seen.end is End.FAILED, name
    await room.check()


SHAPES: list[dict[str, Any]] = [
    {"n": 4},
    {"n": 3, "logprobs": True, "top_logprobs": 2},
    {"stop": ["t5"], "max_tokens": 20},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    {"reasoning_effort": "low"},
    {"temperature": 0.7, "seed": 3, "n": 2},
]


@pytest.mark.parametrize("streamed", [True, False])
async def test_every_shape_of_answer_costs_what_the_engine_counted(room: Room, streamed: bool) -> None:
    """Row 24: n > 1, tools, reasoning, stop strings and logprobs, with cached input, while clients leave."""
    engine = await room.start_engine()
    await engine.breaks(cached_tokens=1)
    await room.start_gateway()
    options = STREAM if streamed else {}
    asking = [room.ask(**(shape | options)) for shape in SHAPES]
    leaving = [room.ask(leave_at=4, **(shape | STREAM | {"max_tokens": 300})) for shape in SHAPES]
    texts = [room.ask(path="/v1/completions", prompt=["a b", "c"], max_tokens=6, n=2, **options)]
    seen = await asyncio.gather(*asking, *leaving, *texts)
    assert [one.end for one in seen[: len(SHAPES)]] == [End.FINISHED] * len(SHAPES)
    events = await room.check()
    assert len(events) == len(seen)
    assert outcomes(events)["client_gone"] == len(SHAPES)
    assert all(event["cached_tokens"] == 1 for event in events)
