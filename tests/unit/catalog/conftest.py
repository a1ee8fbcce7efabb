from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

TODAY = datetime.date(2026, 10, 1)

GOOD = Path(__file__).with_name("good_card.yaml").read_text(encoding="utf-8")


@pytest.fixture
def today() -> datetime.date:
    return TODAY


@pytest.fixture
def write_card(tmp_path: Path) -> Callable[..., Path]:
    """Write a card into a folder `cards`, with text replaced as asked; each text must be there once."""

    def write(*changes: tuple[str, str], name: str = "acme--small-chat.yaml", folder: str = "cards") -> Path:
        text = GOOD
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (tmp_path / folder).mkdir(exist_ok=True)
        file = tmp_path / folder / name
        file.write_text(text, encoding="utf-8")
        return file

    return write
