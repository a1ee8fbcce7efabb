"""Any handler that changes something obeys Idempotency-Key by being put under `Once.over`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody

from penstock.access.keyring import Principal
from penstock.edge import failures
from penstock.edge.refusals import BadRequest

Made = list[str]


class Ledger:
    """What a handler changes, and how it is told to go wrong."""

    def __init__(self) -> None:
        self.made: Made = []
        self.fault: Exception | None = None
        self.turn = asyncio.Event()
        self.turn.set()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def api(bench: Any, ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    @post("/api/v1/things")
    async def make(principal: NamedDependency[Principal], data: JSONBody[dict[str, str]]) -> dict[str, Any]:
        await ledger.turn.wait()
        ledger.made.append(data["name"])
        if ledger.fault is not None:
            raise ledger.fault
        return {"number": len(ledger.made), "owner": principal.organisation_id}

    @post("/api/v1/secrets")
    async def reveal() -> Response[dict[str, str]]:
        ledger.made.append("secret")
        return Response({"secret": "shown once"}, headers={"cache-control": "no-store"})

    @get("/api/v1/things")
    async def show() -> Made:
        return ledger.made

    async def principal(request: Request[Any, Any, Any]) -> Principal:
        from penstock.edge import wire

        return await bench.gateway.keyring.authenticate(wire.read_head(request.scope).api_key)

    app = Litestar(
        [bench.gateway.once.over([make, reveal, show])],
        dependencies={"principal": Provide(principal)},
        exception_handlers={Exception: failures.respond},
        openapi_config=None,
        logging_config=None,
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://x",
        headers={"authorization": f"Bearer {bench.key}", "idempotency-key": "k"},
    ) as client:
        yield client


async def test_a_change_is_made_once_and_its_answer_replayed(api: httpx.AsyncClient, ledger: Ledger) -> None:
    first = await api.post("/api/v1/things", json={"name": "a"})
    again = await api.post("/api/v1/things", json={"name": "a"})
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json() == {"number": 1, "owner": 1}
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-original-request-id"] == first.headers["x-request-id"]
    assert again.headers["content-type"] == "application/json"
    assert "x-penstock-cost-usd" not in again.headers
    assert ledger.made == ["a"]
    other = await api.post("/api/v1/things", json={"name": "b"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert other.headers["content-type"] == "application/problem+json"


async def test_reading_takes_no_claim(api: httpx.AsyncClient, bench: Any) -> None:
    assert (await api.get("/api/v1/things")).status_code == 200
    assert await bench.database.fetchval("select count(*) from admission.claim") == 0


async def test_changes_sent_at_once_are_made_once(api: httpx.AsyncClient, bench: Any, ledger: Ledger) -> None:
    ledger.turn.clear()
    calls = [asyncio.create_task(api.post("/api/v1/things", json={"name": "a"})) for _ in range(8)]
    done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert {call.result().status_code for call in done} == {409}
    ledger.turn.set()
    statuses = [answer.status_code for answer in await asyncio.gather(*pending)]
    assert statuses.count(201) >= 1
    assert ledger.made == ["a"]


async def test_a_refusal_is_not_kept(api: httpx.AsyncClient, ledger: Ledger) -> None:
    ledger.fault = BadRequest("no", param="name")
    assert (await api.post("/api/v1/things", json={"name": "a"})).status_code == 400
    ledger.fault = None
    assert (await api.post("/api/v1/things", json={"name": "a"})).status_code == 201


async def test_after_an_unforeseen_error_the_retry_is_told_to_look(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    ledger.fault = RuntimeError("who knows")
    assert (await api.post("/api/v1/things", json={"name": "a"})).status_code == 500
    ledger.fault = None
    again = await api.post("/api/v1/things", json={"name": "a"})
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_outcome_unknown")
    assert ledger.made == ["a"]


async def test_a_secret_is_never_stored(api: httpx.AsyncClient, bench: Any, ledger: Ledger) -> None:
    first = await api.post("/api/v1/secrets")
    assert first.json() == {"secret": "shown once"}
    again = await api.post("/api/v1/secrets")
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_answer_not_kept")
    assert ledger.made == ["secret"]
    assert await bench.database.fetchval("select body from admission.claim") is None


async def test_a_process_that_died_leaves_it_unknown(
    api: httpx.AsyncClient, bench: Any, ledger: Ledger
) -> None:
    ledger.turn.clear()
    call = asyncio.create_task(api.post("/api/v1/things", json={"name": "a"}))
    await bench.until(lambda: bench.database.fetchrow("select from admission.claim"), 30)
    await bench.database.execute(
        "insert into billing.gateway_boot (boot_id, host, settled_at) values ('dead', '', now())"
    )
    await bench.database.execute("update admission.claim set boot_id = 'dead'")
    again = await api.post("/api/v1/things", json={"name": "a"})
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_outcome_unknown")
    ledger.turn.set()
    await call


async def test_bad_keys_and_bad_credentials_are_refused_before_anything_else(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    bad = await api.post("/api/v1/things", json={"name": "a"}, headers={"idempotency-key": "a b"})
    assert (bad.status_code, bad.json()["param"]) == (400, "Idempotency-Key")
    nobody = await api.post("/api/v1/things", json={"name": "a"}, headers={"authorization": "Bearer x"})
    assert nobody.status_code == 401
    assert ledger.made == []
