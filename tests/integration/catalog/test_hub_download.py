"""Weights from a hub, against a stand-in of one on loopback."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import shutil
from collections import namedtuple
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock_catalog import artifacts, errors
from penstock_catalog.artifacts import Progress
from penstock_catalog.cards import EndpointKind, HubSource, ModelCard, Prices, Task
from penstock_catalog.hub import Hub

REVISION = "0123456789abcdef0123456789abcdef01234567"
CARD = ModelCard(
    id="acme/small",
    name="Small",
    publisher="Acme",
    summary="Small.",
    task=Task.CHAT,
    capabilities=[],
    languages=["en"],
    licence="MIT",
    parameters=1,
    context_length=16,
    released=datetime.date(2025, 1, 1),
    gpu_memory_gib=1,
    source=HubSource(repository="acme/small", revision=REVISION),
    prices=Prices(input="1", cached_input="1", output="1"),
    endpoints=[EndpointKind.ONLINE],
)

Locate = Callable[..., Awaitable[Path]]


def from_source(**source: Any) -> ModelCard:
    return msgspec.structs.replace(
        CARD, source=HubSource(**{"repository": "acme/small", "revision": REVISION} | source)
    )


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def folder(models: Path) -> Path:
    return models / "acme--small" / REVISION


@pytest.fixture
def heard() -> list[Progress]:
    return []


@pytest.fixture
def locate(hub: Any, models: Path, heard: list[Progress]) -> Locate:
    async def locate(card: ModelCard = CARD, retries: int = 0, token: str | None = None) -> Path:
        address = Hub(hub.endpoint, token, retries, retry_pause_s=0)
        return await artifacts.locate(card, models, heard.append, address)

    return locate


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


async def test_a_model_arrives_whole_and_nothing_that_can_run_code(
    hub: Any, locate: Locate, folder: Path
) -> None:
    assert await locate() == folder
    assert names(folder) == {
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
        "empty.txt",
        "model.safetensors",
    }
    assert all((folder / name).read_bytes() == hub.files[name] for name in names(folder))
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == [REVISION]


async def test_progress_grows_to_the_total(hub: Any, locate: Locate, heard: list[Progress]) -> None:
    await locate()
    done = [progress.done_bytes for progress in heard]
    total = sum(
        len(hub.files[name]) for name in hub.files if name.endswith((".json", ".txt", ".safetensors"))
    )
    assert done == sorted(done)
    assert done[-1] == total == heard[0].total_bytes
    assert len({progress.done_bytes for progress in heard if progress.file == "model.safetensors"}) > 3


async def test_what_is_there_needs_no_hub(hub: Any, locate: Locate, folder: Path) -> None:
    await locate()
    hub.seen.clear()
    assert await locate() == folder
    assert hub.seen == []


async def test_an_interrupted_download_goes_on_where_it_stopped(
    hub: Any, locate: Locate, folder: Path
) -> None:
    whole = hub.files["model.safetensors"]
    hub.cut_after["model.safetensors"] = 600_000
    with pytest.raises(errors.HubUnreachableError, match="start again"):
        await locate()
    assert names(folder) == set()
    part = folder.with_name(f"{REVISION}.partial") / "model.safetensors.part"
    had = part.stat().st_size
    assert 0 < had <= 600_000
    hub.seen.clear()
    hub.sent_bytes.clear()
    await locate()
    assert hub.requests_of("model.safetensors")[-1].range == f"bytes={had}-"
    assert hub.sent_bytes["model.safetensors"] == len(whole) - had
    assert hub.requests_of("config.json") == [], "files that were complete are not fetched again"
    assert (folder / "model.safetensors").read_bytes() == whole


async def test_a_connection_that_breaks_is_taken_up_within_one_start(
    hub: Any, locate: Locate, folder: Path
) -> None:
    hub.cut_after["model.safetensors"] = 300_000
    await locate(retries=1)
    ranges = [seen.range for seen in hub.requests_of("model.safetensors") if "/store/" in seen.path]
    assert ranges[0] is None
    assert ranges[1] is not None
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


async def test_a_hub_that_ignores_ranges_is_read_from_the_start(
    hub: Any, locate: Locate, folder: Path
) -> None:
    hub.cut_after["model.safetensors"] = 300_000
    hub.ranges_ignored = True
    await locate(retries=1)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


async def test_a_busy_hub_is_asked_again_and_then_given_up(hub: Any, locate: Locate, folder: Path) -> None:
    hub.statuses = [503, 429]
    with pytest.raises(errors.HubUnreachableError, match="answers 429"):
        await locate(retries=1)
    hub.statuses = [503, 429]
    assert await locate(retries=2) == folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
async def test_bytes_that_the_hub_did_not_promise_are_removed(
    hub: Any, locate: Locate, folder: Path, name: str
) -> None:
    hub.stated[name] = bytes([hub.files[name][0] ^ 1]) + hub.files[name][1:]
    with pytest.raises(errors.DigestMismatchError, match=f"{name} has digest"):
        await locate()
    assert names(folder) == set()
    assert not names(folder.with_name(f"{REVISION}.partial")) & {name, f"{name}.part"}


async def test_bytes_damaged_on_the_disk_between_two_starts_are_found(
    hub: Any, locate: Locate, folder: Path
) -> None:
    hub.cut_after["model.safetensors"] = 300_000
    with pytest.raises(errors.HubUnreachableError):
        await locate()
    part = folder.with_name(f"{REVISION}.partial") / "model.safetensors.part"
    part.write_bytes(b"\xff" + part.read_bytes()[1:])
    with pytest.raises(errors.DigestMismatchError):
        await locate()
    assert await locate() == folder


async def test_a_digest_on_the_card_binds_the_hub_too(hub: Any, locate: Locate, folder: Path) -> None:
    good = hashlib.sha256(hub.files["config.json"]).hexdigest()
    with pytest.raises(errors.DigestMismatchError, match="the card says"):
        await locate(from_source(digests={"config.json": "0" * 64}))
    with pytest.raises(errors.NotOnHubError, match=r"names gone\.json"):
        await locate(from_source(digests={"gone.json": good}))
    assert await locate(from_source(digests={"config.json": good})) == folder


async def test_a_card_without_a_commit_is_refused_and_says_how_to_pin(hub: Any, locate: Locate) -> None:
    with pytest.raises(errors.NotPinnedError, match=r"set source\.revision to a commit listed at"):
        await locate(from_source(revision=None))
    assert hub.seen == []


async def test_a_commit_the_hub_does_not_have_is_told(locate: Locate) -> None:
    with pytest.raises(errors.NotOnHubError, match="the commit of acme/small is not on"):
        await locate(from_source(revision="f" * 40))
    with pytest.raises(errors.NotOnHubError, match=r"acme/gone is not on .*check source\.repository"):
        await locate(from_source(repository="acme/gone"))


async def test_another_commit_than_asked_for_is_refused(hub: Any, locate: Locate) -> None:
    hub.served_commit = "e" * 40
    with pytest.raises(errors.HubNonsenseError, match="is of commit eeee"):
        await locate()
    hub.commit = "d" * 40
    with pytest.raises(errors.HubNonsenseError, match="answers commit dddd"):
        await locate()


async def test_a_gated_model_asks_for_a_token_and_takes_it(hub: Any, locate: Locate, folder: Path) -> None:
    hub.token_wanted = "hf_right"
    with pytest.raises(errors.HubRefusedError, match="is gated and PENSTOCK_HUB_TOKEN is not set"):
        await locate()
    with pytest.raises(errors.HubRefusedError, match="this PENSTOCK_HUB_TOKEN may not read it") as caught:
        await locate(token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    assert await locate(token="hf_right") == folder


async def test_a_token_is_not_shown_to_where_the_hub_redirects(hub: Any, locate: Locate) -> None:
    await locate(token="hf_secret")
    tokens = {("/store/" in seen.path): seen.token for seen in hub.seen}
    assert tokens == {False: "Bearer hf_secret", True: None}


async def test_a_private_model_is_told_apart_from_a_gated_one(hub: Any, locate: Locate) -> None:
    hub.repository_hidden = True
    with pytest.raises(errors.HubRefusedError, match=r"does not exist on .* or is private"):
        await locate()


async def test_no_network_is_told_with_the_address(models: Path) -> None:
    # Port 9 (discard) is closed everywhere we run.
    with pytest.raises(errors.HubUnreachableError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        await artifacts.locate(CARD, models, lambda _: None, Hub("http://127.0.0.1:9", retries=0))


async def test_what_is_no_hub_is_told_so(hub: Any, models: Path) -> None:
    elsewhere = Hub(f"{hub.endpoint}/{CARD.id}/resolve/{REVISION}/config.json?", retries=0)
    with pytest.raises(errors.HubNonsenseError, match="does not answer as a hub does"):
        await artifacts.locate(CARD, models, lambda _: None, elsewhere)


async def test_a_long_listing_is_read_page_by_page_from_the_same_host(
    hub: Any, locate: Locate, folder: Path
) -> None:
    hub.page_size = 2
    assert await locate() == folder
    assert len(names(folder)) == 5


async def test_a_repository_with_pickled_weights_only_is_refused_before_a_byte(
    hub: Any, locate: Locate
) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(errors.FolderUnusableError, match=r"no \*\.safetensors"):
        await locate()
    assert hub.sent_bytes == {}


async def test_weights_that_are_there_twice_are_fetched_once(
    hub: Any, locate: Locate, folder: Path, models: Path
) -> None:
    hub.files |= {
        "consolidated.safetensors": b"c" * 50,
        "consolidated.safetensors.index.json": b'{"weight_map": {}}',
    }
    await locate()
    assert "consolidated.safetensors" not in names(folder)
    shutil.rmtree(models)
    engine = msgspec.structs.replace(CARD.engine, extra={"load-format": "mistral"})
    await locate(msgspec.structs.replace(CARD, engine=engine))
    assert "model.safetensors" not in names(folder)
    assert "consolidated.safetensors" in names(folder)


async def test_a_listing_cannot_write_outside_the_folder(hub: Any, locate: Locate, models: Path) -> None:
    hub.files |= {
        "../evil.json": b"{}",
        "/etc/evil.json": b"{}",
        "a/../../evil.json": b"{}",
        ".hidden.json": b"{}",
    }
    await locate()
    assert not [name for name in names(models.parent) if "evil" in name or ".hidden" in name]


async def test_too_small_a_disk_is_told_before_a_byte(
    hub: Any, locate: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    # A full disk cannot be had without root; only its size is pretended.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30 - 1000, 1000))
    with pytest.raises(errors.DiskFullError, match=r"acme/small needs 0\.3 GiB more .*PENSTOCK_HOME"):
        await locate()
    assert hub.sent_bytes == {}


async def test_a_folder_that_cannot_be_written_is_told(hub: Any, tmp_path: Path) -> None:
    with (tmp_path / "models").open("w"), pytest.raises(errors.FolderUnusableError, match="cannot write"):
        await artifacts.locate(CARD, tmp_path / "models", lambda _: None, Hub(hub.endpoint))


async def test_two_starts_at_once_download_once(hub: Any, locate: Locate, folder: Path) -> None:
    assert await asyncio.gather(locate(), locate()) == [folder, folder]
    assert hub.sent_bytes["model.safetensors"] == len(hub.files["model.safetensors"])


async def test_a_cancelled_download_leaves_what_it_had(
    hub: Any, locate: Locate, models: Path, folder: Path
) -> None:
    begun = asyncio.Event()

    def hear(progress: Progress) -> None:
        if progress.file == "model.safetensors":
            begun.set()

    task = asyncio.create_task(artifacts.locate(CARD, models, hear, Hub(hub.endpoint)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(folder) == set()
    assert await locate() == folder
    assert hub.requests_of("model.safetensors")[-1].range is not None
