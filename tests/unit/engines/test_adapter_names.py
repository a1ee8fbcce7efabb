from __future__ import annotations

from pathlib import Path

import pytest

from penstock_engines.adapter_names import place_of


def test_an_adapter_lies_under_its_digest(tmp_path: Path) -> None:
    place = tmp_path / ("a" * 64)
    place.mkdir()
    assert place_of(tmp_path, place.name) is None
    (place / "adapter_config.json").touch()
    assert place_of(tmp_path, place.name) == place


@pytest.mark.parametrize("name", ["", "..", "a" * 63, "A" * 64, f"../{'a' * 64}", "penstock/demo-chat:tone"])
def test_what_is_no_digest_lies_nowhere(name: str, tmp_path: Path) -> None:
    assert place_of(tmp_path, name) is None
