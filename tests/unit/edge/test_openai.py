"""Request bodies: what is wrong with one is said with its field; what an engine sees is an allow-list."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.edge import openai
from penstock.edge.refusals import BadRequest
from penstock.serving.call import Surface, UsageView

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def engine_body(surface: Surface, body: bytes, *, streamed: bool) -> bytes:
    return openai.engine_body(surface, openai.engine_fields(surface, body, streamed=streamed))


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b"", None, "invalid_json"),
        (b"[1]", None, "invalid_type"),
        (b'"\xff"', None, "invalid_type"),
        (b'{"model":"\xff"}', None, "invalid_json"),
        (b"[" * 200_000, None, "invalid_type"),
        (b'{"other":' + b"[" * 200_000, None, "invalid_json"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (b'{"model":1,"messages":[]}', "model", "invalid_type"),
        (b'{"model":"m","messages":[]}', "messages", "invalid_value"),
        (b'{"model":"m","messages":[{}]}', "messages[0].role", "missing_required_parameter"),
        (b'{"model":"m","messages":"hi"}', "messages", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":5}]}', "messages[0].content", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":"two"}', "n", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":1.5}', "n", "invalid_type"),
        (
            b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":"yes"}',
            "stream",
            "invalid_type",
        ),
    ],
)
def test_what_is_wrong_is_named(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        openai.understand(Surface.CHAT, body)
    assert (refusal.value.param, refusal.value.code) == (param, code)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
    lambda value: json.dumps({"model": "m", "messages": value}).encode("utf-8", "replace")
))  # fmt: skip
def test_no_body_does_worse_than_be_refused(body: bytes) -> None:
    for surface in Surface:
        with contextlib.suppress(BadRequest):
            openai.understand(surface, body)
            engine_body(surface, body, streamed=True)


def test_the_count_is_always_asked_for_and_ours_wins() -> None:
    body = json.dumps(CHAT | {"stream": True, "stream_options": {"include_usage": False}}).encode()
    sent = json.loads(engine_body(Surface.CHAT, body, streamed=True))
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_a_field_given_twice_reaches_the_engine_once() -> None:
    body = b'{"model":"m","n":1,"n":8,"messages":[{"role":"user","content":"x"}]}'
    asked = openai.understand(Surface.CHAT, body)
    sent = engine_body(Surface.CHAT, body, streamed=False)
    assert sent.count(b'"n"') == 1
    assert not isinstance(asked, openai.EmbeddingsAsked)
    assert json.loads(sent)["n"] == asked.n


@pytest.mark.parametrize(
    "field", ["priority", "request_id", "kv_transfer_params", "cache_salt", "vllm_xargs"]
)
def test_fields_that_steer_the_engine_are_refused(field: str) -> None:
    body = json.dumps(CHAT | {field: 1}).encode()
    with pytest.raises(BadRequest, match="unknown field") as refusal:
        engine_body(Surface.CHAT, body, streamed=False)
    assert refusal.value.param == field


def test_a_typing_mistake_is_answered_with_the_nearest_field() -> None:
    with pytest.raises(BadRequest, match="did you mean temperature"):
        engine_body(Surface.CHAT, json.dumps(CHAT | {"temprature": 1}).encode(), streamed=False)


def test_notes_to_the_vendor_are_taken_and_dropped() -> None:
    body = json.dumps(CHAT | {"user": "u", "metadata": {"a": "b"}, "store": False}).encode()
    assert set(json.loads(engine_body(Surface.CHAT, body, streamed=False))) == {"model", "messages"}


@pytest.mark.parametrize(
    ("options", "view"),
    [
        (None, UsageView.HIDDEN),
        ({}, UsageView.HIDDEN),
        ({"include_usage": False}, UsageView.HIDDEN),
        ({"include_usage": True}, UsageView.FINAL),
        ({"include_usage": True, "continuous_usage_stats": True}, UsageView.CONTINUOUS),
    ],
)
def test_usage_is_seen_only_when_asked_for(options: dict[str, bool] | None, view: UsageView) -> None:
    asked = openai.understand(Surface.CHAT, json.dumps(CHAT | {"stream_options": options}).encode())
    assert isinstance(asked, openai.ChatAsked)
    assert asked.usage_view is view


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/", "https://example.com/a.png", "file:///etc/passwd", "//host/a", "", "DATA:x"],
)
def test_nothing_is_fetched_for_a_client(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    body = json.dumps(CHAT | {"messages": [{"role": "user", "content": [part]}]}).encode()
    asked = openai.understand(Surface.CHAT, body)
    assert isinstance(asked, openai.ChatAsked)
    with pytest.raises(BadRequest, match="data: URL") as refusal:
        openai.check_messages(asked.messages, media=True)
    assert refusal.value.param == "messages[0].content[0]"


@pytest.mark.parametrize(("inputs", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_inputs_are_counted(inputs: openai.Inputs, count: int) -> None:
    openai.check_inputs(inputs, "input")
    assert openai.count_inputs(inputs) == count


@pytest.mark.parametrize("inputs", ["", [], ["a", ""], [[]], ["a", 1], [1, [2]]])
def test_empty_and_mixed_inputs_are_refused(inputs: openai.Inputs) -> None:
    with pytest.raises(BadRequest):
        openai.check_inputs(inputs, "input")


@pytest.mark.parametrize(
    ("surface", "name"), [(Surface.CHAT, "max_completion_tokens"), (Surface.COMPLETIONS, "max_tokens")]
)
def test_an_answer_that_credit_shortens_has_one_limit_and_no_least_length(
    surface: Surface, name: str
) -> None:
    body = b'{"model": "m", "max_tokens": 900, "max_completion_tokens": 900, "min_tokens": 50}'
    if surface is Surface.COMPLETIONS:
        body = b'{"model": "m", "max_tokens": 900, "min_tokens": 50}'
    fields = openai.engine_fields(surface, body, streamed=False)
    assert json.loads(openai.engine_body(surface, fields, 33)) == {"model": "m", name: 33}
