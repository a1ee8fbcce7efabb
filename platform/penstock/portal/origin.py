"""No other site may make a browser change something here.

A cookie travels with requests that other sites cause, so a request that changes something must say that it
comes from a page of ours. Browsers say so themselves: `Sec-Fetch-Site`, and where that is missing (plain http
to another host) `Origin`. The rule is that of Go's `http.CrossOriginProtection`; with SameSite cookies it
needs no token in forms.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from litestar.datastructures import Headers

SAFE = {"GET", "HEAD", "OPTIONS"}


def is_ours(method: str, headers: Headers) -> bool:
    """Whether a request was made by a page of this origin, or by somebody who typed its address."""
    if method in SAFE:
        return True
    site = headers.get("sec-fetch-site")
    if site:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    return bool(origin) and urlsplit(origin).netloc == headers.get("host")
