"""Cached prompt beginnings: an organisation's own, cheaper and shown; shared where a model says so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from penstock.access import keys

CHAT = "/v1/chat/completions"
MODEL = "penstock/demo-chat"
PEPPER = b"p" * 32
LONG = " ".join(f"word{number}" for number in range(100))


async def ask(bench: Any, key: str, path: str = CHAT, **more: object) -> Any:
    prompt = (
        {"prompt": LONG}
        if path.endswith("/v1/completions")
        else {"messages": [{"role": "user", "content": LONG}]}
    )
    async with bench.client() as client:
        headers = {"authorization": f"Bearer {key}"}
        return await client.post(
            path, json={"model": MODEL, "max_tokens": 5} | prompt | more, headers=headers
        )


def cached(answer: Any) -> int:
    assert answer.status_code == 200, answer.text
    tokens: int = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


async def other_key(bench: Any, organisation: str) -> str:
    async with bench.database.acquire() as connection:
        return await keys.create(connection, PEPPER, name="x", organisation=organisation)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_prompt_is_known_again_to_its_organisation_and_to_no_other(bench: Any, path: str) -> None:
    await bench.start_engine(prefix_cache=1)
    colleague, stranger = await other_key(bench, "acme"), await other_key(bench, "strangers")
    assert cached(await ask(bench, bench.key, path)) == 0
    assert cached(await ask(bench, bench.key, path)) == 96
    assert cached(await ask(bench, colleague, path)) == 96
    assert cached(await ask(bench, stranger, path)) == 0
    assert cached(await ask(bench, stranger, path)) == 96


async def test_cached_tokens_cost_what_cached_tokens_cost_and_are_shown(bench: Any) -> None:
    await bench.start_engine(prefix_cache=1)
    first, second = [await ask(bench, bench.key) for _ in range(2)]
    events = [await bench.event(answer.headers["x-request-id"]) for answer in (first, second)]
    assert [event["cached_tokens"] for event in events] == [0, 96]
    # 96 tokens at 50,000 instead of 100,000 pico-dollars.
    assert events[0]["cost_nano_usd"] - events[1]["cost_nano_usd"] == 96 * 50
    assert second.headers["x-penstock-cost-usd"] < first.headers["x-penstock-cost-usd"]
    async with bench.client() as client:
        (line,) = (await client.get("/api/v1/usage")).json()["data"]
        shown = (await client.get(f"/api/v1/requests/{second.headers['x-request-id']}")).json()
    assert line["cached_tokens"] == 96
    assert shown["cached_tokens"] == 96


@pytest.mark.parametrize("by", ["card", "pool"])
async def test_a_model_that_is_marked_so_shares_its_cache(
    bench: Any, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "card":
        shelf = bench.gateway.shelf
        card = msgspec.structs.replace(shelf.get(MODEL), shared_prefix_cache=True)
        monkeypatch.setattr(shelf, "get", lambda model: card if model == MODEL else None)
    else:
        await bench.set_pool(shared_prefix_cache=True)
    await bench.start_engine(prefix_cache=1)
    assert cached(await ask(bench, bench.key)) == 0
    assert cached(await ask(bench, await other_key(bench, "strangers"))) == 96


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_no_client_chooses_whose_cache_it_meets(bench: Any, path: str) -> None:
    await bench.start_engine(prefix_cache=1)
    stranger = await other_key(bench, "strangers")
    assert cached(await ask(bench, bench.key, path)) == 0
    organisation_id = await bench.database.fetchval("select id from access.organisation where name = 'acme'")
    theirs = bench.gateway.keyring.cache_salt(organisation_id)
    # Even who knew it could not say it, whichever way.
    for more in (
        {"cache_salt": theirs},
        {"vllm_xargs": {"cache_salt": theirs}},
        {"extra_body": {"cache_salt": theirs}},
    ):
        refused = await ask(bench, stranger, path, **more)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_parameter")
    for more in ({"user": theirs}, {"prompt_cache_key": theirs}, {"metadata": {"cache_salt": theirs}}):
        assert cached(await ask(bench, stranger, path, **more, seed=1)) in {0, 96}
        assert cached(await ask(bench, await other_key(bench, f"new-{next(iter(more))}"), path, **more)) == 0


async def test_salts_are_of_organisations_and_of_this_installation(bench: Any) -> None:
    salt = bench.gateway.keyring.cache_salt
    assert len({salt(number) for number in range(1, 100)}) == 99
    assert salt(1) == salt(1)
    assert len(salt(1)) == 32
