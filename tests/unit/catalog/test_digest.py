from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from penstock_catalog import digest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "Zebra name.txt").write_text("z")
    (folder / "1_Pooling" / "config.json").write_text('{"mean": true}')
    return folder


def test_anyone_can_check_a_folders_digest_with_a_shell(model: Path) -> None:
    shell = (
        r"find . -type f ! -path '*/.*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    )
    written = subprocess.run(["sh", "-c", shell], cwd=model, capture_output=True, text=True, check=True)
    assert digest.of_folder(model) == written.stdout.split()[0]
    assert shell in (digest.of_folder.__doc__ or "").replace("\n    ", " ")


def test_a_digest_changes_with_a_byte_a_name_and_a_file(model: Path) -> None:
    seen = {digest.of_folder(model)}
    (model / "config.json").write_text("{ }")
    seen.add(digest.of_folder(model))
    (model / "config.json").rename(model / "konfig.json")
    seen.add(digest.of_folder(model))
    (model / "empty.txt").touch()
    seen.add(digest.of_folder(model))
    assert len(seen) == 4


def test_a_digest_does_not_change_with_place_or_hidden_files(model: Path, tmp_path: Path) -> None:
    before = digest.of_folder(model)
    (model / ".cache").mkdir()
    (model / ".cache" / "note").write_text("x")
    moved = model.rename(tmp_path / "elsewhere")
    assert digest.of_folder(moved) == before


def test_a_name_that_could_forge_a_line_is_refused(model: Path) -> None:
    (model / "a\nb.txt").touch()
    with pytest.raises(ValueError, match="line break"):
        digest.of_folder(model)
