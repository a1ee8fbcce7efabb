"""What operators see and do: keys that end, figures that add up over workers, logs that keep secrets."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import openai
import pytest

CHAT = "penstock/demo-chat"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def test_a_revoked_key_is_refused_by_every_worker_within_five_seconds(platform: Any) -> None:
    key = json.loads(platform.command("keys", "create", "short-lived", "--json"))["api_key"]
    key_id = key.split("-")[2]

    def statuses() -> set[int]:
        # A fresh connection each time, so that both workers answer some of them.
        headers = {"authorization": f"Bearer {key}"}
        return {httpx.get(f"{platform.base_url}/models", headers=headers).status_code for _ in range(20)}

    assert statuses() == {200}
    platform.command("keys", "revoke", key_id)
    end = time.monotonic() + 5
    while statuses() != {401}:
        assert time.monotonic() < end
    listed = json.loads(platform.command("keys", "list", "--json"))
    assert next(row for row in listed if row["id"] == key_id)["revoked_at"]
    assert key not in json.dumps(listed)


def metric(platform: Any, name: str, **labels: str) -> float:
    text = httpx.get(f"{platform.root_url}/metrics").text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
        and all(f'{label}="{value}"' in line for label, value in labels.items())
    )


def test_metrics_count_every_request_of_every_worker_once(platform: Any) -> None:
    labels = {"model": CHAT, "status": "200", "surface": "chat.completions"}
    before = metric(platform, "penstock_requests_total", **labels)
    first = metric(platform, "penstock_time_to_first_token_seconds_count", model=CHAT)
    tokens = metric(platform, "penstock_tokens_total", model=CHAT, kind="output")
    for stream in (True, False) * 5:
        httpx.post(
            f"{platform.base_url}/chat/completions",
            headers={"authorization": f"Bearer {platform.api_key}"},
            json={"model": CHAT, "messages": HELLO, "max_tokens": 3, "ignore_eos": True, "stream": stream},
        )
    assert metric(platform, "penstock_requests_total", **labels) == before + 10
    assert metric(platform, "penstock_time_to_first_token_seconds_count", model=CHAT) == first + 5
    assert metric(platform, "penstock_tokens_total", model=CHAT, kind="output") == tokens + 30
    assert metric(platform, "penstock_journal_healthy") == 1
    assert metric(platform, "penstock_replicas", model=CHAT, state="ready") == 1


def test_readiness_tells_the_state_of_each_model(platform: Any) -> None:
    state = httpx.get(f"{platform.root_url}/readyz").json()
    assert state["ready"] is True
    assert state["models"][CHAT] == "ready"
    assert httpx.get(f"{platform.root_url}/readyz", params={"model": "nobody/nothing"}).status_code == 503
    assert httpx.get(f"{platform.root_url}/healthz").status_code == 200


def test_logs_name_requests_and_keep_prompts_and_keys_to_themselves(
    platform: Any, client: openai.OpenAI
) -> None:
    canary = "canary7f3a9 whispered"
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=[{"role": "user", "content": canary}], max_tokens=3
    )
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": canary}], temperature=9
        )
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": canary * 900}])
    logs = [path for path in platform.home.rglob("*.log*") if path.is_file()]
    text = "".join(path.read_text(errors="replace") for path in logs)
    assert raw.headers["x-request-id"] in text
    assert "canary7f3a9" not in text
    assert platform.api_key not in text
    assert platform.api_key[-46:-6] not in text
    gateway_lines = (platform.home / "logs").glob("gateway-*.log")
    for path in gateway_lines:
        for line in path.read_text().splitlines():
            assert isinstance(json.loads(line), dict)
