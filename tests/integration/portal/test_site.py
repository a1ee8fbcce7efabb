"""The door: who is let in, where one is sent, and what no other site may do."""

from __future__ import annotations

import pytest
from benches.portal import Site


async def test_a_page_asks_for_a_sign_in_and_leads_back(site: Site) -> None:
    answer = await (await site.visitor()).get("/portal/usage?month=2026-01")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/portal/sign-in?next=/portal/usage%3Fmonth%3D2026-01"


@pytest.mark.parametrize("role", ["owner", "developer", "viewer", "operator"])
async def test_everybody_who_signs_in_sees_the_first_page(site: Site, role: str) -> None:
    answer = await (await site.client(role)).get("/portal")
    assert answer.status_code == 200
    assert ("/portal/operator/" in answer.text) == (role == "operator")


async def test_a_change_that_another_sites_page_asks_for_is_refused(site: Site) -> None:
    client = await site.client("owner")
    answer = await client.post("/portal/sign-out", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert (await client.get("/portal")).status_code == 200


async def test_one_may_not_look_at_an_organisation_of_others(site: Site) -> None:
    globex = await site.organisation("globex")
    client = await site.client("owner")
    await client.post("/portal/organisation", data={"organisation": "globex"})
    assert "globex" not in (await client.get("/portal")).text
    assert "globex" in (await (await globex.client("viewer")).get("/portal")).text


async def test_an_address_that_only_takes_a_form_says_so_on_a_page(site: Site) -> None:
    client = await site.client("owner")
    answer = await client.get("/portal/organisation")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "takes a form of another page" in answer.text
    assert (await client.get("/api/v1/keys/nobody")).headers["content-type"] == "application/problem+json"


async def test_pages_are_compressed_for_who_reads_that(site: Site) -> None:
    client = await site.client("owner")
    packed = await client.get("/portal/models", headers={"accept-encoding": "gzip, br"})
    plain = await client.get("/portal/models", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.num_bytes_downloaded < plain.num_bytes_downloaded / 3
    assert packed.text.count("<li") == plain.text.count("<li") > 0
