"""Stylesheets, scripts, fonts and icons: read once, named by their content, kept by browsers for a year."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from markupsafe import Markup

BASE = "/portal/static"
TEXT = {".css", ".js", ".svg", ".txt"}
YEAR = "public, max-age=31536000, immutable"


class Assets:
    """Every file under `static/`, in memory, under one name that changes when any of them does."""

    def __init__(self) -> None:
        files = dict(_files(resources.files("penstock.portal") / "static", ""))
        whole = hashlib.sha256()
        for name, content in sorted(files.items()):
            whole.update(name.encode() + b"\0" + content)
        self.version = whole.hexdigest()[:12]
        self._files = files
        self._packed = {
            name: gzip.compress(content, 9)
            for name, content in files.items()
            if name[name.rfind(".") :] in TEXT
        }

    def url(self, name: str) -> str:
        """Where a file is reached; raises KeyError for one that is not there."""
        self._files[name]
        return f"{BASE}/{self.version}/{name}"

    def icon(self, name: str, label: str = "") -> Markup:
        """A Lucide icon as inline SVG: decoration, unless it is given a label."""
        svg = self._files[f"icons/{name}.svg"].decode()
        svg = svg[svg.index("<svg") :].strip()
        told = Markup('role="img" aria-label="{}"').format(label) if label else 'aria-hidden="true"'
        return Markup(svg.replace("<svg", f"<svg {told}", 1))  # noqa: S704 - a file of ours, an escaped label

    def routes(self) -> list[HTTPRouteHandler]:
        """The handler that serves them."""

        @get(f"{BASE}/{{version:str}}/{{path:path}}", sync_to_thread=False)
        def static(request: Request[Any, Any, Any], path: FromPath[str]) -> Response[bytes]:
            name = str(path).lstrip("/")
            content = self._files.get(name)
            if content is None:
                raise NotFoundException(f"there is no file {name[:100]}")
            headers = {"cache-control": YEAR, "vary": "accept-encoding", "x-content-type-options": "nosniff"}
            if name in self._packed and takes_gzip(request):
                content, headers["content-encoding"] = self._packed[name], "gzip"
            media = mimetypes.guess_type(name)[0] or "application/octet-stream"
            return Response(content, media_type=media, headers=headers)

        return [static]


def takes_gzip(request: Request[Any, Any, Any]) -> bool:
    """Whether the browser reads compressed answers."""
    return "gzip" in request.headers.get("accept-encoding", "")


def _files(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _files(each, f"{prefix}{each.name}/")
        else:
            found.append((prefix + each.name, each.read_bytes()))
    return found
