from __future__ import annotations

import datetime

import pytest

from penstock.access.limits import NONE
from penstock.endpoints.serverless import Endpoint
from penstock.endpoints.standing import State, standing
from penstock.routing.directory import Standing

NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


def endpoint(**fields: object) -> Endpoint:
    facts: dict[str, object] = {
        "id": 1,
        "project": "default",
        "name": "front-desk",
        "model": "penstock/demo-chat",
        "description": "",
        "tags": {},
        "limits": NONE,
        "suspended": None,
        "problem": None,
        "created_at": NOW,
        "deleted_at": None,
    }
    return Endpoint(**(facts | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "pool", "state", "reason"),
    [
        ({}, Standing("unknown"), State.CREATING, "the model's pool is being made"),
        ({}, Standing("ready"), State.ONLINE, None),
        ({}, Standing("asleep"), State.ONLINE, "the model is asleep"),
        ({}, Standing("starting", "", 3.2, 8.0), State.ONLINE, "the model is waking for 3 s, usually 8 s"),
        ({}, Standing("draining"), State.ONLINE, "the model is draining"),
        ({"suspended": "unpaid"}, Standing("ready"), State.SUSPENDED, "unpaid"),
        (
            {},
            Standing("gone", "it crashed"),
            State.UNHEALTHY,
            "no engine of the model runs (gone: it crashed)",
        ),
        (
            {},
            Standing("off", "its pool may have no engine"),
            State.UNHEALTHY,
            "no engine of the model runs (off: its pool may have no engine)",
        ),
        (
            {"problem": "it needs 80 GiB"},
            Standing("unknown"),
            State.UNHEALTHY,
            "the model cannot be served: it needs 80 GiB",
        ),
        # A problem of an earlier try counts no more once there is a pool.
        ({"problem": "it needs 80 GiB"}, Standing("ready"), State.ONLINE, None),
        (
            {"deleted_at": NOW, "suspended": "unpaid"},
            Standing("ready"),
            State.DELETING,
            "it takes no more requests; those that run end, and so do its minutes",
        ),
    ],
)
def test_every_state_has_its_reason(
    fields: dict[str, object], pool: Standing, state: State, reason: str | None
) -> None:
    found = standing(endpoint(**fields), pool)
    assert (found.state, found.reason) == (state, reason)
