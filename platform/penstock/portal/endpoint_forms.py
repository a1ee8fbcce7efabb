"""What is typed about an endpoint: its tags line by line, its limits as numbers or nothing."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from penstock.access.limits import Most, RateLimits
from penstock.edge.refusals import BadRequest
from penstock.endpoints.serverless import Endpoint
from penstock.portal import forms
from penstock.portal.forms import FormError

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
NO_NUMBER = "A whole number of 1 or more, or nothing for no limit."


class Details(msgspec.Struct, frozen=True):
    """What of an endpoint may be another later."""

    description: str = ""
    tags: str = ""
    requests_per_minute: Most | None = None
    tokens_per_minute: Most | None = None
    concurrent_requests: Most | None = None

    @property
    def limits(self) -> RateLimits:
        """Its limits."""
        return RateLimits(**{name: getattr(self, name) for name in LIMITS})


class New(Details, frozen=True, kw_only=True):
    """A new endpoint."""

    name: str
    model: str
    project: str = "default"


def read(values: Mapping[str, str], form: type[Details]) -> Details:
    """Read what was typed; raises FormError with a sentence beside each field."""
    try:
        return forms.read(values, form)
    except FormError as error:
        told = {name: NO_NUMBER if name in LIMITS else text for name, text in error.errors.items()}
        raise FormError(told, values) from None


def tags(text: str, values: Mapping[str, str]) -> dict[str, str]:
    """Read one tag a line, `name=value`; raises FormError."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise FormError({"tags": f"Line {number} is no tag: write name=value."}, values)
        found[name.strip()] = value.strip()
    return found


def refused(error: BadRequest, values: Mapping[str, str]) -> FormError:
    """What was refused further in, beside the field that it is about."""
    text = str(error)
    return FormError({error.param or "form": f"{text[:1].upper()}{text[1:]}."}, values)


def typed(endpoint: Endpoint) -> dict[str, str]:
    """An endpoint as one would type it."""
    return {
        "description": endpoint.description,
        "tags": "\n".join(f"{name}={value}" for name, value in endpoint.tags.items()),
        **{name: str(most) for name in LIMITS if (most := getattr(endpoint.limits, name)) is not None},
    }
