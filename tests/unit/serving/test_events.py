"""Events pass through in the client's view, and the engine's count is read on the way."""

from __future__ import annotations

import json

import pytest

from penstock.serving.call import UsageView
from penstock.serving.events import EventStream


def event(index: int, text: str, completion: int, prompt: int = 9, tail: str = "") -> bytes:
    """An event as vLLM 0.32 writes it (captured from the real server)."""
    choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    head = json.dumps({"id": "chatcmpl-1", "choices": [choice]}, separators=(",", ":"))[:-1]
    usage = (
        f'"usage":{{"prompt_tokens":{prompt},"total_tokens":{prompt + completion},'
        f'"completion_tokens":{completion},"completion_tokens_details":null}}'
    )
    return f"data: {head},{usage}{tail}}}\n\n".encode()


def final(prompt: int, completion: int, cached: int = 0) -> bytes:
    """The event with the final usage."""
    return (
        f'data: {{"id":"chatcmpl-1","choices":[],"usage":{{"prompt_tokens":{prompt},'
        f'"total_tokens":{prompt + completion},"completion_tokens":{completion},'
        f'"prompt_tokens_details":{{"cached_tokens":{cached},"created_cache_tokens":0}}}},'
        f'"system_fingerprint":"x"}}\n\n'
    ).encode()


DONE = b"data: [DONE]\n\n"


def read(data: bytes) -> list[dict[str, object]]:
    """The JSON of every event but the last marker."""
    return [json.loads(e.removeprefix(b"data: ")) for e in data.split(b"\n\n") if e and e != DONE.strip()]


def test_a_client_that_did_not_ask_sees_no_usage_at_all() -> None:
    stream = EventStream(UsageView.HIDDEN)
    tail = ',"prompt_token_ids":null'
    out = stream.feed(event(0, "a", 1, tail=tail)) + stream.feed(event(0, "b", 2) + final(9, 2) + DONE)
    events = read(out)
    assert len(events) == 2
    assert all("usage" not in e for e in events)
    assert "prompt_token_ids" in events[0]
    assert stream.held == DONE


def test_include_usage_shows_null_on_every_event_and_the_count_once() -> None:
    stream = EventStream(UsageView.FINAL)
    events = read(stream.feed(event(0, "a", 1)) + stream.feed(final(9, 1, cached=4)))
    assert events[0]["usage"] is None
    assert events[1]["usage"]["completion_tokens"] == 1  # type: ignore[index]
    assert events[1]["choices"] == []


def test_continuous_usage_passes_untouched() -> None:
    stream = EventStream(UsageView.CONTINUOUS)
    data = event(0, "a", 1) + final(9, 1)
    assert stream.feed(data) == data


def test_the_final_count_is_the_count() -> None:
    stream = EventStream(UsageView.HIDDEN)
    stream.feed(event(0, "a", 1) + final(9, 7, cached=4) + DONE)
    usage = stream.usage()
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens) == (9, 4, 7)
    assert stream.done


def test_before_the_end_the_latest_count_stands() -> None:
    stream = EventStream(UsageView.HIDDEN)
    assert stream.usage() is None
    stream.feed(event(0, "a", 1))
    stream.feed(event(0, "b", 5))
    usage = stream.usage()
    assert usage is not None
    assert usage.output_tokens == 5


def test_choices_are_summed_and_their_prompt_counted_once() -> None:
    stream = EventStream(UsageView.HIDDEN, n=2)
    stream.feed(event(0, "a", 3) + event(1, "b", 4) + event(0, "c", 5))
    usage = stream.usage()
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens) == (9, 9)


def test_prompts_of_one_request_are_each_counted() -> None:
    stream = EventStream(UsageView.HIDDEN, prompts=2, n=2)
    for index, prompt in ((0, 3), (1, 3), (2, 5), (3, 5)):
        stream.feed(event(index, "a", 1, prompt=prompt))
    usage = stream.usage()
    assert usage is not None
    assert (usage.prompt_tokens, usage.output_tokens) == (8, 4)


def test_text_that_looks_like_usage_is_text() -> None:
    stream = EventStream(UsageView.HIDDEN)
    text = 'x","usage":{"prompt_tokens":0,"completion_tokens":999}} data: [DONE] "choices":[]'
    out = read(stream.feed(event(0, text, 2)))
    assert out[0]["choices"][0]["delta"]["content"] == text  # type: ignore[index]
    usage = stream.usage()
    assert usage is not None
    assert usage.output_tokens == 2


@pytest.mark.parametrize(
    "bad",
    [
        b'data: {"error":{"message":"EngineCore died","type":"x","code":500}}\n\n',
        b'data: {"error": {"message": "EngineCore died"}}\n\n',
        b'data: {"id":"x","choices":[],"error":{"message":"EngineCore died"}}\n\n',
        b'data: {"object":"error","message":"EngineCore died","code":500}\n\n',
        event(0, "a", 1).replace(b'"finish_reason":null', b'"finish_reason":"abort"'),
    ],
)
def test_an_engine_that_gives_up_has_failed_and_nothing_of_it_is_passed(bad: bytes) -> None:
    stream = EventStream(UsageView.HIDDEN)
    assert stream.feed(bad + DONE) == b""
    assert stream.failed


@pytest.mark.parametrize("text", ['{"error":{"code":1}}', '"object":"error"', "error"])
def test_an_answer_about_errors_is_an_answer(text: str) -> None:
    stream = EventStream(UsageView.HIDDEN)
    old = b'data: {"choices":[{"index":0,"text":"error","logprobs":{"top_logprobs":[{"error":-1}]}}]}\n\n'
    out = stream.feed(event(0, text, 1))
    assert read(out)[0]["choices"][0]["delta"]["content"] == text  # type: ignore[index]
    assert stream.feed(old) == old
    assert not stream.failed


def test_done_inside_a_text_is_not_the_end() -> None:
    stream = EventStream(UsageView.HIDDEN)
    stream.feed(event(0, "data: [DONE]", 1))
    assert not stream.done
