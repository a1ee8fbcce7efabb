"""A request that is sent again is executed once and charged once, and says when it is a replay."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest

from penstock.admission.idempotency import claims

JSON = {"content-type": "application/json"}
MODEL = "penstock/demo-chat"
CHAT = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
Body = Callable[..., bytes]


def keyed(key: str) -> dict[str, str]:
    return {**JSON, "idempotency-key": key}


@pytest.fixture
async def sdk(bench: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=bench.url + "/v1", api_key=bench.key, max_retries=0) as client:
        yield client


async def events(bench: Any) -> list[Any]:
    """All usage events, once everything that was recorded until now is shipped."""
    await bench.gateway.shipper.ship_once()
    return list(await bench.database.fetch("select * from billing.usage_event order by ended_at"))


async def state(bench: Any) -> list[str]:
    """The state of every claim."""
    rows = await bench.database.fetch("select state from admission.claim order by claimed_at")
    return [row["state"] for row in rows]


async def in_states(bench: Any, states: list[str]) -> None:
    """Wait until the claims are in these states."""

    async def there() -> bool | None:
        return True if await state(bench) == states else None

    await bench.until(there, 30)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT, {}),
        (CHAT, {"stream": True}),
        (CHAT, {"stream": True, "stream_options": {"include_usage": True}, "n": 2}),
        ("/v1/completions", {"prompt": "Hello", "messages": None}),
    ],
)
async def test_a_finished_request_is_replayed_as_it_was_and_not_charged_again(
    bench: Any, chat: Body, path: str, more: dict[str, Any]
) -> None:
    engine = await bench.start_engine()
    fields = {k: v for k, v in json.loads(chat(**more)).items() if v is not None}
    body = json.dumps(fields).encode()
    async with bench.client() as client:
        first = await client.post(path, content=body, headers=keyed("a"))
        again = await client.post(path, content=body, headers=keyed("a"))
    assert first.status_code == again.status_code == 200, again.text
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-original-request-id"] == first.headers["x-request-id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert float(again.headers["x-penstock-cost-usd"]) == 0
    [event] = await events(bench)
    assert event["request_id"] == first.headers["x-request-id"]
    assert float(again.headers["x-original-cost-usd"]) * 1e9 == pytest.approx(event["cost_nano_usd"])
    assert event["cost_nano_usd"] > 0
    assert len(await engine.made()) == 1


async def test_the_official_client_gets_the_same_answer_again(bench: Any, sdk: openai.AsyncOpenAI) -> None:
    await bench.start_engine()
    headers = {"Idempotency-Key": str(uuid.uuid4())}

    async def whole() -> Any:
        return await sdk.chat.completions.with_raw_response.create(
            model=MODEL, messages=MESSAGES, max_tokens=9, extra_headers=headers
        )

    async def streamed() -> list[Any]:
        key = {"Idempotency-Key": headers["Idempotency-Key"] + "-stream"}
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=9, stream=True, extra_headers=key
        )
        return [chunk async for chunk in stream]

    first, again = await whole(), await whole()
    assert again.parse() == first.parse()
    assert again.headers["idempotent-replayed"] == "true"
    chunks = await streamed()
    assert await streamed() == chunks
    assert len(chunks) > 1
    assert len(await events(bench)) == 2


async def test_fifty_at_once_are_executed_once(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine(tokens_per_second=100)
    async with bench.client() as client:
        answers = await asyncio.gather(
            *(client.post(CHAT, content=chat(), headers=keyed("same"), timeout=60) for _ in range(50))
        )
        by_status = [answer.status_code for answer in answers]
        executed = [a for a in answers if a.status_code == 200 and "idempotent-replayed" not in a.headers]
        refused = [a for a in answers if a.status_code == 409]
        assert len(executed) == 1, by_status
        assert set(by_status) <= {200, 409}
        assert refused
        assert {a.json()["error"]["code"] for a in refused} == {"idempotency_in_progress"}
        assert all(1 <= int(a.headers["retry-after"]) <= 30 for a in refused)
        last = await client.post(CHAT, content=chat(), headers=keyed("same"))
    assert last.content == executed[0].content
    assert len(await events(bench)) == 1
    assert len(await engine.made()) == 1


async def test_the_same_key_with_another_body_is_refused(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        first = await client.post(CHAT, content=chat(), headers=keyed("a"))
        other = await client.post(CHAT, content=chat(max_tokens=3), headers=keyed("a"))
        elsewhere = await client.post(
            "/v1/completions", content=b'{"model":"%b","prompt":"x"}' % MODEL.encode(), headers=keyed("a")
        )
    assert other.status_code == 422
    error = other.json()["error"]
    assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert first.headers["x-request-id"] in error["message"]
    assert elsewhere.status_code == 200
    assert len(await events(bench)) == 2


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "h\xe9"])
async def test_a_bad_key_is_refused_and_nothing_is_executed(bench: Any, chat: Body, key: str) -> None:
    engine = await bench.start_engine()
    async with bench.client() as client:
        headers = [(b"content-type", b"application/json"), (b"idempotency-key", key.encode("latin-1"))]
        answer = await client.post(CHAT, content=chat(), headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_idempotency_key", "Idempotency-Key")
    assert not await engine.made()


async def test_keys_of_two_api_keys_do_not_meet(bench: Any, chat: Body) -> None:
    from penstock.access import keys

    await bench.start_engine()
    async with bench.database.acquire() as connection:
        other = await keys.create(connection, b"p" * 32, name="b", organisation="acme")
    async with bench.client() as client:
        for key in (bench.key, other):
            headers = keyed("a") | {"authorization": f"Bearer {key}"}
            answer = await client.post(CHAT, content=chat(), headers=headers)
            assert answer.status_code == 200
            assert "idempotent-replayed" not in answer.headers
    assert len(await events(bench)) == 2


async def test_what_was_refused_for_now_is_executed_when_sent_again(bench: Any, chat: Body) -> None:
    async with bench.client() as client:
        none = await client.post(CHAT, content=chat(), headers=keyed("a"))
        assert none.status_code == 404
        engine = await bench.start_engine()
        await bench.set_pool(wait_max_s=1)
        [target] = bench.gateway.directory.targets(MODEL)
        target.in_flight += 1000
        full = await client.post(CHAT, content=chat(), headers=keyed("a"))
        assert full.status_code == 503
        target.in_flight -= 1000
        await bench.set_state(engine, "starting")
        away = await client.post(CHAT, content=chat(), headers=keyed("a"))
        assert away.status_code == 503
        assert await state(bench) == []
        await bench.set_state(engine, "ready")
        bad = await client.post(CHAT, content=chat(nonsense=1), headers=keyed("b"))
        assert bad.status_code == 400
        assert await state(bench) == []
        answer = await client.post(CHAT, content=chat(), headers=keyed("a"))
        assert answer.status_code == 200
        assert "idempotent-replayed" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_engine_failed_at_is_free_and_executed_when_sent_again(
    bench: Any, chat: Body, stream: bool
) -> None:
    engine = await bench.start_engine(tokens_per_second=100)
    await engine.breaks(cut_at_token=5)
    async with bench.client() as client:
        failed = await client.post(CHAT, content=chat(stream=stream), headers=keyed("a"))
        assert "engine_failed" in failed.text
        assert await state(bench) == []
        await engine.mend()
        answer = await client.post(CHAT, content=chat(stream=stream), headers=keyed("a"))
        assert answer.status_code == 200
        again = await client.post(CHAT, content=chat(stream=stream), headers=keyed("a"))
        assert again.content == answer.content
    costs = sorted(event["cost_nano_usd"] for event in await events(bench))
    assert costs[0] == 0 < costs[1]
    assert len(costs) == 2


async def reset_after(bench: Any, body: bytes, headers: dict[str, str], until: bytes) -> None:
    """Send a request and reset the connection as soon as `until` came, or at once."""
    reader, writer = await asyncio.open_connection(*bench.url.removeprefix("http://").split(":"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bench.key}\r\n"
        f"content-length: {len(body)}\r\n{lines}\r\n".encode()
        + body
    )
    if until:
        await reader.readuntil(until)
    else:

        async def claimed() -> bool | None:
            return True if await state(bench) == ["running"] else None

        await bench.until(claimed, 30)
    handle = writer.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_lost_its_connection_gets_the_whole_answer_for_one_charge(
    bench: Any, chat: Body, stream: bool
) -> None:
    engine = await bench.start_engine(tokens_per_second=40)
    body = chat(stream=stream)
    await reset_after(bench, body, keyed("lost"), b"data: " if stream else b"")
    await in_states(bench, ["answered"])
    async with bench.client() as client:
        again = await client.post(CHAT, content=body, headers=keyed("lost"))
    assert again.headers["idempotent-replayed"] == "true"
    [event] = await events(bench)
    [made] = (await engine.made()).values()
    assert (event["outcome"], event["output_tokens"]) == ("done", made["completion_tokens"])
    if stream:
        assert again.text.endswith("data: [DONE]\n\n")
    else:
        assert again.json()["usage"]["completion_tokens"] == made["completion_tokens"]


async def test_an_sdk_id_leaves_cancelling_as_it_is_and_its_retry_is_told_the_price(
    bench: Any, chat: Body
) -> None:
    engine = await bench.start_engine(tokens_per_second=100, answer_tokens=1000)
    body = chat(stream=True, max_tokens=900)
    headers = {**JSON, "x-ms-client-request-id": str(uuid.uuid4())}
    await reset_after(bench, body, headers, b"data: ")
    await in_states(bench, ["lost"])
    async with bench.client() as client:
        again = await client.post(CHAT, content=body, headers=headers)
    [event] = await events(bench)
    [made] = (await engine.made()).values()
    assert (event["outcome"], event["output_tokens"]) == ("client_gone", made["completion_tokens"])
    assert made["completion_tokens"] < 900
    assert again.status_code == 409
    error = again.json()["error"]
    assert error["code"] == "idempotency_answer_lost"
    assert event["request_id"] in error["message"]
    assert again.headers["x-original-request-id"] == event["request_id"]
    assert float(error["message"].partition(" cost ")[2].split()[0]) * 1e9 == pytest.approx(
        event["cost_nano_usd"]
    )


@pytest.mark.parametrize("header", ["x-ms-client-request-id", "repeatability-request-id"])
async def test_an_sdk_that_tries_again_gets_the_answer_it_missed(bench: Any, chat: Body, header: str) -> None:
    await bench.start_engine()
    headers = {**JSON, header: str(uuid.uuid4()), "repeatability-first-sent": "Sat, 21 Nov 2026 06:00:00 GMT"}
    async with bench.client() as client:
        first = await client.post(CHAT, content=chat(), headers=headers)
        again = await client.post(CHAT, content=chat(), headers=headers)
        other = await client.post(CHAT, content=chat(max_tokens=3), headers=headers)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    # People do reuse these ids: another body is another request.
    assert other.status_code == 200
    assert "idempotent-replayed" not in other.headers
    assert len(await events(bench)) == 2
    longest = await bench.database.fetchval("select max(expires_at - now()) from admission.claim")
    assert longest.total_seconds() <= 600


async def test_an_answer_too_large_to_keep_is_said_to_be_so(
    bench: Any, chat: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.edge.once.ANSWER_BYTES_MAX", 200)
    await bench.start_engine()
    async with bench.client() as client:
        first = await client.post(CHAT, content=chat(stream=True), headers=keyed("a"))
        again = await client.post(CHAT, content=chat(stream=True), headers=keyed("a"))
    assert first.text.endswith("[DONE]\n\n")
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "idempotency_answer_not_kept"
    assert again.headers["x-original-request-id"] == first.headers["x-request-id"]
    assert len(await events(bench)) == 1


async def test_requests_without_the_headers_ask_no_database(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        await client.post(CHAT, content=chat(), headers=JSON)
    assert await state(bench) == []
    assert await bench.database.fetchval("select count(*) from admission.claim") == 0


async def test_expired_claims_are_as_good_as_none_and_are_forgotten(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        await client.post(CHAT, content=chat(), headers=keyed("a"))
        await client.post(CHAT, content=chat(), headers=keyed("b"))
        await bench.database.execute("update admission.claim set expires_at = now()")
        again = await client.post(CHAT, content=chat(max_tokens=3), headers=keyed("a"))
    assert again.status_code == 200
    assert "idempotent-replayed" not in again.headers
    async with bench.database.acquire() as connection:
        assert await claims.forget_expired(connection) == 1
    assert await state(bench) == ["answered"]


async def test_a_gateway_that_stops_releases_what_it_could_not_finish(bench: Any, chat: Body) -> None:
    """The answer is not whole and cost nothing, so the retry at another gateway executes at once."""
    await bench.start_engine(tokens_per_second=5, answer_tokens=1000)
    async with bench.client() as client:
        call = asyncio.create_task(
            client.post(CHAT, content=chat(stream=True, max_tokens=900), headers=keyed("a"))
        )
        await in_states(bench, ["running"])
        bench.server.should_exit = True
        with pytest.raises(httpx.RemoteProtocolError):
            await call
        await in_states(bench, [])
