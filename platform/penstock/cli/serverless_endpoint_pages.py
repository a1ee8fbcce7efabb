"""What `penstock serverless-endpoint` shows: on a narrow screen less of it, and never anything cut off."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from penstock.endpoints.serverless import Endpoint, KeyShown
from penstock.endpoints.standing import EndpointStanding

WIDE = 120
"""Columns of a screen that has room for more than must be said."""

NARROW = 80
"""Fewer columns than this have no room for a whole name."""


class Seen(msgspec.Struct, frozen=True):
    """An endpoint, and how it stands."""

    endpoint: Endpoint
    standing: EndpointStanding
    base: str
    """Its URL, without any version."""

    @property
    def url(self) -> str:
        """What clients are given."""
        return f"{self.base}/v1"


def fields(seen: Seen) -> dict[str, Any]:
    """An endpoint as JSON, as the API shows it."""
    endpoint = seen.endpoint
    names = ("name", "model", "project", "description", "tags", "limits", "created_at")
    return {
        **{name: getattr(endpoint, name) for name in names},
        "state": seen.standing.state.value,
        "state_reason": seen.standing.reason,
        "scoring_uri": seen.url,
        "openapi_uri": f"{seen.base}/swagger.json",
    }


def listed(console: Console, found: list[Seen], organisation: str) -> None:
    """A line for each."""
    if not found:
        console.print(f"{organisation} has none: make one by `penstock serverless-endpoint create`.")
        return
    wide = console.width >= WIDE
    table = Table(title=f"Serverless endpoints of {organisation}")
    # People copy it; 80 columns have room for the longest.
    table.add_column("Name", no_wrap=console.width >= NARROW, overflow="fold")
    table.add_column("Model", overflow="fold")
    table.add_column("State", overflow="fold")
    if wide:
        table.add_column("Project", overflow="fold")
        table.add_column("Limits", overflow="fold")
        table.add_column("Made", no_wrap=True)
    for seen in found:
        endpoint = seen.endpoint
        more = [endpoint.project, str(endpoint.limits), f"{endpoint.created_at:%Y-%m-%d %H:%M}"]
        table.add_row(endpoint.name, endpoint.model, _state(seen), *(more if wide else []))
    console.print(table)


def one(console: Console, seen: Seen) -> None:
    """All of one."""
    endpoint = seen.endpoint
    table = Table(title=endpoint.name, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in (
        ("Model", endpoint.model),
        ("State", _state(seen)),
        ("URL", seen.url),
        ("OpenAPI", f"{seen.base}/swagger.json"),
        ("Project", endpoint.project),
        ("Limits", str(endpoint.limits)),
        ("Tags", "\n".join(f"{name}={value}" for name, value in endpoint.tags.items()) or "none"),
        ("Description", endpoint.description or "none"),
        ("Made", f"{endpoint.created_at:%Y-%m-%d %H:%M} UTC"),
    ):
        table.add_row(label, value)
    console.print(table)


def credentials(console: Console, found: list[KeyShown], name: str) -> None:
    """Both keys, as far as they can be shown."""
    table = Table("Key", "Id", "Ends in", "Made", title=f"Keys of {name}")
    for key in found:
        table.add_row(key.slot.value, key.id, f"…{key.last_four}", f"{key.created_at:%Y-%m-%d %H:%M}")
    console.print(table)


def _state(seen: Seen) -> str:
    state, reason = seen.standing.state.value, seen.standing.reason
    if reason is None or reason.startswith(state):
        return reason or state
    return f"{state}: {reason}"
