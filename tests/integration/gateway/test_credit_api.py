"""/api/v1/credit and /api/v1/ledger: an organisation sees its own money, and the way to its requests."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.access import keys
from penstock_billing import giving_back, promotions, wallets
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

PEPPER = b"p" * 32
CHAT = {"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


@pytest.fixture
async def owner(bench: Any) -> int:
    found: int = await bench.database.fetchval("select id from access.organisation where name = 'acme'")
    return found


async def test_credit_says_what_there_is_and_how_long_it_lasts(bench: Any, owner: int) -> None:
    async with bench.database.acquire() as connection:
        wallet = Wallet(owner)
        await wallets.set_terms(connection, wallet, Funding.PREPAID, strict=True)
        await wallets.top_up(connection, Wish(ref="t", amount_nano_usd=5_000_000_000), wallet)
        await promotions.promote(connection, Wish(ref="p", amount_nano_usd=7, note="hello"), wallet, None)
    async with bench.client() as client:
        (shown,) = (await client.get("/api/v1/credit")).json()["data"]
    assert (shown["funding"], shown["strict"], shown["pays_for_this_key"]) == ("prepaid", True, True)
    assert (shown["available_nano_usd"], shown["available_usd"]) == (5_000_000_007, "5.000000007")
    assert (shown["owed_max_usd"], shown["days_left"]) == (None, None)
    (promotion,) = shown["promotions"]
    assert (promotion["left_usd"], promotion["expires_at"], promotion["note"]) == (
        "0.000000007",
        None,
        "hello",
    )


async def test_a_charge_leads_to_its_requests_and_back(bench: Any, owner: int) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        made = []
        for _ in range(3):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            made.append(await bench.event(answer.headers["x-request-id"]))
        listed = (await client.get("/api/v1/ledger", params={"account": "receivable"})).json()["data"]
        found = []
        for booked in listed:
            after, cost = None, 0
            while True:
                params = {"limit": 1} | ({"after": after} if after else {})
                page = (await client.get(f"/api/v1/ledger/{booked['id']}/requests", params=params)).json()
                found += [each["request_id"] for each in page["data"]]
                cost += sum(each["cost_nano_usd"] for each in page["data"])
                after = page["next_after"]
                if after is None:
                    break
            assert cost == page["cost_nano_usd"] == booked["entries"][0]["amount_nano_usd"]
            assert "reference" in booked
            assert booked["reference"] is None
    assert sorted(found) == sorted(row["request_id"] for row in made)


async def test_the_ledger_pages_and_shows_own_entries_only(bench: Any, owner: int) -> None:
    async with bench.database.acquire() as connection:
        other = await keys.create(connection, PEPPER, name="other", organisation="other")
        other_id = await keys.find_organisation(connection, "other")
        for number in range(3):
            await wallets.top_up(
                connection, Wish(ref=f"t{number}", amount_nano_usd=number + 1), Wallet(owner)
            )
        foreign = await wallets.top_up(connection, Wish(ref="f", amount_nano_usd=9), Wallet(other_id))
    async with bench.client() as client:
        first = (await client.get("/api/v1/ledger", params={"limit": 2})).json()
        rest = (await client.get("/api/v1/ledger", params={"before": first["next_before"]})).json()
        assert [each["reference"] for each in first["data"] + rest["data"]] == ["t2", "t1", "t0"]
        assert rest["next_before"] is None
        for path in (f"/api/v1/ledger/{foreign.id}", f"/api/v1/ledger/{foreign.id}/requests"):
            assert (await client.get(path)).status_code == 404
        theirs = await client.get("/api/v1/ledger", headers={"authorization": f"Bearer {other}"})
        assert [each["id"] for each in theirs.json()["data"]] == [foreign.id]


async def test_a_refund_is_seen_with_what_it_makes_good(bench: Any, owner: int) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        request_id = answer.headers["x-request-id"]
        row = await bench.event(request_id)
        async with bench.database.acquire() as connection:
            wish = Wish(ref="r", amount_nano_usd=0, note="sorry", actor="somebody of ours")
            made = await giving_back.refund_request(connection, wish, owner, request_id)
        shown = (await client.get(f"/api/v1/ledger/{made.id}")).json()
        assert (shown["kind"], shown["note"]) == ("refund", "sorry")
        assert shown["corrects"] == row["ledger_transaction_id"]
        assert "somebody of ours" not in str(shown)
        requests = await client.get(f"/api/v1/ledger/{made.id}/requests")
        assert requests.status_code == 404


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/api/v1/ledger?account=treasure", "account"),
        ("/api/v1/ledger?kind=theft", "kind"),
        ("/api/v1/ledger?limit=0", "limit"),
        ("/api/v1/ledger?limit=201", "limit"),
        ("/api/v1/ledger?since=yesterday", "since"),
        ("/api/v1/ledger/1/requests?after=x", "after"),
    ],
)
async def test_bad_questions_are_refused_by_their_field(
    bench: Any, owner: int, path: str, param: str
) -> None:
    async with bench.database.acquire() as connection:
        row = [1, "ship:x", "usage"]
        await connection.execute("set session_replication_role = replica")
        await connection.execute(
            "insert into billing.ledger_transaction (id, ref, kind, period_start, period_end) "
            "values ($1, $2, $3, now(), now())",
            *row,
        )
        account = await connection.fetchval(
            "insert into billing.account (organisation_id, kind, posted_nano_usd) "
            "values ($1, 'receivable', 0) returning id",
            owner,
        )
        await connection.execute("insert into billing.entry values (1, $1, 5)", account)
        await connection.execute("reset session_replication_role")
    async with bench.client() as client:
        refused = await client.get(path)
    assert refused.status_code == 400
    assert refused.json()["param"] == param


async def test_numbers_beyond_all_are_not_found(bench: Any) -> None:
    async with bench.client() as client:
        assert (await client.get(f"/api/v1/ledger/{10**30}")).status_code == 404
        assert (await client.delete(f"/api/v1/budgets/{10**30}")).status_code == 404
        assert (await client.get("/api/v1/ledger", params={"before": 10**30})).json()["data"] == []
