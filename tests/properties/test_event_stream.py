"""However the network cuts a stream into reads, the client gets the same bytes and the count is the same."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.serving.call import UsageView
from penstock.serving.events import EventStream

texts = st.text(max_size=12) | st.sampled_from(
    ['","usage":{"prompt_tokens":1}', "\n\n", "data: [DONE]\n\n", '"choices":[]', 'data: {"error"', "\u2028"]
)


def stream_of(parts: list[str]) -> bytes:
    """A whole vLLM stream of one choice with these texts."""
    events = []
    for count, text in enumerate(parts, 1):
        usage = {"prompt_tokens": 3, "total_tokens": 3 + count, "completion_tokens": count}
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        events.append({"id": "x", "choices": [choice], "usage": usage})
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": len(parts),
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    events.append({"id": "x", "choices": [], "usage": usage})
    lines = [f"data: {json.dumps(e, separators=(',', ':'), ensure_ascii=False)}\n\n" for e in events]
    return ("".join(lines) + "data: [DONE]\n\n").encode("utf-8", "surrogatepass")


@given(st.lists(texts, max_size=6), st.sampled_from(UsageView), st.lists(st.integers(1, 60), max_size=40))
def test_cuts_do_not_matter(parts: list[str], view: UsageView, cuts: list[int]) -> None:
    whole = stream_of(parts)
    once = EventStream(view)
    expected = once.feed(whole)

    stream, out, at = EventStream(view), [], 0
    for cut in [*cuts, len(whole)]:
        if at < len(whole):
            out.append(stream.feed(whole[at : at + cut]))
            at += cut

    assert b"".join(out) == expected
    assert stream.held == once.held == b"data: [DONE]\n\n"
    assert stream.usage() == once.usage()
    assert stream.usage() is not None


@given(st.lists(texts, max_size=6))
def test_texts_arrive_as_they_were(parts: list[str]) -> None:
    out = EventStream(UsageView.HIDDEN).feed(stream_of(parts))
    events = [json.loads(e.removeprefix(b"data: ")) for e in out.split(b"\n\n") if e]
    assert [e["choices"][0]["delta"]["content"] for e in events] == parts
    assert not any("usage" in e for e in events)
