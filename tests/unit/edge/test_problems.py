"""Every refusal has a status, a code, and the shape of the API it came through."""

from __future__ import annotations

import json

import pytest

from penstock.admission.credit.errors import InsufficientCredit
from penstock.edge import problems
from penstock.serving.call import Surface


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":{"message":"temperature must be in [0, 2]","param":"temperature","code":400}}',
         (400, "invalid_value", "temperature")),
        (400, b'{"error":{"message":"maximum context length is 8","param":"input_tokens"}}',
         (400, "context_length_exceeded", "messages")),
        (400, b'{"error":{"message":"max_tokens=5 is greater than max_model_len=1","param":"max_tokens"}}',
         (400, "context_length_exceeded", "max_tokens")),
        (404, b'{"error":{"message":"no such adapter","param":"model"}}', (400, "invalid_value", "model")),
        (503, b'{"error":{"message":"busy"}}', (429, "engine_overloaded", None)),
        (500, b'{"error":{"message":"EngineDeadError: secret path"}}', (502, "engine_failed", None)),
        (400, b"<html>", (502, "engine_failed", None)),
    ],
)  # fmt: skip
def test_an_engines_refusal_is_put_into_our_words(
    status: int, body: bytes, expected: tuple[int, str, str | None]
) -> None:
    problem = problems.engine_refusal(Surface.CHAT, status, body)
    assert (problem.status, problem.code, problem.param) == expected
    assert "secret" not in problem.message


def test_every_busy_or_broken_answer_says_when_to_come_back() -> None:
    for status in (503, 500):
        problem = problems.engine_refusal(Surface.CHAT, status, b"")
        assert dict(problem.headers)[b"retry-after"].isdigit()


def test_both_shapes_bear_code_and_field() -> None:
    problem = problems.Problem(400, "invalid_value", "n is 9", "n")
    openai = json.loads(problem.openai())["error"]
    assert openai == {
        "message": "n is 9",
        "type": "invalid_request_error",
        "param": "n",
        "code": "invalid_value",
    }
    other = json.loads(problem.rfc9457())
    assert (other["status"], other["code"], other["param"], other["detail"]) == (
        400,
        "invalid_value",
        "n",
        "n is 9",
    )


def test_what_is_missing_is_said_in_both_shapes() -> None:
    problem = problems.of(InsufficientCredit(12_300_000, -5))
    assert problem is not None
    openai = json.loads(problem.openai())["error"]
    assert (openai["type"], openai["code"]) == ("insufficient_quota", "insufficient_credit")
    other = json.loads(problem.rfc9457())
    assert (other["status"], other["code"]) == (402, "insufficient_credit")
    for body in (openai, other):
        assert (body["needed_usd"], body["available_usd"]) == ("0.0123", "0.00")
    assert "0.0123" in problem.message


def test_an_error_nobody_foresaw_has_no_words() -> None:
    assert problems.of(RuntimeError("x")) is None
