"""The second factor: set up, asked for, never taken twice, lost and removed."""

from __future__ import annotations

import re
import time

import httpx
import pyotp
import pytest
from benches.portal import PASSWORD, Site

from penstock.access.people import Person
from penstock.access.second_factor import SecondFactors, UsedCode, WrongCode

FACTOR = "/portal/account/second-factor"
CODE = "/portal/sign-in/code"


async def set_up(client: httpx.AsyncClient) -> tuple[pyotp.TOTP, list[str]]:
    """As a person does: password, the key typed into an app, its first code; the recovery codes."""
    begun = await client.post(f"{FACTOR}/begin", data={"password": PASSWORD})
    assert begun.headers["location"] == FACTOR
    text = (await client.get(FACTOR)).text
    assert 'src="data:image/svg+xml' in text
    key = re.search(r"<code>((?:[A-Z2-7]{4} ?){8})</code>", text)
    assert key is not None, text
    totp = pyotp.TOTP(key[1].replace(" ", ""))
    done = await client.post(f"{FACTOR}/confirm", data={"code": totp.now()})
    assert done.status_code == 200, done.text
    codes = shown(done.text)
    assert len(set(codes)) == 10
    return totp, codes


def shown(text: str) -> list[str]:
    """The recovery codes of a page."""
    return re.findall(r"^[0-9a-z]{6}-[0-9a-z]{6}", text.replace("<code>", "\n"), re.MULTILINE)


def next_code(totp: pyotp.TOTP, steps: int = 1) -> str:
    """One that is good now and was not used: clocks may be a step off."""
    return totp.at(int(time.time()) + 30 * steps)


async def give_password(site: Site, role: str = "owner") -> httpx.AsyncClient:
    client = await site.visitor()
    form = {"email": site.acme.email(role), "password": PASSWORD, "next": "/portal/account"}
    answer = await client.post("/portal/sign-in", data=form)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{CODE}?next=/portal/account"
    assert "penstock_session" not in client.cookies
    return client


async def test_the_password_alone_opens_nothing_any_more(site: Site) -> None:
    totp, _ = await set_up(await site.client("owner"))
    client = await give_password(site)
    for path in ("/portal", "/portal/account", FACTOR, "/portal/keys"):
        answer = await client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/portal/sign-in?")
    for path in ("/portal/account/name", f"{FACTOR}/remove", "/portal/organisation"):
        await client.post(path, data={"name": "Thief", "password": PASSWORD, "organisation": "acme"})
    assert await site.database.fetchval("select count(*) from access.second_factor") == 1
    # What stands for half of it is no session either, under whatever name.
    half = client.cookies["penstock_half"]
    client.cookies.set("penstock_session", half, path="/portal")
    assert (await client.get("/portal")).status_code == 303
    client.cookies.delete("penstock_session", path="/portal")
    assert (await client.get(CODE)).status_code == 200
    answer = await client.post(CODE, data={"code": next_code(totp), "next": "/portal/account"})
    assert answer.headers["location"] == "/portal/account"
    assert (await client.get("/portal/account")).status_code == 200
    # The half is used up.
    other = await site.visitor()
    other.cookies.set("penstock_half", half, path="/portal/sign-in")
    assert (await other.get(CODE)).headers["location"] == "/portal/sign-in?notice=sign-in-again"


async def test_a_code_is_taken_once(site: Site) -> None:
    totp, _ = await set_up(await site.client("owner"))
    # The one that confirmed it was seen over a shoulder.
    answer = await (await give_password(site)).post(CODE, data={"code": totp.now()})
    assert answer.status_code == 422
    code = next_code(totp)
    assert (await (await give_password(site)).post(CODE, data={"code": code})).status_code == 303
    answer = await (await give_password(site)).post(CODE, data={"code": code})
    assert answer.status_code == 422
    assert "used already" in answer.text


async def test_a_recovery_code_lets_in_once(site: Site) -> None:
    _, codes = await set_up(await site.client("owner"))
    client = await give_password(site)
    assert (await client.get(f"{CODE}?with=recovery")).status_code == 200
    typed = f" {codes[3].upper().replace('-', ' ')} "
    assert (await client.post(CODE, data={"code": typed, "with": "recovery"})).status_code == 303
    assert "9 recovery codes are left" in (await client.get("/portal/account")).text
    again = await (await give_password(site)).post(CODE, data={"code": codes[3], "with": "recovery"})
    assert again.status_code == 422
    stored = await site.database.fetch("select digest from access.recovery_code")
    assert all(codes[3].encode() not in row["digest"] for row in stored)


