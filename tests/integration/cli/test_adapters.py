"""`penstock adapters` as an operator uses it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Awaitable[Any]]
ACME = ("--organisation", "acme")
WEB = (*ACME, "--project", "web")
DEMO = Path(__file__).parents[3] / "catalog" / "demo"
MODEL = "penstock/demo-chat"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = importlib.util.spec_from_file_location("demo_adapter", DEMO / "adapter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Path = module.write(tmp_path / "tone")
    return made


def upload(folder: Path, *more: str) -> tuple[str, ...]:
    return ("adapters", "upload", str(folder), "--model", MODEL, "--name", "tone", *WEB, *more)


async def test_an_adapter_is_uploaded_listed_shown_changed_and_deleted(
    penstock: Command, asked: Command, acme: int, folder: Path, tmp_path: Path
) -> None:
    said = (await penstock(*upload(folder))).stdout
    assert f"{MODEL}:tone is version 1;" in said
    assert "the same content was there already" in (await penstock(*upload(folder))).stdout
    config = json.loads((folder / "adapter_config.json").read_bytes())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 2}))
    said = (await penstock(*upload(folder, "--no-activate", "--description", "Softer"))).stdout
    assert f"call this one as {MODEL}:tone@2" in said
    [listed] = await asked("adapters", "list", *ACME)
    assert (listed["model"], listed["active_version"], len(listed["versions"])) == (f"{MODEL}:tone", 1, 2)
    assert "version 2 now" in (await penstock("adapters", "activate", "tone", "--version", "2", *ACME)).stdout
    for columns in (80, 120):
        for command in (("list", *ACME), ("show", "tone", *ACME)):
            text = (await penstock("adapters", *command, columns=columns)).stdout
            assert "tone" in text
            assert max(len(line) for line in text.splitlines()) <= columns
    assert "Softer" in text
    assert "tone is gone" in (await penstock("adapters", "delete", "tone", *ACME)).stdout
    assert await asked("adapters", "list", *ACME) == []
    assert not list((tmp_path / "adapters" / ".incoming").iterdir())


async def test_a_folder_with_a_pickle_is_refused(penstock: Command, acme: int, folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    said = (await penstock(*upload(folder), status=1)).output
    assert "'adapter_model.bin' is a format that holds pickled objects" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("activate", "tone", "--version", "7"), "no version 7 of adapter named 'tone'"),
        (("activate", "other", "--version", "1"), "no adapter named 'other'"),
        (("show", "other"), "see `penstock adapters list`"),
        (("delete", "other"), "no adapter named 'other'"),
    ],
)
async def test_what_is_not_there_is_said(
    penstock: Command, acme: int, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    await penstock(*upload(folder))
    assert said in (await penstock("adapters", *arguments, *ACME, status=1)).output


async def test_what_cannot_be_uploaded_is_said(
    penstock: Command, acme: int, folder: Path, tmp_path: Path
) -> None:
    to = ("adapters", "upload", str(folder), *WEB)
    assert "small letters" in (await penstock(*to, "--model", MODEL, "--name", "Tone", status=1)).output
    none = await penstock(*to, "--model", "penstock/demo-embed", "--name", "tone", status=1)
    assert "takes no adapters" in none.output
    unknown = await penstock(*to, "--model", "penstock/demo-chatt", "--name", "tone", status=1)
    assert "no card for" in unknown.output
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no adapter_config.json" in (await penstock(*upload(empty), status=1)).output
