from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_catalog import artifacts, digest, reading
from penstock_catalog.errors import DigestMismatchError, FolderUnusableError

WriteCard = Callable[..., Path]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0" * 8)
    return folder


async def locate(card_file: Path, today: datetime.date, tmp_path: Path) -> Path:
    card = reading.read(card_file, today).card
    return await artifacts.locate(card, tmp_path / "models", lambda _: None)


async def test_a_local_folder_is_used_where_it_lies(
    write_card: WriteCard, today: datetime.date, weights: Path, tmp_path: Path
) -> None:
    assert await locate(write_card(), today, tmp_path) == weights
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.pth", "x.pkl", "x.ckpt"])
async def test_pickled_weights_are_refused_even_beside_safe_ones(
    write_card: WriteCard, today: datetime.date, weights: Path, tmp_path: Path, name: str
) -> None:
    (weights / name).touch()
    with pytest.raises(FolderUnusableError, match=rf"^acme/small-chat: .*{name}.*can run code"):
        await locate(write_card(), today, tmp_path)


async def test_a_folder_that_is_not_there_is_told_by_name(
    write_card: WriteCard, today: datetime.date, tmp_path: Path
) -> None:
    with pytest.raises(FolderUnusableError, match=rf"{tmp_path}/weights is not a folder"):
        await locate(write_card(), today, tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
async def test_an_incomplete_folder_is_refused(
    write_card: WriteCard, today: datetime.date, weights: Path, tmp_path: Path, name: str
) -> None:
    (weights / name).unlink()
    with pytest.raises(FolderUnusableError, match=name.replace("model", r"\*")):
        await locate(write_card(), today, tmp_path)


async def test_a_shard_that_its_index_names_must_be_there(
    write_card: WriteCard, today: datetime.date, weights: Path, tmp_path: Path
) -> None:
    index = weights / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}')
    with pytest.raises(FolderUnusableError, match=r"lacks model-2\.safetensors"):
        await locate(write_card(), today, tmp_path)
    index.write_text("{")
    with pytest.raises(FolderUnusableError, match="not readable"):
        await locate(write_card(), today, tmp_path)


async def test_a_folders_digest_is_compared_where_the_card_has_one(
    write_card: WriteCard, today: datetime.date, weights: Path, tmp_path: Path
) -> None:
    card = write_card(("path: ../weights", f"path: ../weights\n  digest: {digest.of_folder(weights)}"))
    assert await locate(card, today, tmp_path) == weights
    (weights / "model.safetensors").write_bytes(b"\1" * 8)
    with pytest.raises(DigestMismatchError, match="its card says"):
        await locate(card, today, tmp_path)
    assert (weights / "model.safetensors").exists(), "a user's own file is never removed"