@pytest.mark.parametrize("code", ["000000", "12345", "", "١٢٣٤٥٦", "abc", "x" * 5000, "123456\u202e"])
async def test_a_wrong_code_is_said_beside_its_field(site: Site, code: str) -> None:
    await set_up(await site.client("owner"))
    answer = await (await give_password(site)).post(CODE, data={"code": code})
    assert answer.status_code == 422
    assert 'id="e-code"' in answer.text


async def test_codes_are_not_guessed(site: Site) -> None:
    totp, codes = await set_up(await site.client("owner"))
    client = await give_password(site)
    for _ in range(5):
        assert (await client.post(CODE, data={"code": "000000"})).status_code == 422
    for code in ("000000", next_code(totp), codes[0]):
        # From any browser that has the password.
        answer = await (await give_password(site)).post(CODE, data={"code": code})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 60


async def test_a_half_sign_in_ends_by_itself(site: Site) -> None:
    totp, _ = await set_up(await site.client("owner"))
    client = await give_password(site)
    await site.database.execute("update access.half_sign_in set expires_at = now()")
    answer = await client.post(CODE, data={"code": next_code(totp), "next": "/portal/account"})
    assert answer.headers["location"] == "/portal/sign-in?next=/portal/account&notice=sign-in-again"


async def test_it_is_begun_and_removed_with_the_password_only(site: Site) -> None:
    client = await site.client("owner")
    assert (await client.post(f"{FACTOR}/begin", data={"password": "wrong password"})).status_code == 422
    assert await site.database.fetchval("select count(*) from access.second_factor") == 0
    await set_up(client)
    for what in ("remove", "recovery-codes"):
        answer = await client.post(f"{FACTOR}/{what}", data={"password": "wrong password"})
        assert answer.status_code == 422
        assert "This is not your password." in answer.text
    renewed = await client.post(f"{FACTOR}/recovery-codes", data={"password": PASSWORD})
    assert len(set(shown(renewed.text))) == 10
    assert await site.database.fetchval("select count(*) from access.recovery_code") == 10
    removed = await client.post(f"{FACTOR}/remove", data={"password": PASSWORD})
    assert removed.headers["location"] == "/portal/account?notice=second-factor-removed"
    assert await site.database.fetchval("select count(*) from access.recovery_code") == 0
    answer = await (await site.visitor()).post(
        "/portal/sign-in", data={"email": site.acme.email("owner"), "password": PASSWORD}
    )
    assert answer.headers["location"] == "/portal"


async def test_a_stolen_browser_does_not_guess_the_password(site: Site) -> None:
    client = await site.client("owner")
    for _ in range(5):
        await client.post(f"{FACTOR}/begin", data={"password": "wrong password"})
    answer = await client.post(f"{FACTOR}/begin", data={"password": PASSWORD})
    assert answer.status_code == 429
    assert "try again in" in answer.text


async def test_one_that_is_on_is_not_begun_again(site: Site) -> None:
    client = await site.client("owner")
    totp, _ = await set_up(client)
    await client.post(f"{FACTOR}/begin", data={"password": PASSWORD})
    text = (await client.get(FACTOR)).text
    assert totp.secret not in text.replace(" ", "")
    assert "data:image" not in text
    again = await client.post(f"{FACTOR}/confirm", data={"code": next_code(totp)})
    assert again.headers["location"] == FACTOR


async def test_the_secret_is_in_no_copy_of_the_database(site: Site) -> None:
    totp, _ = await set_up(await site.client("owner"))
    sealed = await site.database.fetchval("select sealed_secret from access.second_factor")
    assert totp.secret.encode() not in sealed
    other = SecondFactors(site.database, b"another pepper, of a thief......")
    person = await site.acme.person("owner")
    with pytest.raises(Exception, match="pepper"):
        await other.verify(person, totp.now())


async def test_a_clock_may_be_a_step_off_and_no_more(site: Site) -> None:
    factors, id_ = SecondFactors(site.database, b"p" * 32), await site.acme.person("owner")
    person = Person(id_, "Owner", site.acme.email("owner"), operator=False)
    await factors.begin(person)
    setup = await factors.setup(person)
    assert setup is not None
    assert "issuer=Penstock" in setup.address
    totp, now = pyotp.TOTP(setup.secret), 1_900_000_000
    for wrong in (now - 60, now + 60):
        with pytest.raises(WrongCode):
            await factors.confirm(person, totp.at(wrong), now)
    await factors.confirm(person, totp.at(now - 30), now)
    await factors.verify(id_, totp.at(now + 30), now)
    # What is older than the last one taken was seen by others, perhaps.
    with pytest.raises(UsedCode):
        await factors.verify(id_, totp.at(now), now)
