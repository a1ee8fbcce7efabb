"""A stand-in of a model hub on loopback: the addresses and headers that a hub answers, and its faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

REPOSITORY = "acme/small"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Seen:
    """One request as the hub saw it."""

    path: str
    range: str | None
    token: str | None


@dataclass
class StandIn:
    """What the hub holds and how it fails; tests change the fields while it runs."""

    files: dict[str, bytes]
    lfs: set[str]
    endpoint: str = ""
    store_endpoint: str = ""
    token_wanted: str | None = None
    repository_hidden: bool = False
    commit: str = REVISION
    served_commit: str = REVISION
    page_size: int = 1000
    ranges_ignored: bool = False
    stated: dict[str, bytes] = field(default_factory=dict)
    """Contents that the listing states in place of those that are sent."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """Bytes of a file after which the connection breaks, once."""
    statuses: list[int] = field(default_factory=list)
    """Statuses answered to the next requests, before anything else."""
    seen: list[Seen] = field(default_factory=list)
    sent_bytes: dict[str, int] = field(default_factory=dict)

    def requests_of(self, name: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.endswith(f"/{name}")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn
    is_store = False

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        token = self.headers.get("Authorization")
        self.hub.seen.append(Seen(path, self.headers.get("Range"), token))
        if self.hub.statuses:
            self.answer(self.hub.statuses.pop(0), b"busy", {})
        elif self.is_store:
            self.file(path.removeprefix("/store/"))
        elif self.hub.repository_hidden:
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif self.hub.token_wanted and token != f"Bearer {self.hub.token_wanted}":
            self.answer(401 if token is None else 403, b"", {"X-Error-Code": "GatedRepo"})
        elif path == f"/api/models/{REPOSITORY}/revision/{REVISION}":
            self.answer(200, json.dumps({"id": REPOSITORY, "sha": self.hub.commit}).encode(), {})
        elif path == f"/api/models/{REPOSITORY}/tree/{REVISION}":
            self.tree(parse_qs(parts.query))
        elif path.startswith(f"/{REPOSITORY}/resolve/{REVISION}/"):
            self.resolve(path.removeprefix(f"/{REPOSITORY}/resolve/{REVISION}/"))
        elif path.startswith(f"/api/models/{REPOSITORY}/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def tree(self, query: dict[str, list[str]]) -> None:
        assert query["recursive"] == ["true"]
        start = int(query.get("cursor", ["0"])[0])
        entries = [self.entry(path) for path in sorted(self.hub.files)]
        entries.append({"type": "directory", "path": "1_Pooling", "oid": "0" * 40, "size": 0})
        page = entries[start : start + self.hub.page_size]
        headers = {}
        if start + len(page) < len(entries):
            # A mirror's link often names the original host: only its cursor may be used.
            following = f"https://hub.invalid{self.path.split('?')[0]}"
            headers["Link"] = f'<{following}?recursive=true&cursor={start + len(page)}>; rel="next"'
        self.answer(200, json.dumps(page).encode(), headers)

    def entry(self, path: str) -> dict[str, object]:
        data = self.hub.stated.get(path, self.hub.files[path])
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": path, "oid": git, "size": len(data)}
        if path in self.hub.lfs:
            sha256 = hashlib.sha256(data).hexdigest()
            entry |= {"oid": "0" * 40, "lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}}
        return entry

    def resolve(self, name: str) -> None:
        if name not in self.hub.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif name in self.hub.lfs:
            where = {"Location": f"{self.hub.store_endpoint}/store/{name}"}
            self.answer(302, b"", where | {"X-Repo-Commit": self.hub.served_commit})
        else:
            self.file(name, {"X-Repo-Commit": self.hub.served_commit})

    def file(self, name: str, headers: dict[str, str] | None = None) -> None:
        data = self.hub.files[name]
        asked = self.headers.get("Range")
        start = 0 if asked is None or self.hub.ranges_ignored else int(asked[6:].rstrip("-"))
        headers = dict(headers or {})
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        rest = data[start:]
        cut = self.hub.cut_after.pop(name, None)
        sent = rest if cut is None else rest[:cut]
        self.hub.sent_bytes[name] = self.hub.sent_bytes.get(name, 0) + len(sent)
        self.answer(206 if start else 200, sent, headers, length=len(rest))
        if cut is not None:
            self.close_connection = True

    def answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep quiet."""


@pytest.fixture
def hub() -> Iterator[StandIn]:
    """A hub with one small model whose weights lie in a store at another address."""
    stand_in = StandIn(
        files={
            "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
            "tokenizer.json": b"{}" * 5000,
            "1_Pooling/config.json": b"{}",
            "empty.txt": b"",
            "model.safetensors": bytes(range(256)) * 4096,
            "pytorch_model.bin": b"\x80\x04pickle",
            "modeling_own.py": b"import os",
            "README.md": b"# Small",
            "onnx/model.onnx": b"o",
        },
        lfs={"model.safetensors", "pytorch_model.bin"},
    )
    front = type("Front", (Handler,), {"hub": stand_in})
    store = type("Store", (Handler,), {"hub": stand_in, "is_store": True})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (front, store)]
    stand_in.endpoint, stand_in.store_endpoint = (
        f"http://127.0.0.1:{server.server_port}" for server in servers
    )
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    yield stand_in
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()
