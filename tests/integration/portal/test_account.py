"""The account page: one's name, password, browsers and theme."""

from __future__ import annotations

import re

import pytest
from benches.portal import PASSWORD, Site

ACCOUNT = "/portal/account"
NEW = "five other long words"


async def test_the_page_shows_what_is_ones_own(site: Site) -> None:
    client = await site.client("operator")
    text = (await client.get(ACCOUNT)).text
    assert site.acme.email("operator") in text
    assert "You run it, as an operator" in text
    assert "this browser" in text
    assert "Sign out everywhere else" not in text


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  Ada   Lovelace ", "Ada Lovelace"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\u202eevil", "\u202eevil"),
        ("é" * 100, "é" * 100),
    ],
)
async def test_a_name_is_changed_and_always_text(site: Site, typed: str, kept: str) -> None:
    client = await site.client("owner")
    answer = await client.post(f"{ACCOUNT}/name", data={"name": typed})
    assert answer.headers["location"] == f"{ACCOUNT}?notice=name-changed"
    assert await site.database.fetchval("select name from access.person") == kept
    assert "<script>alert" not in (await client.get(ACCOUNT)).text


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\x07b", "a\x1b[0m"])
async def test_what_is_no_name_is_said_and_kept(site: Site, name: str) -> None:
    client = await site.client("owner")
    answer = await client.post(f"{ACCOUNT}/name", data={"name": name})
    assert answer.status_code == 422
    assert 'id="e-name"' in answer.text
    assert len(name) < 100 or f'value="{name}"' in answer.text


async def test_a_new_password_ends_every_other_session(site: Site) -> None:
    here, there = await site.client("owner"), await site.client("owner")
    before = here.cookies["penstock_session"]
    form = {"current": PASSWORD, "new": NEW, "again": NEW}
    answer = await here.post(f"{ACCOUNT}/password", data=form)
    assert answer.headers["location"] == f"{ACCOUNT}?notice=password-changed"
    assert here.cookies["penstock_session"] != before
    text = (await here.get(ACCOUNT)).text
    assert "acme" in text
    assert (await there.get(ACCOUNT)).status_code == 303
    client = await site.visitor()
    form = {"email": site.acme.email("owner"), "password": PASSWORD}
    assert (await client.post("/portal/sign-in", data=form)).status_code == 422
    assert (await client.post("/portal/sign-in", data=form | {"password": NEW})).status_code == 303


@pytest.mark.parametrize(
    ("current", "new", "again", "beside"),
    [
        ("wrong password", NEW, NEW, "current"),
        (PASSWORD, NEW, NEW + "x", "again"),
        (PASSWORD, "short", "short", "new"),
        (PASSWORD, "owner.owner.1234", "owner.owner.1234", "new"),
        (PASSWORD, "x" * 300, "x" * 300, "new"),
        ("", "", "", "current"),
    ],
)
async def test_a_password_that_cannot_be_is_said_beside_its_field(
    site: Site, current: str, new: str, again: str, beside: str
) -> None:
    client = await site.client("owner")
    form = {"current": current, "new": new, "again": again}
    answer = await client.post(f"{ACCOUNT}/password", data=form)
    assert answer.status_code == 422
    assert f'id="e-{beside}"' in answer.text
    # Never sent back.
    assert not new or f'value="{new}"' not in answer.text
    assert (await client.get(ACCOUNT)).status_code == 200


async def test_browsers_are_listed_and_signed_out(site: Site) -> None:
    here = await site.client("owner")
    phone, other = await site.client("owner"), await site.client("owner")
    text = (await here.get(ACCOUNT)).text
    ids = re.findall(r'name="session" value="(\d+)"', text)
    assert len(ids) == 2
    ended = await here.post(f"{ACCOUNT}/sessions/end", data={"session": ids[0]})
    assert ended.headers["location"] == f"{ACCOUNT}?notice=session-ended-there"
    assert [(await each.get(ACCOUNT)).status_code for each in (phone, other)].count(303) == 1
    await here.post(f"{ACCOUNT}/sessions/end-others")
    assert [(await each.get(ACCOUNT)).status_code for each in (phone, other)] == [303, 303]
    assert (await here.get(ACCOUNT)).status_code == 200


@pytest.mark.parametrize("session", ["", "x", "0", "-1", "9" * 40, "1.5"])
async def test_a_browser_that_is_not_there_is_no_fault(site: Site, session: str) -> None:
    client = await site.client("owner")
    answer = await client.post(f"{ACCOUNT}/sessions/end", data={"session": session})
    assert answer.status_code == 303
    assert (await client.get(ACCOUNT)).status_code == 200


async def test_nobody_ends_anothers_session(site: Site) -> None:
    owner, viewer = await site.client("owner"), await site.client("viewer")
    theirs = await site.database.fetchval("select max(id) from access.session")
    await owner.post(f"{ACCOUNT}/sessions/end", data={"session": str(theirs)})
    await owner.post(f"{ACCOUNT}/sessions/end-others")
    assert (await viewer.get(ACCOUNT)).status_code == 200


@pytest.mark.parametrize(
    ("form", "page"),
    [
        ("name", ACCOUNT),
        ("password", ACCOUNT),
        ("sessions/end", ACCOUNT),
        ("second-factor/begin", f"{ACCOUNT}/second-factor"),
        ("second-factor/remove", f"{ACCOUNT}/second-factor"),
    ],
)
async def test_the_address_of_a_form_leads_back_to_its_page(site: Site, form: str, page: str) -> None:
    answer = await (await site.client("owner")).get(f"{ACCOUNT}/{form}")
    assert (answer.status_code, answer.headers["location"]) == (303, page)


async def test_what_a_browser_says_of_itself_is_text(site: Site) -> None:
    await site.acme.person("owner")
    client = await site.visitor()
    client.headers["user-agent"] = "<img src=x onerror=alert(1)>" + "y" * 1000
    form = {"email": site.acme.email("owner"), "password": PASSWORD}
    assert (await client.post("/portal/sign-in", data=form)).status_code == 303
    text = (await client.get(ACCOUNT)).text
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


async def test_the_theme_is_remembered_by_the_browser(site: Site) -> None:
    client = await site.client("owner")
    await client.post(f"{ACCOUNT}/theme", data={"theme": "dark"})
    assert 'data-theme="dark"' in (await client.get(ACCOUNT)).text
    await client.post(f"{ACCOUNT}/theme", data={"theme": "system"})
    assert "data-theme=" not in (await client.get(ACCOUNT)).text
    assert (await client.post(f"{ACCOUNT}/theme", data={"theme": '"><b>'})).status_code == 422
