"""The usage page: its numbers are the ledger's, however they are divided, and nobody else's."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from benches.gateway import MODEL, until
from benches.portal import Site

from penstock.portal import formats
from penstock_billing import intervals, minutes, roll_ups
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.testing import in_the_past

FEE_NANO_USD = 12_345_678


@pytest.fixture
async def used(site: Site) -> Site:
    """`acme` has sent requests and had an endpoint for a while; all of it is in the ledger."""
    await send(site.acme.api(), 3)
    await until(lambda: all_there(site, 3))
    now = datetime.now(UTC)
    async with site.database.acquire() as connection:
        async with in_the_past(connection):
            await connection.execute(
                "insert into billing.minute_price_version"
                " (price_list_id, kind, subject, nano_usd_per_minute, valid_from)"
                " values (1, 'endpoint', 'serverless', $1, $2)",
                FEE_NANO_USD,
                now - timedelta(days=400),
            )
        subject = Subject(
            kind=IntervalKind.ENDPOINT,
            id="1",
            priced_as="serverless",
            organisation_id=site.acme.id,
            model=MODEL,
            endpoint="helper",
        )
        await intervals.open_interval(connection, subject, now - timedelta(minutes=90), holder=None)
        await minutes.accrue(connection, now - timedelta(minutes=60))
        await minutes.accrue(connection, now - timedelta(minutes=1))
    return site


async def send(client: httpx.AsyncClient, count: int) -> None:
    async with client:
        for number in range(count):
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"Say {number}"}],
                "max_tokens": 3 + number,
            }
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text


async def all_there(site: Site, count: int) -> bool | None:
    found = await site.database.fetchval(
        "select count(*) from billing.usage_event where organisation_id = $1", site.acme.id
    )
    return True if found == count else None


async def earned(site: Site, organisation_id: int) -> int:
    """What the ledger says that an organisation was charged: the sum of its entries."""
    return int(
        await site.database.fetchval(
            "select coalesce(-sum(amount_nano_usd), 0)::bigint from billing.entry"
            " join billing.account on account.id = account_id"
            " where organisation_id = $1 and kind = 'revenue'",
            organisation_id,
        )
    )


def footer_cost(page: str) -> str:
    """The last amount below the table of parts."""
    return re.findall(r"<td class=\"number\">([^<]*\$[^<]*)</td>", page.rsplit("<tfoot>", maxsplit=1)[-1])[0]


# Wide enough to have the hour and a half before midnight in it.
WINDOW = "span=7-days"


@pytest.mark.parametrize("by", ["model", "endpoint", "project", "key", "unit"])
async def test_the_numbers_are_the_ledgers_however_they_are_divided(used: Site, by: str) -> None:
    cost = await earned(used, used.acme.id)
    assert cost > 80 * FEE_NANO_USD
    client = await used.client("viewer")
    for closed in (False, True):
        if closed:
            # As if hours and days were over: the same numbers from other rows.
            async with used.database.acquire() as connection:
                await roll_ups.advance(connection, datetime.now(UTC) + timedelta(days=2))
        page = (await client.get(f"/portal/usage?{WINDOW}&by={by}")).text
        assert footer_cost(page) == formats.usd(cost)
        assert "Latest use" in page


async def test_the_files_sum_to_the_ledger_in_exact_integers(used: Site) -> None:
    cost = await earned(used, used.acme.id)
    client = await used.client("developer")
    for file in ("shown.csv", "lines.csv"):
        for by in ("model", "unit"):
            answer = await client.get(f"/portal/usage/{file}?{WINDOW}&by={by}")
            assert answer.headers["content-type"].startswith("text/csv")
            assert "attachment" in answer.headers["content-disposition"]
            lines = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
            assert sum(int(line["cost_nano_usd"]) for line in lines) == cost
            assert (
                sum(
                    int(line["cost_usd"].replace(".", "").replace("-", "") or 0)
                    * (-1 if "-" in line["cost_usd"] else 1)
                    for line in lines
                )
                == cost
            )
    requests = [line for line in lines if line["what"] == "requests"]
    assert sum(int(line["requests"]) for line in requests) == 3
    assert sum(int(line["minutes"]) for line in lines if line["what"] == "endpoint-minutes") == len(
        {line["minute_utc"] for line in lines if line["what"] == "endpoint-minutes"}
    )


async def test_hours_and_minutes_sum_to_their_day(used: Site) -> None:
    """Charges reach across hours; each minute of them is in one."""
    client = await used.client("owner")
    whole = await earned(used, used.acme.id)
    now = datetime.now(UTC)
    first = (now - timedelta(minutes=91)).replace(minute=0, second=0, microsecond=0)
    last = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    parts = []
    at = first
    while at < last:
        query = f"since={at:%Y-%m-%dT%H:%MZ}&until={at + timedelta(hours=1):%Y-%m-%dT%H:%MZ}&by=endpoint"
        answer = await client.get(f"/portal/usage/shown.csv?{query}")
        lines = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""))
        parts.append(sum(int(line["cost_nano_usd"]) for line in lines))
        at += timedelta(hours=1)
    assert sum(parts) == whole
    assert sum(part > 0 for part in parts) >= 2


async def test_one_gets_from_a_bar_to_the_requests_in_it(used: Site) -> None:
    client = await used.client("viewer")
    seen = 0
    address = f"/portal/usage?{WINDOW}&by=key"
    while address.startswith("/portal/usage"):
        page = (await client.get(address)).text
        rows = re.findall(r'<tr><th scope="row"><a href="([^"]+)">[^<]*</a></th>(.*?)</tr>', page, re.DOTALL)
        assert rows
        # The latest step in which something was asked.
        address = html.unescape(
            next(
                href
                for href, cells in reversed(rows)
                if re.search(r"</td><td class=\"number\">[1-9][0-9]*</td>", cells)
            )
        )
        seen += 1
        assert "by=key" in address or address.startswith("/portal/requests")
    assert seen == 3
    assert address.startswith("/portal/requests?since=")


async def test_filters_hold_for_every_number_and_stay_in_every_link(used: Site) -> None:
    client = await used.client("owner")
    page = (await client.get(f"/portal/usage?{WINDOW}&endpoint=helper")).text
    assert footer_cost(page) == formats.usd(await minute_costs(used))
    assert "endpoint=helper" in re.findall(r'href="([^"]+)" download', page)[0]
    nothing = (await client.get(f"/portal/usage?{WINDOW}&model=no%2Fsuch")).text
    assert "Nothing was used then" in nothing
    assert 'value="no/such"' in nothing


async def minute_costs(site: Site) -> int:
    found = await site.database.fetchval("select sum(cost_nano_usd)::bigint from billing.minute_charge")
    return int(found)


async def test_others_see_nothing_of_it(used: Site) -> None:
    globex = await used.organisation("globex")
    page = (await (await globex.client("owner")).get("/portal/usage")).text
    assert "Nothing has been used yet" in page
    answer = await (await globex.client("owner")).get(f"/portal/usage/lines.csv?{WINDOW}")
    assert len(answer.text.splitlines()) == 1


async def test_an_address_without_sense_says_so_beside_the_field(used: Site) -> None:
    answer = await (await used.client("viewer")).get("/portal/usage?since=yesterday")
    assert answer.status_code == 400
    assert 'id="e-since"' in answer.text
    assert 'value="yesterday"' in answer.text


async def test_hostile_names_are_text_in_pages_and_files(used: Site) -> None:
    await used.database.execute(
        "update access.project set name = '=cmd|<script>x</script>' where organisation_id = $1", used.acme.id
    )
    client = await used.client("owner")
    page = (await client.get(f"/portal/usage?{WINDOW}&by=project")).text
    assert "<script>x" not in page
    assert "\\u003cscript\\u003e" in page  # in the chart's numbers
    file = (await client.get(f"/portal/usage/shown.csv?{WINDOW}&by=project")).text
    assert "'=cmd|<script>x</script>" in file


async def test_streamed_files_hold_no_connection_between_days(used: Site) -> None:
    client = await used.client("owner")

    async def chunks() -> AsyncIterator[bytes]:
        async with client.stream("GET", "/portal/usage/lines.csv?span=90-days") as answer:
            assert answer.status_code == 200
            assert "content-length" not in answer.headers
            async for chunk in answer.aiter_bytes():
                yield chunk

    assert b"".join([chunk async for chunk in chunks()]).startswith(b"\xef\xbb\xbfminute_utc")
