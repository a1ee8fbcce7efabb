"""Endpoints and limits as people use them: by command, and by OpenAI's client over real vLLM."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

CHAT = "penstock/demo-chat"
WITHIN_S = 30
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
LONG: list[Any] = [{"role": "user", "content": "What is a serverless endpoint and how is it billed? " * 40}]


@pytest.fixture
def client_of() -> Iterator[Callable[[str, str], openai.OpenAI]]:
    """OpenAI's client at an address, with a key."""
    made: list[openai.OpenAI] = []

    def make(url: str, key: str) -> openai.OpenAI:
        made.append(openai.OpenAI(base_url=url, api_key=key, max_retries=0))
        return made[-1]

    yield make
    for each in made:
        each.close()


def until(ready: Callable[[], bool]) -> None:
    """Wait for gateways to have heard of it."""
    deadline = time.monotonic() + WITHIN_S
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refused(error: type[openai.APIStatusError], ask: Callable[[], object]) -> bool:
    try:
        ask()
    except error:
        return True
    except openai.APIStatusError:
        pass
    return False


def test_an_endpoint_from_its_making_to_its_end(
    platform: Any, client_of: Callable[[str, str], openai.OpenAI]
) -> None:
    made = json.loads(
        platform.command("serverless-endpoint", "create", "--name", "desk", "--model", CHAT, "--json")
    )
    assert made["scoring_uri"] == f"{platform.root_url}/serverless/desk/v1"
    first, second = (client_of(made["scoring_uri"], made[f"{slot}_key"]) for slot in ("primary", "secondary"))

    def ask(client: openai.OpenAI) -> Any:
        return client.chat.completions.create(model="azureai", messages=HELLO)

    for client in (first, second):
        until(lambda client=client: not refused(openai.NotFoundError, lambda: ask(client)))  # type: ignore[misc]
    assert ask(second).choices[0].message.content
    assert [model.id for model in first.models.list()] == [CHAT]
    platform.command("serverless-endpoint", "regenerate-keys", "desk", "--key-type", "primary")
    until(lambda: refused(openai.AuthenticationError, lambda: ask(first)))
    assert ask(second).choices[0].message.content
    platform.command("serverless-endpoint", "update", "desk", "--suspend")
    until(lambda: refused(openai.PermissionDeniedError, lambda: ask(second)))
    platform.command("serverless-endpoint", "delete", "desk")
    until(lambda: refused(openai.AuthenticationError, lambda: ask(second)))
    until(lambda: json.loads(platform.command("serverless-endpoint", "list", "--json")) == [])


def test_a_prompt_is_known_again_to_its_own_organisation_only(
    platform: Any, client_of: Callable[[str, str], openai.OpenAI]
) -> None:
    keys = [
        json.loads(platform.command("keys", "create", "cache", "--organisation", whose, "--json"))["api_key"]
        for whose in ("one", "one", "other")
    ]
    cached = []
    for key in keys:
        answer = client_of(platform.base_url, key).chat.completions.create(
            model=CHAT, messages=LONG, max_tokens=5
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached[0] == cached[2] == 0
    assert cached[1] > 0


def test_a_key_is_limited_by_command(platform: Any, client_of: Callable[[str, str], openai.OpenAI]) -> None:
    key = json.loads(platform.command("keys", "create", "limited", "--json"))["api_key"]
    platform.command("keys", "limit", key.split("-")[2], "--requests-per-minute", "2")
    client = client_of(platform.base_url, key)
    for _ in range(2):
        client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=2)
    with pytest.raises(openai.RateLimitError, match="limited to 2 requests per minute") as limit:
        client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=2)
    assert int(limit.value.response.headers["retry-after"]) >= 1
    assert limit.value.response.headers["x-ratelimit-remaining-requests"] == "0"
