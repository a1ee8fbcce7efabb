"""Signing in: how often, as whom, and what strangers can do about it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import pytest
from benches.portal import PASSWORD, Site

from penstock.access import people, sessions, sign_in_limits
from penstock.access.sign_in_limits import Rule, TooManyTries

WRONG = "not the password at all"


async def knock(client: httpx.AsyncClient, email: str, password: str = WRONG, **more: str) -> httpx.Response:
    return await client.post("/portal/sign-in", data={"email": email, "password": password, **more})


async def use_up(client: httpx.AsyncClient, email: str) -> httpx.Response:
    """Try until told not to."""
    for _ in range(40):
        answer = await knock(client, email)
        if answer.status_code == 429:
            return answer
        assert answer.status_code == 422
    raise AssertionError("nobody stopped it")


async def test_wrong_passwords_are_slowed_down_and_told_when_to_try_again(site: Site) -> None:
    await site.acme.person("owner")
    client = await site.visitor()
    answer = await use_up(client, site.acme.email("owner"))
    wait_s = int(answer.headers["retry-after"])
    assert 1 <= wait_s <= 30
    assert f"try again in {wait_s} second" in answer.text
    assert re.search(r"at \d\d:\d\d:\d\d UTC", answer.text)
    assert site.acme.email("owner") in answer.text
    # The right one is not looked at either, or guessing would go on.
    assert (await knock(client, site.acme.email("owner"), PASSWORD)).status_code == 429


async def test_an_account_that_nobody_has_is_answered_alike(site: Site) -> None:
    await site.acme.person("owner")
    client = await site.visitor()
    known = await knock(client, site.acme.email("owner"))
    unknown = await knock(client, "nobody@acme.example")
    assert (known.status_code, unknown.status_code) == (422, 422)
    assert known.text.replace(site.acme.email("owner"), "nobody@acme.example") == unknown.text
    assert (await use_up(client, "nobody@acme.example")).status_code == 429


async def test_an_account_that_nobody_has_takes_as_long(site: Site) -> None:
    await site.acme.person("owner")
    pool, took = site.database, {}
    for email in (site.acme.email("owner"), "nobody@acme.example"):
        times = []
        for _ in range(5):
            started = time.process_time()
            assert await people.recognise(pool, email, WRONG) is None
            times.append(time.process_time() - started)
        took[email] = min(times)
    known, unknown = took.values()
    assert 0.5 < known / unknown < 2


async def test_strangers_do_not_lock_out_who_was_here_before(site: Site) -> None:
    person = await site.client("owner")
    await person.post("/portal/sign-out")
    stranger = await site.visitor()
    await use_up(stranger, site.acme.email("owner"))
    assert (await knock(stranger, site.acme.email("owner"), PASSWORD)).status_code == 429
    assert (await knock(person, site.acme.email("owner"), PASSWORD)).status_code == 303


async def test_what_a_browser_keeps_of_one_account_is_worth_nothing_for_another(site: Site) -> None:
    await site.client("owner")
    developer = await site.client("developer")
    stranger = await site.visitor()
    await use_up(stranger, site.acme.email("owner"))
    await developer.post("/portal/sign-out")
    assert (await knock(developer, site.acme.email("owner"), PASSWORD)).status_code == 429
    forged = {"cookie": "penstock_device=abc.00"}
    answer = await stranger.post(
        "/portal/sign-in", data={"email": site.acme.email("owner"), "password": PASSWORD}, headers=forged
    )
    assert answer.status_code == 429


async def test_a_known_browser_has_its_own_end_of_tries(site: Site) -> None:
    person = await site.client("owner")
    await person.post("/portal/sign-out")
    assert (await use_up(person, site.acme.email("owner"))).status_code == 429


RULE = Rule("test", 3, sign_in_limits.timedelta(seconds=10))


async def test_tries_come_back_one_by_one_for_all_gateways(site: Site) -> None:
    pool = site.database
    for _ in range(3):
        await sign_in_limits.take(pool, RULE, "somebody")
    await sign_in_limits.take(pool, RULE, "somebody else")
    with pytest.raises(TooManyTries) as refused:
        await sign_in_limits.take(pool, RULE, "somebody")
    assert 8 <= refused.value.retry_after_s <= 10

    async def passes(seconds: int) -> None:
        query = "update access.sign_in_limit set busy_until = busy_until - make_interval(secs => $1)"
        await pool.execute(query, seconds)

    await passes(refused.value.retry_after_s)
    await sign_in_limits.take(pool, RULE, "somebody")
    with pytest.raises(TooManyTries):
        await sign_in_limits.take(pool, RULE, "somebody")
    await sign_in_limits.give_back(pool, RULE, "somebody")
    await sign_in_limits.take(pool, RULE, "somebody")
    await passes(100)
    await sign_in_limits.sweep(pool)
    assert await pool.fetchval("select count(*) from access.sign_in_limit") == 0


async def test_tries_at_the_same_moment_are_counted_each(site: Site) -> None:
    tries = [sign_in_limits.take(site.database, RULE, "flood") for _ in range(20)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(each) for each in done if each is not None] == [TooManyTries] * 17


async def test_a_token_from_before_is_never_taken_over(site: Site) -> None:
    await site.acme.person("owner")
    client = await site.visitor()
    client.cookies.set("penstock_session", "chosen-by-a-stranger", path="/portal")
    assert (await knock(client, site.acme.email("owner"), PASSWORD)).status_code == 303
    [made] = [
        each.value for each in client.cookies.jar if each.name == "penstock_session" and each.domain != ""
    ]
    assert made != "chosen-by-a-stranger"
    thief = await site.visitor()
    thief.cookies.set("penstock_session", "chosen-by-a-stranger", path="/portal")
    assert (await thief.get("/portal")).status_code == 303


async def test_signing_in_again_ends_what_the_browser_was_signed_in_as(site: Site) -> None:
    client = await site.client("owner")
    first = client.cookies["penstock_session"]
    await site.acme.person("viewer")
    assert (await knock(client, site.acme.email("viewer"), PASSWORD)).status_code == 303
    assert client.cookies["penstock_session"] != first
    assert await sessions.visitor(site.database, first) is None


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site) -> None:
    await site.acme.person("owner")
    answer = await knock(await site.visitor(), site.acme.email("owner"), PASSWORD)
    for cookie in answer.headers.get_list("set-cookie"):
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/portal" in cookie


async def test_that_a_browser_was_seen_is_written_once_a_minute(site: Site) -> None:
    client = await site.client("owner")
    seen = "select seen_at from access.session"
    first = await site.database.fetchval(seen)
    await client.get("/portal")
    assert await site.database.fetchval(seen) == first
    await site.database.execute("update access.session set seen_at = seen_at - interval '2 minutes'")
    await client.get("/portal")
    assert await site.database.fetchval(seen) > first


@pytest.mark.parametrize(
    "aged", ["expires_at = now() - interval '1 second'", "seen_at = now() - interval '3 days'"]
)
async def test_a_session_that_is_over_opens_nothing_and_is_swept(site: Site, aged: str) -> None:
    client = await site.client("owner")
    await site.database.execute(f"update access.session set {aged}")
    answer = await client.get("/portal/account")
    assert answer.status_code == 303
    assert "notice=session-ended" in answer.headers["location"]
    await site.client("viewer")
    assert await site.database.fetchval("select count(*) from access.session") == 1


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("/portal/usage?month=2026-01", "/portal/usage?month=2026-01"),
        ("//evil.example", "/portal"),
        ("https://evil.example/portal", "/portal"),
        ("/portal\\@evil.example", "/portal"),
        ("/portal\r\nlocation: https://evil.example", "/portal"),
    ],
)
async def test_signing_in_leads_nowhere_else(site: Site, asked: str, led_to: str) -> None:
    await site.acme.person("owner")
    client = await site.visitor()
    answer = await knock(client, site.acme.email("owner"), PASSWORD, next=asked)
    assert answer.headers["location"] == led_to
    again = await client.get("/portal/sign-in", params={"next": asked})
    assert again.headers["location"] == led_to


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ],
)
async def test_no_other_site_signs_anybody_in(site: Site, headers: dict[str, str]) -> None:
    await site.acme.person("owner")
    async with httpx.AsyncClient(base_url=site.url) as client:
        form = {"email": site.acme.email("owner"), "password": PASSWORD}
        answer = await client.post("/portal/sign-in", data=form, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        same = await client.post("/portal/sign-in", data=form, headers={"origin": site.url})
        assert same.status_code == 303


HOSTILE: list[dict[str, Any]] = [
    {"data": {"email": "a@example.org" + "x" * 5000, "password": "x" * 5000}},
    {"data": {"email": "a\x1b[31m@example.org", "password": "x"}},
    {"data": {"email": "\u202ea@example.org", "password": "p\u0007q"}},
    {"data": {"email": ["a@example.org", "b@example.org"], "password": "x"}},
    {"data": {"password": "x"}},
    {"data": {"email": "<script>alert(1)</script>", "password": "x", "next": '"><script>alert(2)</script>'}},
    {"content": b"email=%zz&password", "headers": {"content-type": "application/x-www-form-urlencoded"}},
    {"json": {"email": "a@example.org", "password": "x"}},
    {"files": {"email": ("a.txt", b"a@example.org")}, "data": {"password": "x"}},
]


@pytest.mark.parametrize("body", HOSTILE)
async def test_what_no_form_of_ours_sends_is_refused_in_words(site: Site, body: dict[str, Any]) -> None:
    answer = await (await site.visitor()).post("/portal/sign-in", **body)
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text


BROKEN: list[tuple[dict[str, Any], int]] = [
    ({"data": {"email": "a\0b@example.org", "password": "x"}}, 400),
    ({"data": {"email": "a@example.org", "password": "x" * 20_000}}, 413),
    (
        {
            "content": b"email=%ff%fe@x&password=%ff",
            "headers": {"content-type": "application/x-www-form-urlencoded"},
        },
        422,
    ),
    ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
    ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400),
]


@pytest.mark.parametrize(("body", "status"), BROKEN)
async def test_a_broken_form_is_no_fault_of_ours(site: Site, body: dict[str, Any], status: int) -> None:
    answer = await (await site.visitor()).post("/portal/sign-in", **body)
    assert answer.status_code == status
    assert "content-security-policy" in answer.headers


async def test_an_address_with_nul_is_refused_on_every_page(site: Site) -> None:
    client = await site.client("owner")
    for path in ("/portal?q=%00", "/portal/account?x=a%00b", "/portal/sign-in?next=%00", "/portal/a%00b"):
        assert (await client.get(path)).status_code == 400


async def test_every_answer_lets_nothing_foreign_in(site: Site) -> None:
    client = await site.client("owner")
    stranger = await site.visitor()
    for answer in (
        await client.get("/portal"),
        await client.get("/portal/account"),
        await client.get("/portal/nowhere"),
        await client.post("/portal/account/name", data={"name": "Ada"}),
        await stranger.get("/portal"),
        await stranger.get("/portal/sign-in"),
        await stranger.post("/portal/sign-in", headers={"sec-fetch-site": "cross-site"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        # Only over https, or a browser would never come back to a portal without.
        assert "strict-transport-security" not in answer.headers


async def test_who_is_disabled_is_out_at_once(site: Site) -> None:
    client = await site.client("developer")
    async with site.database.acquire() as taken:
        connection: Any = taken
        person = await people.find(connection, site.acme.email("developer"))
        await people.disable(connection, person)
        assert (await client.get("/portal")).status_code == 303
        assert (await knock(client, person.email, PASSWORD)).status_code == 422
        await people.enable(connection, person)
    assert (await knock(client, person.email, PASSWORD)).status_code == 303


async def test_who_belongs_nowhere_is_told_so_and_has_their_account(site: Site) -> None:
    client = await site.client("developer")
    await site.database.execute("delete from access.membership")
    for path in ("/portal", "/portal/keys", "/portal/nowhere"):
        answer = await client.get(path)
        assert answer.status_code == 403
        assert "You belong to no organisation" in answer.text
        assert "acme" not in answer.text.replace("@acme.example", "").replace("Developer of acme", "")
    assert (await client.get("/portal/account")).status_code == 200
    assert (await client.post("/portal/sign-out")).status_code == 303


async def test_who_is_no_member_any_more_looks_at_the_next_of_theirs(site: Site) -> None:
    client = await site.client("developer")
    globex = await site.organisation("globex")
    await site.database.execute(
        "insert into access.membership (person_id, organisation_id, role) values ($1, $2, 'viewer')",
        await site.acme.person("developer"),
        globex.id,
    )
    assert "<option selected>acme</option>" in (await client.get("/portal")).text
    await site.database.execute("delete from access.membership where organisation_id = $1", site.acme.id)
    text = (await client.get("/portal")).text
    assert "<strong>globex</strong>" in text
    assert "viewer" in text


async def test_an_operator_looks_at_any_organisation_and_belongs_to_none_by_it(site: Site) -> None:
    client = await site.client("operator")
    await site.organisation("globex")
    await client.post("/portal/organisation", data={"organisation": "globex"})
    visitor = await sessions.visitor(site.database, client.cookies["penstock_session"])
    assert visitor is not None
    assert (visitor.organisation, visitor.role.value) == ("globex", "viewer")
    await site.database.execute("delete from access.membership")
    await site.database.execute("update access.session set organisation_id = null")
    assert (await client.get("/portal")).status_code == 200
