"""`penstock serverless-endpoint`: by options and by files, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from click.testing import Result

from penstock.access.keyring import InvalidKey, Keyring

Command = Callable[..., Awaitable[Result]]
Asked = Callable[..., Awaitable[Any]]
PEPPER = b"p" * 32
MODEL = "penstock/demo-chat"
NOUN = "serverless-endpoint"
OWN = ("--organisation", "acme", "--project", "web")
ACME = ("--organisation", "acme")

FILE = """\
$schema: https://azuremlschemas.azureedge.net/latest/serverlessEndpoint.schema.json
name: front-desk
model_id: azureml://registries/azureml-demo/models/Demo-Chat
description: Answers guests
auth_mode: Key
tags:
  team: support
limits:
  requests_per_minute: 600
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "endpoint.yaml"
        path.write_text(text)
        return str(path)

    return write


async def test_an_endpoint_lives_by_commands(
    penstock: Command, asked: Asked, acme: int, database: asyncpg.Pool
) -> None:
    made = await asked(
        NOUN, "create", "--name", "front-desk", "--model", MODEL, *OWN, "--tag", "a=b", "--concurrent", "5"
    )
    assert made["scoring_uri"] == "http://127.0.0.1:8088/serverless/front-desk/v1"
    assert made["openapi_uri"] == "http://127.0.0.1:8088/serverless/front-desk/swagger.json"
    ring = Keyring(database, PEPPER)
    for slot in ("primary", "secondary"):
        principal = await ring.authenticate(made[f"{slot}_key"])
        assert (principal.organisation_id, principal.endpoint_id is not None) == (acme, True)
    shown = await asked(NOUN, "show", "front-desk", *ACME)
    assert shown == {name: value for name, value in made.items() if not name.endswith("_key")}
    assert (shown["limits"], shown["tags"]) == ({"concurrent_requests": 5}, {"a": "b"})
    assert (shown["state"], shown["state_reason"]) == ("creating", "the model's pool is being made")
    changed = await asked(
        NOUN, "update", "front-desk", *ACME, "--suspend", "--concurrent", "none", "--no-tags"
    )
    assert (changed["state"], changed["limits"], changed["tags"]) == ("suspended", {}, {})
    assert "│ suspended by whoever" in (await penstock(NOUN, "list", *ACME)).output
    fresh = await asked(NOUN, "regenerate-keys", "front-desk", "--key-type", "primary", *ACME)
    ring = Keyring(database, PEPPER)
    with pytest.raises(InvalidKey):
        await ring.authenticate(made["primary_key"])
    await ring.authenticate(fresh["primary_key"])
    await ring.authenticate(made["secondary_key"])
    listed = await asked(NOUN, "get-credentials", "front-desk", *ACME)
    assert [key["slot"] for key in listed] == ["primary", "secondary"]
    assert fresh["primary_key"] not in msgspec.json.encode(listed).decode()
    assert await asked(NOUN, "delete", "front-desk", *ACME) == {"deleted": "front-desk"}
    assert [each["state"] for each in await asked(NOUN, "list", *ACME)] == ["deleting"]


async def test_a_file_with_azures_names_makes_and_changes_an_endpoint(
    asked: Asked, acme: int, written: Callable[[str], str]
) -> None:
    made = await asked(NOUN, "create", "--file", written(FILE), *OWN)
    assert (made["name"], made["model"], made["description"]) == ("front-desk", MODEL, "Answers guests")
    assert (made["tags"], made["limits"]) == ({"team": "support"}, {"requests_per_minute": 600})
    await asked(NOUN, "update", "front-desk", "--suspend", *ACME)
    text = FILE.replace("Answers guests", "Rests").replace("600", "60")
    changed = await asked(NOUN, "update", "front-desk", "--file", written(text), *ACME)
    assert (changed["description"], changed["limits"]) == ("Rests", {"requests_per_minute": 60})
    # A file says nothing of it: the endpoint stays suspended.
    assert changed["state"] == "suspended"


@pytest.mark.parametrize(
    ("line", "by", "said"),
    [
        ("name: front-desk", "name: Front_Desk", "endpoint.yaml:2"),
        ("auth_mode: Key", "auth_mode: aad_token", "serverless endpoints have keys"),
        ("Demo-Chat", "Demo-Chat/versions/3", "a version is not accepted"),
        ("Demo-Chat", "Demo-Chatt", "did you mean"),
        ("requests_per_minute: 600", "requests_per_minute: 0", "a whole number of 1 or more"),
        ("description:", "descripton:", "description"),
    ],
)
async def test_a_file_that_is_wrong_is_refused_with_its_line_or_what_is_near(
    penstock: Command, acme: int, written: Callable[[str], str], line: str, by: str, said: str
) -> None:
    refused = await penstock(NOUN, "create", "--file", written(FILE.replace(line, by)), *OWN, status=1)
    assert said in refused.output
    assert "Traceback" not in refused.output
    listed = await penstock(NOUN, "list", *ACME)
    assert "acme has none" in listed.output


async def test_what_cannot_be_done_is_refused_with_what_can(
    penstock: Command, asked: Asked, acme: int, written: Callable[[str], str]
) -> None:
    create = (NOUN, "create", "--name", "front-desk", "--model")
    assert "did you mean" in (await penstock(*create, "penstock/demo-chatt", *OWN, status=1)).output
    await penstock(*create, MODEL, *OWN)
    assert "choose another name" in (await penstock(*create, MODEL, *OWN, status=1)).output
    other = FILE.replace("Demo-Chat", "Demo-Embed")
    changed = await penstock(NOUN, "update", "front-desk", "-f", written(other), *ACME, status=1)
    assert "make another endpoint" in changed.output
    other = FILE.replace("front-desk", "back-office")
    changed = await penstock(NOUN, "update", "front-desk", "-f", written(other), *ACME, status=1)
    assert "is of the endpoint 'back-office'" in changed.output
    both = await penstock(NOUN, "create", "--name", "x", "-f", written(FILE), status=2)
    assert "--file says all of it" in both.output
    for verb in ("show", "delete", "get-credentials"):
        assert (
            "no serverless endpoint named 'desk'"
            in (await penstock(NOUN, verb, "desk", *ACME, status=1)).output
        )


@pytest.mark.parametrize("columns", [40, 80, 160])
async def test_tables_are_whole_whatever_the_screen(penstock: Command, acme: int, columns: int) -> None:
    name = "the-front-desk-of-the-house"
    await penstock(
        *(NOUN, "create", "--name", name, "--model", MODEL, *OWN, "--tag", "team=support"),
        *("--tokens-per-minute", "1000000", "--description", "Answers guests " * 5),
    )
    for verb in (("list",), ("show", name)):
        output = (await penstock(NOUN, *verb, *ACME, columns=columns)).output
        assert max(map(len, output.splitlines())) <= columns
        assert "…" not in output
        if columns >= 80:
            assert name in output
            assert "creating: the" in output
    assert "1,000,000 tokens" in (await penstock(NOUN, "list", *ACME, columns=160)).output
