from __future__ import annotations

import datetime
from pathlib import Path

from penstock.access.limits import RateLimits
from penstock.endpoints import files
from penstock.endpoints.serverless import Endpoint

HOSTILE = 'yes: "no" # - {a: b}\n\u202e<script>'


def test_what_is_written_reads_as_the_same_endpoint(tmp_path: Path) -> None:
    endpoint = Endpoint(
        id=1,
        project="default",
        name="front-desk",
        model="penstock/demo-chat",
        description=HOSTILE,
        tags={"team": "support", "on": "123", HOSTILE: "- x"},
        limits=RateLimits(requests_per_minute=600, concurrent_requests=20),
        suspended=None,
        problem=None,
        created_at=datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC),
        deleted_at=None,
    )
    file = tmp_path / "front-desk.yaml"
    file.write_text(files.written(endpoint))
    found = files.read(file)
    assert (found.name, found.model(["penstock/demo-chat"])) == (endpoint.name, endpoint.model)
    wish = found.wish
    assert (wish.description, wish.tags, wish.limits) == (HOSTILE, endpoint.tags, endpoint.limits)
