"""Adapters through a real gateway: uploaded, called, versioned, private, billed, deleted."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pickle
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from penstock.access import keys
from penstock.adapters.store import Store
from penstock.control.adapters import AdapterFiles
from penstock.edge import forms
from penstock_billing import invariants

Body = Callable[..., bytes]
API = "/api/v1/adapters"
JSON = {"content-type": "application/json"}
MODEL = "penstock/demo-chat"
PEPPER = b"p" * 32
DEMO = Path(__file__).parents[3] / "catalog" / "demo"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Any]]:
    """The files of a form: an adapter of the demo model for each seed."""
    spec = importlib.util.spec_from_file_location("demo_adapter", DEMO / "adapter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("adapters")

    def files(seed: int = 0) -> dict[str, Any]:
        place = folder / str(seed)
        if not place.exists():
            module.write(place, seed)
        return {
            "config": ("adapter_config.json", (place / "adapter_config.json").read_bytes()),
            "weights": ("adapter_model.safetensors", (place / "adapter_model.safetensors").read_bytes()),
        }

    return files


def home(bench: Any) -> Path:
    found: Path = bench.gateway.journal.folder.parent
    return found


def left(bench: Any) -> list[str]:
    """What lies in the folder of adapters."""
    folder = home(bench) / "adapters"
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.name != ".incoming")


async def upload(bench: Any, files: dict[str, Any], key: str = "", **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {}) | ({"authorization": f"Bearer {key}"} if key else {})
    form = {"model": MODEL, "name": "tone"} | fields
    async with bench.client() as client:
        answer: httpx.Response = await client.post(API, data=form, files=files, headers=headers)
        return answer


async def start(bench: Any, name: str = "a") -> Any:
    return await bench.start_engine(name, adapters=home(bench) / "adapters")


async def call(bench: Any, body: bytes, key: str = "") -> httpx.Response:
    headers = JSON | ({"authorization": f"Bearer {key}"} if key else {})
    async with bench.client() as client:
        answer: httpx.Response = await client.post("/v1/chat/completions", content=body, headers=headers)
        return answer


async def loaded(engine: Any) -> set[str]:
    """The digests that an engine has."""
    async with engine.client() as client:
        listed = (await client.get("/v1/models")).json()["data"]
    return {each["id"] for each in listed} - {MODEL}


async def stranger(bench: Any) -> str:
    async with bench.database.acquire() as connection:
        key: str = await keys.create(connection, PEPPER, name="x", organisation="strangers")
        return key


async def test_an_upload_is_called_by_its_name_and_billed_at_its_bases_price(
    bench: Any, chat: Body, made: Any
) -> None:
    engine = await start(bench)
    answer = await upload(bench, made(), description="Speaks in tongues")
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["model"], told["version"], told["active_version"]) == (f"{MODEL}:tone", 1, 1)
    assert told["versions"][0]["rank"] == 4
    plain = await call(bench, chat())
    called = await call(bench, chat(model=f"{MODEL}:tone"))
    assert called.status_code == 200, called.text
    assert called.json()["model"] == f"{MODEL}:tone@1"
    assert await loaded(engine) == {told["versions"][0]["digest"]}
    base, event = [await bench.event(each.headers["x-request-id"]) for each in (plain, called)]
    assert (base["model"], event["model"]) == (MODEL, f"{MODEL}:tone@1")
    assert event["price_version"] == base["price_version"]
    assert event["cost_nano_usd"] == base["cost_nano_usd"] > 0
    async with bench.database.acquire() as connection:
        assert [each for each in await invariants.check(connection) if each.found] == []


async def test_a_stream_calls_it_so_in_every_event(bench: Any, chat: Body, made: Any) -> None:
    await start(bench)
    await upload(bench, made())
    answer = await call(bench, chat(model=f"{MODEL}:tone", stream=True))
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    assert {json.loads(event)["model"] for event in events} == {f"{MODEL}:tone@1"}


async def test_it_is_there_for_its_organisation_only(bench: Any, chat: Body, made: Any) -> None:
    await start(bench)
    await upload(bench, made())
    other = await stranger(bench)
    theirs = await call(bench, chat(model=f"{MODEL}:tone"), other)
    nobodys = await call(bench, chat(model=f"{MODEL}:nobodys"), other)
    assert theirs.status_code == nobodys.status_code == 404
    words = [answer.json()["error"]["message"].replace("nobodys", "tone") for answer in (theirs, nobodys)]
    assert words[0] == words[1]
    async with bench.client() as client:
        headers = {"authorization": f"Bearer {other}"}
        assert (await client.get(API, headers=headers)).json() == {"data": []}
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"{API}/tone", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (404, "adapter_not_found")
        seen = (await client.get("/v1/models", headers=headers)).json()["data"]
        mine = (await client.get("/v1/models")).json()["data"]
        one = await client.get(f"/v1/models/{MODEL}:tone")
    assert [each["id"] for each in seen] == [MODEL]
    assert [each["id"] for each in mine] == [MODEL, f"{MODEL}:tone"]
    assert (one.json()["parent"], one.json()["version"]) == (MODEL, 1)


async def test_the_digest_that_engines_know_opens_nothing(bench: Any, chat: Body, made: Any) -> None:
    await start(bench)
    digest = (await upload(bench, made())).json()["versions"][0]["digest"]
    for name in (digest, f"{MODEL}:{digest}"):
        assert (await call(bench, chat(model=name))).status_code == 404


async def test_versions_are_chosen_by_number_and_by_being_active(bench: Any, chat: Body, made: Any) -> None:
    await start(bench)
    await upload(bench, made(0))
    second = await upload(bench, made(1), activate="false")
    assert (second.json()["version"], second.json()["active_version"]) == (2, 1)

    async def answers(model: str) -> str:
        return str((await call(bench, chat(model=model))).json()["model"])

    assert await answers(f"{MODEL}:tone") == f"{MODEL}:tone@1"
    assert await answers(f"{MODEL}:tone@2") == f"{MODEL}:tone@2"
    async with bench.client() as client:
        changed = await client.patch(f"{API}/tone", json={"active_version": 2})
        assert changed.json()["active_version"] == 2
        missing = await client.patch(f"{API}/tone", json={"active_version": 3})
    assert missing.status_code == 404
    assert await answers(f"{MODEL}:tone") == f"{MODEL}:tone@2"
    assert (await call(bench, chat(model=f"{MODEL}:tone@3"))).status_code == 404


async def test_the_same_content_again_is_no_new_version(bench: Any, made: Any) -> None:
    assert (await upload(bench, made())).status_code == 201
    again = await upload(bench, made())
    assert (again.status_code, again.json()["version"], len(again.json()["versions"])) == (200, 1, 1)
    assert len(left(bench)) == 3


async def test_an_idempotency_key_holds_for_an_upload(bench: Any, made: Any) -> None:
    key = {"idempotency-key": "one"}
    first = await upload(bench, made(), headers=key)
    again = await upload(bench, made(), headers=key)
    other = await upload(bench, made(1), headers=key)
    assert first.status_code == again.status_code == 201
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_deleted_adapter_is_gone_and_a_new_one_of_its_name_counts_on(
    bench: Any, chat: Body, made: Any
) -> None:
    engine = await start(bench)
    digest = (await upload(bench, made())).json()["versions"][0]["digest"]
    assert (await call(bench, chat(model=f"{MODEL}:tone"))).status_code == 200
    async with bench.client() as client:
        assert (await client.delete(f"{API}/tone")).status_code == 204
    assert (await call(bench, chat(model=f"{MODEL}:tone"))).status_code == 404
    files = AdapterFiles(bench.database, Store(home(bench) / "adapters"))
    now = datetime.now(UTC)
    await files.look(now)
    assert await loaded(engine) == {digest}
    await files.look(now + timedelta(minutes=2))
    assert await loaded(engine) == set()
    assert digest in left(bench)
    await files.look(now + timedelta(days=2))
    assert left(bench) == []
    again = await upload(bench, made())
    assert (again.json()["version"], again.json()["active_version"]) == (2, 2)
    assert (await call(bench, chat(model=f"{MODEL}:tone"))).json()["model"] == f"{MODEL}:tone@2"


async def test_files_that_another_organisation_has_as_well_stay(bench: Any, chat: Body, made: Any) -> None:
    engine = await start(bench)
    other = await stranger(bench)
    digest = (await upload(bench, made())).json()["versions"][0]["digest"]
    assert (await upload(bench, made(), other)).json()["versions"][0]["digest"] == digest
    async with bench.client() as client:
        await client.delete(f"{API}/tone")
    await AdapterFiles(bench.database, Store(home(bench) / "adapters")).look(
        datetime.now(UTC) + timedelta(days=2)
    )
    assert (await call(bench, chat(model=f"{MODEL}:tone"), other)).status_code == 200
    assert await loaded(engine) == {digest}


async def test_an_engine_that_was_restarted_finds_it_again(bench: Any, chat: Body, made: Any) -> None:
    engine = await start(bench)
    await upload(bench, made())
    assert (await call(bench, chat(model=f"{MODEL}:tone"))).status_code == 200
    engine.process.kill()
    await engine.process.wait()
    engine.socket.unlink()
    again = await start(bench)
    assert await loaded(again) == set()
    assert (await call(bench, chat(model=f"{MODEL}:tone"))).status_code == 200


async def test_requests_for_one_adapter_go_to_one_engine(bench: Any, chat: Body, made: Any) -> None:
    engines = [await start(bench, name) for name in "abc"]
    for seed in range(3):
        await upload(bench, made(seed), name=f"tone-{seed}")
    for seed in range(3):
        for _ in range(4):
            answer = await call(bench, chat(model=f"{MODEL}:tone-{seed}"))
            event = await bench.event(answer.headers["x-request-id"])
            assert event["policy"] == "adapter_affinity"
    assert sum([len(await loaded(engine)) for engine in engines]) == 3


async def test_an_engine_that_lost_an_adapters_files_is_our_mistake_and_free(
    bench: Any, chat: Body, made: Any
) -> None:
    await start(bench)
    digest = (await upload(bench, made())).json()["versions"][0]["digest"]
    shutil.rmtree(home(bench) / "adapters" / digest)
    answer = await call(bench, chat(model=f"{MODEL}:tone"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "adapter_not_loaded")
    assert "nothing was billed" in answer.text


def changed(files: dict[str, Any], **config: Any) -> dict[str, Any]:
    fields = json.loads(files["config"][1]) | config
    return files | {"config": ("adapter_config.json", json.dumps(fields).encode())}


BAD: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], dict[str, Any], int, str | None, str]] = {
    "pickled by its name": (
        lambda files: files | {"weights": ("adapter_model.bin", b"x")},
        {},
        400,
        "weights",
        "pickled objects",
    ),
    "pickled inside": (
        lambda files: files | {"weights": ("adapter_model.safetensors", pickle.dumps({}))},
        {},
        400,
        "weights",
        "Python pickle",
    ),
    "another base": (lambda files: changed(files, r=8), {}, 400, "weights", "needs [8, 256]"),
    "code": (lambda files: changed(files, auto_map={"a": "b.c"}), {}, 400, "config", "no code"),
    "no weights": (lambda files: {"config": files["config"]}, {}, 400, "weights", "required"),
    "a third file": (
        lambda files: files | {"tokenizer": ("tokenizer.json", b"{}")},
        {},
        400,
        "tokenizer",
        "unknown field",
    ),
    "a model that is none": (lambda files: files, {"model": "penstock/none"}, 404, "model", MODEL),
    "a model without adapters": (
        lambda files: files,
        {"model": "penstock/demo-embed"},
        400,
        "model",
        "takes no adapters; those that do: ",
    ),
    "a name that is none": (lambda files: files, {"name": "Tone!"}, 400, "name", "small letters"),
    "a project that is none": (lambda files: files, {"project": "x"}, 400, "project", "project"),
    "neither true nor false": (lambda files: files, {"activate": "yes"}, 400, "activate", "true or false"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_what_cannot_be_served_is_refused_and_leaves_nothing(bench: Any, made: Any, kind: str) -> None:
    change, fields, status, param, reason = BAD[kind]
    answer = await upload(bench, change(made()), **fields)
    assert answer.status_code == status, answer.text
    assert answer.json()["param"] == param
    assert reason in answer.json()["detail"]
    assert left(bench) == []
    async with bench.client() as client:
        assert (await client.get(API)).json() == {"data": []}


async def test_a_name_belongs_to_one_base(bench: Any, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await upload(bench, made())
    await bench.database.execute("update adapters.adapter set base_model = 'qwen/qwen3-8b'")
    answer = await upload(bench, made())
    assert (answer.status_code, answer.json()["param"]) == (400, "name")
    assert "is an adapter of qwen/qwen3-8b" in answer.json()["detail"]


async def test_too_large_is_said_before_it_is_read(bench: Any, made: Any) -> None:
    bench.gateway.uploads._settings = _with(bench, adapter_bytes_max=2**16)
    answer = await upload(bench, made() | {"weights": ("a.safetensors", bytes(10 * 2**20))})
    assert (answer.status_code, answer.json()["code"]) == (413, "adapter_too_large")
    assert left(bench) == []


async def test_an_organisations_adapters_have_a_size_together(bench: Any, made: Any) -> None:
    size = len(made(0)["weights"][1])
    bench.gateway.uploads._settings = _with(bench, adapters_bytes_max=size + 10)
    assert (await upload(bench, made(0))).status_code == 201
    answer = await upload(bench, made(1))
    assert (answer.status_code, answer.json()["code"]) == (413, "adapter_too_large")
    assert len(left(bench)) == 3


async def test_a_full_disk_is_said_and_leaves_nothing(
    bench: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.adapters.store.ROOM_BYTES", shutil.disk_usage(home(bench)).free)
    answer = await upload(bench, made())
    assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
    assert left(bench) == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(bench: Any, made: Any) -> None:
    arrived = asyncio.Event()

    async def half() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="weights"; filename="a.safetensors"\r\n\r\n'
        yield bytes(3 * forms.WRITE_BYTES)
        arrived.set()
        await asyncio.sleep(60)
        yield b""

    async with bench.client() as client:
        headers = {"content-type": "multipart/form-data; boundary=b"}
        sending = asyncio.create_task(client.post(API, content=half(), headers=headers))
        await arrived.wait()

        async def receiving() -> bool | None:
            return True if any(each.endswith(".safetensors") for each in left(bench)) else None

        await bench.until(receiving)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    async def clean() -> bool | None:
        return True if not left(bench) else None

    await bench.until(clean)


async def test_an_organisation_sends_two_at_once(bench: Any, made: Any) -> None:
    organisation = await bench.database.fetchval("select id from access.organisation where name = 'acme'")
    bench.gateway.uploads._running.update([organisation, organisation])
    answer = await upload(bench, made())
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 415),
        ("multipart/form-data; boundary=b", b"", 400),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense\r\n\r\nx\r\n--b--\r\n", 400),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx',
            400,
        ),
    ],
)
async def test_a_body_that_is_no_form_is_refused(
    bench: Any, content_type: str, body: bytes, status: int
) -> None:
    async with bench.client() as client:
        answer = await client.post(API, content=body, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text
    assert left(bench) == []


def _with(bench: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(bench.gateway.uploads._settings, **changes)


async def test_what_a_killed_gateway_had_received_is_removed(bench: Any, second_gateway: Any) -> None:
    async def half() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="weights"; filename="a.safetensors"\r\n\r\n'
        yield bytes(3 * forms.WRITE_BYTES)
        await asyncio.sleep(60)
        yield b""

    async def receiving() -> bool | None:
        return True if any(each.endswith(".safetensors") for each in left(bench)) else None

    # Without an engine a gateway does not say that it is ready.
    await start(bench)
    files = AdapterFiles(bench.database, Store(home(bench) / "adapters"))
    async with second_gateway() as (client, process):
        headers = {"content-type": "multipart/form-data; boundary=b"}
        sending = asyncio.create_task(client.post(API, content=half(), headers=headers))
        await bench.until(receiving)
        await files.look(datetime.now(UTC))
        assert left(bench) != []
        process.kill()
        await process.wait()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await files.look(datetime.now(UTC))
    assert left(bench) == []
