"""Options that say what something is limited to, and the column of tables that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from penstock.access.limits import MOST, NONE, RateLimits

UNLIMITED = "none"
FIELDS = {
    "requests_per_minute": ("--requests-per-minute",),
    "tokens_per_minute": ("--tokens-per-minute",),
    "concurrent_requests": ("--concurrent", "--concurrent-requests"),
}
NO_LIMIT = click.option("--none", is_flag=True, help="No limit at all.")


class Limit(click.ParamType[int | str]):
    """A whole number of 1 or more, or `none` for no limit."""

    name = "N|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read it, or fail with the nearest that would be accepted."""
        if value == UNLIMITED:
            return UNLIMITED
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is no limit: a whole number of 1 or more, or {UNLIMITED}", param, ctx)
        if not 1 <= number <= MOST:
            nearest = 1 if number < 1 else MOST
            self.fail(
                f"{number} is not accepted: from 1 to {MOST:,}, the nearest is {nearest:,}; "
                f"{UNLIMITED} is no limit",
                param,
                ctx,
            )
        return number


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options themselves; a command takes them as `**given` and reads them with `changed`."""
    helps = {
        "requests_per_minute": "Requests in any minute.",
        "tokens_per_minute": "Tokens in any minute, read and written.",
        "concurrent_requests": "Requests that run or wait at once.",
    }
    for field, names in reversed(FIELDS.items()):
        option = click.option(*names, field, type=Limit(), help=f"{helps[field]} `{UNLIMITED}`: no limit.")
        command = option(command)
    return command


def changed(now: RateLimits, given: dict[str, int | str | None]) -> RateLimits:
    """What is limited after these options: what is not named stays."""
    said = {
        field: None if value == UNLIMITED else value for field, value in given.items() if value is not None
    }
    wanted = msgspec.structs.replace(now, **said)
    return NONE if wanted == NONE else wanted


def asked(given: dict[str, int | str | None]) -> bool:
    """Whether any of the options is there."""
    return any(value is not None for value in given.values())


def check(given: dict[str, int | str | None], *, none: bool) -> None:
    """Refuse limits together with no limit."""
    if none and asked(given):
        raise click.UsageError("--none takes every limit away: name limits, or --none")


def say(what: str, limits: RateLimits, *, as_json: bool) -> None:
    """Print what something is limited to now."""
    if as_json:
        click.echo(msgspec.json.encode(limits))
    else:
        click.echo(f"Limits of {what}: {limits}.")
