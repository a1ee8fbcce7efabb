"""Bad requests over the wire: the right status, OpenAI's error body, and a server that goes on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

CHAT, EMBED = "penstock/demo-chat", "penstock/demo-embed"
HELLO = [{"role": "user", "content": "Hello"}]
GOOD = {"model": CHAT, "messages": HELLO, "max_tokens": 1}


@pytest.fixture
def http(platform: Any) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {platform.api_key}"}
    with httpx.Client(base_url=platform.root_url, headers=headers, timeout=30) as client:
        yield client
        # Whatever it was sent, it still answers.
        assert client.post("/v1/chat/completions", json=GOOD).status_code == 200


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "nobody/nothing"}, 404, "model_not_found", "model"),
        ({"model": EMBED}, 400, "model_task_mismatch", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        (
            {"messages": [{"role": "user", "content": "word " * 5000}]},
            400,
            "context_length_exceeded",
            "messages",
        ),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_value", None),
        ({"n": 0}, 400, "limit_exceeded", "n"),
        ({"n": 10**9}, 400, "limit_exceeded", "n"),
        ({"max_tokens": 0}, 400, "limit_exceeded", "max_tokens"),
        ({"max_tokens": 10**9}, 400, "limit_exceeded", "max_tokens"),
        ({"max_completion_tokens": -1}, 400, "limit_exceeded", "max_completion_tokens"),
        ({"temperature": "warm"}, 400, "invalid_value", "temperature"),
        ({"temperature": -1}, 400, "invalid_value", "temperature"),
        ({"top_logprobs": 500, "logprobs": True}, 400, "invalid_value", None),
        ({"response_format": {"type": "json_schema"}}, 400, "invalid_value", None),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
        ({"no_such_field": 1}, 400, "unknown_parameter", "no_such_field"),
    ],
)
def test_a_bad_field(
    http: httpx.Client, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = http.post("/v1/chat/completions", json=GOOD | change)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (status, code)
    if param is not None:
        assert error["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["code"] in {"invalid_json", "invalid_type"}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_wrong_content_type(http: httpx.Client, kind: str) -> None:
    answer = http.post("/v1/chat/completions", content=json.dumps(GOOD), headers={"content-type": kind})
    assert answer.status_code == 415
    assert "application/json" in error_of(answer)["message"]


def test_a_compressed_body(http: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = http.post("/v1/chat/completions", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_media_type"


def test_a_body_over_the_limit(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/chat/completions",
        content=b"x" * (8 * 1024 * 1024 + 1),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert str(8 * 1024 * 1024) in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/no/such/route", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
    ],
)
def test_an_unknown_route_or_method(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Basic abc"},
        {"authorization": "Bearer sk-other"},
        {"authorization": "Bearer sk-penstock-000000000000-" + "0" * 46},
        {"api-key": "x" * 5000},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_a_wrong_key(platform: Any, headers: dict[str, str], path: str) -> None:
    answer = httpx.post(f"{platform.root_url}{path}", json=GOOD, headers=headers)
    assert answer.status_code == 401
    assert error_of(answer)["code"] == "invalid_api_key"
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/penstock/demo-chat"])
def test_reading_needs_a_key_too(platform: Any, path: str) -> None:
    assert httpx.get(f"{platform.root_url}{path}").status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/usage", "/api/v1/requests/x"])
def test_the_management_api_speaks_problem_json(platform: Any, path: str) -> None:
    answer = httpx.get(f"{platform.root_url}{path}")
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["code"] == "invalid_api_key"


def test_a_bad_period(http: httpx.Client) -> None:
    answer = http.get("/api/v1/usage", params={"since": "yesterday"})
    assert (answer.status_code, answer.json()["param"]) == (400, "since")


def test_a_host_header_opens_nothing(platform: Any) -> None:
    """A key is asked for by the route, never by a path put together from what the client says."""
    parts = urlsplit(platform.root_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as raw:
        raw.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x/healthz?y=\r\nConnection: close\r\n\r\n")
        assert raw.recv(4096)[9:12] in {b"400", b"401"}


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ],
)
def test_what_is_no_http_hurts_nobody(platform: Any, junk: bytes, http: httpx.Client) -> None:
    parts = urlsplit(platform.root_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as raw:
        raw.sendall(junk)
        raw.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: raw.recv(4096), b""))
    assert b"200 OK" not in answers
