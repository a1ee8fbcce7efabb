"""Connections of running processes to Postgres: named, bounded, and with no more rights than they need.

Whoever migrates connects as the owner of the schemas. Everybody else takes the role `penstock_app`, which can
add facts (usage, prices, ledger entries) and not change them: append-only by privilege, beside the triggers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg

APP_ROLE = "penstock_app"
CONNECT_TIMEOUT_S = 10.0


async def connect(
    url: str, name: str, *, timeout_s: float = CONNECT_TIMEOUT_S, **options: Any
) -> asyncpg.Connection:
    """Open a connection that Postgres lists as `penstock <name>`; raises what asyncpg raises."""
    return await asyncpg.connect(url, timeout=timeout_s, server_settings=_settings(name), **options)


async def pool(
    url: str,
    name: str,
    *,
    size_max: int,
    command_timeout_s: float,
    setup: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
) -> asyncpg.Pool:
    """Make a pool of such connections; none is opened before it is needed, so Postgres may be away.

    `setup` is called with each connection that is handed out; what it sets is forgotten on the return.
    """
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size_max,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings=_settings(name),
        setup=setup,
    )


def _settings(name: str) -> dict[str, str]:
    return {"application_name": f"penstock {name}", "role": APP_ROLE}
