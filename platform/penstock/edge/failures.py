"""What Litestar's ordinary handlers answer when something goes wrong: the one table, in the API's shape."""

from __future__ import annotations

import logging
from typing import Any

from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from penstock.edge import problems
from penstock.edge.problems import Problem

logger = logging.getLogger(__name__)


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer in OpenAI's shape under /v1, as RFC 9457 everywhere else."""
    problem = problems.of(error) or _of_framework(request, error)
    if problem is None:
        logger.error("unforeseen error", exc_info=error)
        problem = problems.INTERNAL
    openai = request.scope["path"].startswith("/v1")
    return Response(
        problem.openai() if openai else problem.rfc9457(),
        status_code=problem.status,
        media_type="application/json" if openai else "application/problem+json",
        headers={name.decode(): value.decode() for name, value in problem.headers},
    )


def _of_framework(request: Request[Any, Any, Any], error: Exception) -> Problem | None:
    """Put Litestar's own refusals into our words."""
    if isinstance(error, NotFoundException):
        return Problem(404, "unknown_url", f"there is no {request.method} {request.scope['path'][:200]} here")
    if isinstance(error, MethodNotAllowedException):
        allowed = (error.headers or {}).get("Allow") or (error.headers or {}).get("allow") or ""
        headers = ((b"allow", allowed.encode()),) if allowed else ()
        return Problem(405, "method_not_allowed", f"use {allowed or 'another method'} here", headers=headers)
    if isinstance(error, ValidationException) and isinstance(error.extra, list) and error.extra:
        first: dict[str, Any] = error.extra[0]
        field = str(first.get("key", "")) or None
        named = f"{field}: " if field else ""
        return Problem(400, "invalid_value", f"{named}{first.get('message', error.detail)}", field)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return Problem(error.status_code, "invalid_request", error.detail)
    return None
