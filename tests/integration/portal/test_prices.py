"""The price list of an organisation: what it pays, will pay and has paid, and nobody else's list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from benches.gateway import EMBED, MODEL
from benches.portal import Site


async def add(site: Site, model: str, input_pico_usd: int, since: datetime, list_id: int = 1) -> None:
    await site.database.execute(
        "insert into billing.price_version"
        " (price_list_id, model, input_pico_usd, cached_input_pico_usd, output_pico_usd, valid_from)"
        " values ($1, $2, $3, 1000, 7777777, greatest($4, clock_timestamp()))",
        list_id,
        model,
        input_pico_usd,
        since,
    )
    await site.bench.gateway.prices.load(site.database)


async def test_prices_in_force_and_scheduled_ones_are_told_apart(site: Site) -> None:
    soon = datetime.now(UTC) + timedelta(days=3)
    await add(site, MODEL, 123_456, soon)
    client = await site.client("viewer")
    page = (await client.get("/portal/prices")).text
    assert MODEL in page
    assert EMBED in page
    assert f"from {soon:%Y-%m-%d %H:%M} UTC" in page
    assert "$0.123456" in page
    scheduled = (await client.get("/portal/prices?show=scheduled")).text
    assert EMBED not in scheduled.split('id="found"')[1]
    history = (await client.get("/portal/prices/history", params={"model": MODEL})).text
    assert history.index("scheduled") < history.index("in force")


async def test_the_list_is_searched_and_a_search_answers_with_the_part_alone(site: Site) -> None:
    client = await site.client("viewer")
    part = await client.get(
        "/portal/prices?q=EMBED demo", headers={"hx-request": "true", "hx-target": "found"}
    )
    assert "<html" not in part.text
    assert EMBED in part.text
    assert MODEL not in part.text
    assert "No model fits" in (await client.get("/portal/prices", params={"q": "<script>"})).text
    assert (await client.get("/portal/prices/history?model=penstock/demo-chad")).status_code == 404


async def test_an_organisation_sees_its_own_list_only(site: Site) -> None:
    globex = await site.organisation("globex")
    own = await site.database.fetchval(
        "insert into billing.price_list (name, note) values ('globex special', '') returning id"
    )
    await site.database.execute(
        "insert into billing.price_assignment (organisation_id, price_list_id, valid_from)"
        " values ($1, $2, clock_timestamp())",
        globex.id,
        own,
    )
    await add(site, MODEL, 42, datetime.now(UTC), own)
    await add(site, "secret/model", 42, datetime.now(UTC), own)
    page = (await (await globex.client("viewer")).get("/portal/prices")).text
    assert "globex special" in page
    assert "$0.000042" in page
    page = (await (await site.client("owner")).get("/portal/prices")).text
    assert "globex special" not in page
    assert "secret/model" not in page
    assert "$0.000042" not in page


async def test_minutes_have_prices_and_a_history(site: Site) -> None:
    for nano, since in ((10_000_000, "clock_timestamp()"), (12_000_000, "now() + interval '2 days'")):
        await site.database.execute(
            "insert into billing.minute_price_version"
            " (price_list_id, kind, subject, nano_usd_per_minute, valid_from)"
            f" values (1, 'endpoint', 'serverless', $1, {since})",
            nano,
        )
    await site.bench.gateway.prices.load(site.database)
    client = await site.client("viewer")
    page = (await client.get("/portal/prices")).text
    assert "$0.01" in page
    assert "$0.60" in page
    history = (await client.get("/portal/prices/history?minute=endpoint:serverless")).text
    assert "+20.0 %" in history
