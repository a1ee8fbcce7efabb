"""The page of members: who invites, changes and removes, and that an owner always stays."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest


def link_of(page: str) -> str:
    found = re.search(r'data-copy="[^"]*(/portal/invitation/[^"]+)"', page)
    assert found is not None
    return found[1]


async def test_an_owner_invites_and_whoever_has_the_link_joins(site: Any) -> None:
    owner = await site.client("owner")
    made = await owner.post(
        "/portal/members/invitations", data={"email": "ada@example.org", "role": "developer"}
    )
    assert made.status_code == 201
    link = link_of(made.text)
    listed = (await owner.get("/portal/members")).text
    assert "ada@example.org" in listed
    assert link not in listed
    visitor = await site.visitor()
    joined = await visitor.post(link, data={"name": "Ada", "password": "correct horse battery"})
    assert joined.status_code == 303
    listed = (await owner.get("/portal/members")).text
    assert "Invited" not in listed
    assert "Ada" in listed
    log = (await owner.get("/portal/audit?what=member&name=ada@example.org")).text
    assert "added" in log


async def test_an_invitation_that_is_taken_back_opens_nothing(site: Any) -> None:
    owner = await site.client("owner")
    made = await owner.post("/portal/members/invitations", data={"email": "ada@example.org", "role": "owner"})
    number = re.search(r"/portal/members/invitations/(\d+)/revoke", made.text)
    assert number is not None
    assert (await owner.post(number[0])).status_code == 303
    assert (await owner.post(number[0])).status_code == 404
    assert (await (await site.visitor()).get(link_of(made.text))).status_code >= 400


async def test_only_owners_change_who_belongs(site: Any) -> None:
    owner_id = await site.acme.person("owner")
    for role in ("developer", "viewer"):
        client = await site.client(role)
        page = (await client.get("/portal/members")).text
        assert "Invite somebody" not in page
        for path, values in (
            ("/portal/members/invitations", {"email": "x@example.org", "role": "owner"}),
            ("/portal/members/invitations/1/revoke", {}),
            (f"/portal/members/{await site.acme.person(role)}", {"role": "owner"}),
            (f"/portal/members/{owner_id}/remove", {}),
        ):
            assert (await client.post(path, data=values)).status_code == 403


async def test_a_role_that_is_taken_away_holds_from_the_next_page_on(site: Any) -> None:
    owner, developer = await site.client("owner"), await site.client("developer")
    person = await site.acme.person("developer")
    assert (await developer.get("/portal/keys/new")).status_code == 200
    changed = await owner.post(f"/portal/members/{person}", data={"role": "viewer"})
    assert changed.status_code == 303
    assert (await developer.get("/portal/keys/new")).status_code == 403


async def test_who_was_removed_sees_nothing_more(site: Any) -> None:
    owner, developer = await site.client("owner"), await site.client("developer")
    person = await site.acme.person("developer")
    await owner.post("/portal/projects", data={"name": "secret project"})
    assert "secret project" in (await developer.get("/portal/projects")).text
    assert (await owner.post(f"/portal/members/{person}/remove")).status_code == 303
    for path in ("/portal/projects", "/portal/keys", "/portal/members", "/portal/audit"):
        answer = await developer.get(path)
        assert "secret project" not in answer.text
        assert "owner@acme.example" not in answer.text
    assert (await developer.post("/portal/projects", data={"name": "x"})).status_code == 403


async def test_the_last_owner_stays(site: Any) -> None:
    owner = await site.client("owner")
    person = await site.acme.person("owner")
    refused = await owner.post(f"/portal/members/{person}", data={"role": "viewer"})
    assert refused.status_code == 422
    assert "only owner" in refused.text
    refused = await owner.post(f"/portal/members/{person}/remove")
    assert refused.status_code == 422
    assert "only owner" in refused.text
    page = (await owner.get(f"/portal/members/{person}")).text
    assert 'id="remove"' not in page


async def test_of_two_owners_who_leave_at_once_one_stays(site: Any) -> None:
    clients = [await site.client("owner"), await site.client("operator")]
    people = [await site.acme.person("owner"), await site.acme.person("operator")]
    answers = await asyncio.gather(
        *(
            client.post(f"/portal/members/{person}/remove")
            for client, person in zip(clients, people, strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [303, 422]


async def test_a_member_leaves_by_their_own_will(site: Any) -> None:
    viewer = await site.client("viewer")
    person = await site.acme.person("viewer")
    assert "Leave" in (await viewer.get(f"/portal/members/{person}")).text
    answer = await viewer.post(f"/portal/members/{person}/remove")
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/account?notice=left")
    assert (await viewer.get("/portal/account")).status_code == 200


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"email": "", "role": "viewer"}, "email"),
        ({"email": "ada", "role": "viewer"}, "email"),
        ({"email": "ada@example.org", "role": "king"}, "role"),
        ({"email": "owner@acme.example", "role": "viewer"}, "email"),
    ],
)
async def test_what_is_wrong_with_an_invitation_is_said_beside_its_field(
    site: Any, values: dict[str, str], field: str
) -> None:
    owner = await site.client("owner")
    answer = await owner.post("/portal/members/invitations", data=values)
    assert answer.status_code == 422
    assert f'id="e-{field}"' in answer.text


async def test_people_of_other_organisations_are_not_there(site: Any) -> None:
    globex = await site.organisation("globex")
    stranger = await globex.person("owner")
    owner = await site.client("owner")
    for number in (stranger, 0, 10**30):
        assert (await owner.get(f"/portal/members/{number}")).status_code == 404
        assert (await owner.post(f"/portal/members/{number}", data={"role": "owner"})).status_code == 404
        assert (await owner.post(f"/portal/members/{number}/remove")).status_code == 404
