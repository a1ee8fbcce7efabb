"""Templates to answers: every page goes through here, and leaves with headers that let nothing foreign in."""

from __future__ import annotations

import gzip
from typing import Any

import jinja2
from litestar import Request, Response
from litestar.exceptions import NotAuthorizedException
from litestar.serialization import default_serializer
from litestar.types import Serializer

from penstock.access.sessions import Visitor
from penstock.portal import formats, notices
from penstock.portal.assets import Assets, takes_gzip

HTML = "text/html"
HEADERS = {
    # Nothing is loaded from, sent to or framed by anybody else; no script or style stands in a page.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
    "vary": "accept-encoding, cookie",
}
THEMES = ("light", "dark")
THEME_COOKIE = "penstock_theme"
PACKED = {"content-encoding": "gzip"}
GZIP_LEVEL = 4
"""A price list of a thousand rows in under a millisecond; level 6 makes it a tenth smaller."""


class Page(Response[str]):
    """HTML, compressed for a browser that says it takes that."""

    def render(self, content: Any, media_type: str, enc_hook: Serializer = default_serializer) -> bytes:
        """The bytes that are sent."""
        encoded = super().render(content, media_type, enc_hook)
        return gzip.compress(encoded, GZIP_LEVEL) if "content-encoding" in self.headers else encoded


class Renderer:
    """The one template environment: escapes everything, and refuses a name that nobody gave it."""

    def __init__(self, assets: Assets) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("penstock.portal"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= formats.FILTERS
        self._environment.globals |= {"asset": assets.url, "icon": assets.icon}
        # Not imported by templates, so that a block of one can be rendered by itself.
        self._environment.globals["ui"] = self._environment.get_template("ui.html").module

    def page(
        self,
        request: Request[Any, Any, Any],
        template: str,
        visitor: Visitor | None,
        *,
        block: str | None = None,
        status: int = 200,
        **context: Any,
    ) -> Response[str]:
        """Render a template, or one block of it for htmx, which replaces that part of a page."""
        names = {
            "visitor": visitor,
            "path": request.scope["path"],
            "query": request.query_params,
            "theme": theme if (theme := request.cookies.get(THEME_COOKIE)) in THEMES else "",
            "notice": notices.TEXTS.get(request.query_params.get("notice", "")),
            **context,
        }
        found = self._environment.get_template(template)
        if block is None:
            text = found.render(names)
        else:
            text = "".join(found.blocks[block](found.new_context(names)))
        headers = HEADERS | PACKED if takes_gzip(request) else HEADERS
        return Page(text, media_type=HTML, status_code=status, headers=headers)


def require_operator(visitor: Visitor) -> None:
    """Raises NotAuthorizedException for whoever does not run the installation."""
    if not visitor.operator:
        raise NotAuthorizedException("only an operator of this installation sees this")
