"""Reading a request and writing a small answer at the ASGI level, for routes beside Litestar's handlers."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from penstock.admission.idempotency import identity
from penstock.edge.problems import Problem
from penstock.edge.refusals import BodyTooLarge, UnsupportedMedia

CLIENT_ID = re.compile(rb"^[A-Za-z0-9._:-]{1,128}$")
"""What a client's own request id may look like; any other is ignored: it can forge no header or log line."""

BEARER = b"bearer "


class ClientLeft(Exception):
    """The client closed its connection before its request was complete."""


class Head(msgspec.Struct):
    """The headers that matter, read in one pass."""

    api_key: str = ""
    content_type: bytes = b""
    content_encoding: bytes = b""
    content_length: int = 0
    client_request_id: str | None = None
    waiting: bytes = b""
    """How the client wants to see that its request waits."""
    repeatable: list[tuple[bytes, bytes]] | None = None
    """What says that the request may be sent again; see edge.once."""


def read_head(scope: Scope) -> Head:
    """Read the headers; a key is taken from `Authorization: Bearer`, `api-key` or `x-api-key`."""
    head = Head()
    for name, value in scope["headers"]:
        if name == b"authorization":
            if value[: len(BEARER)].lower() == BEARER:
                head.api_key = value[len(BEARER) :].strip().decode("latin-1")
        elif name in {b"api-key", b"x-api-key"}:
            head.api_key = head.api_key or value.strip().decode("latin-1")
        elif name == b"content-type":
            head.content_type = value
        elif name == b"content-encoding":
            head.content_encoding = value
        elif name == b"content-length":
            head.content_length = int(value)  # the server has checked that it is a number
        elif name in {b"x-client-request-id", b"x-request-id"} and CLIENT_ID.match(value):
            head.client_request_id = value.decode("ascii")
        elif name == b"x-penstock-waiting":
            head.waiting = value
        elif name in identity.HEADERS:
            head.repeatable = [*(head.repeatable or ()), (name, value)]
    return head


async def read_json_body(head: Head, receive: Receive, bytes_max: int) -> bytes:
    """Read a whole body of JSON; raises UnsupportedMedia, BodyTooLarge or ClientLeft."""
    if head.content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise UnsupportedMedia("send the body as JSON, with the header 'Content-Type: application/json'")
    return await read_body(head, receive, bytes_max)


async def read_body(head: Head, receive: Receive, bytes_max: int) -> bytes:
    """Read a whole body of any kind; raises UnsupportedMedia, BodyTooLarge or ClientLeft."""
    if head.content_encoding not in {b"", b"identity"}:
        raise UnsupportedMedia("compressed request bodies are not accepted: send the JSON as it is")
    if head.content_length > bytes_max:
        raise BodyTooLarge(bytes_max)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientLeft
    if not message["more_body"]:
        return message["body"]
    parts = [message["body"]]
    size = len(message["body"])
    while message["more_body"]:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeft
        size += len(message["body"])
        if size > bytes_max:
            raise BodyTooLarge(bytes_max)
        parts.append(message["body"])
    return b"".join(parts)


async def send_problem(send: Send, problem: Problem, request_id: str) -> None:
    """Answer with OpenAI's error body."""
    body = problem.openai()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *problem.headers,
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(send: Send, fields: dict[str, Any], request_id: str, *, head_only: bool) -> None:
    """Answer 200 with JSON; to HEAD, with all but the body."""
    body = msgspec.json.encode(fields)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else body, "more_body": False})
