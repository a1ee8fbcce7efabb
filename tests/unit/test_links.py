"""Documents lead to files that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


def test_every_guide_is_linked_from_the_front() -> None:
    front = (ROOT / "README.md").read_text()
    guides = (path.relative_to(ROOT) for path in (ROOT / "platform/guides").glob("*.md"))
    assert not [str(guide) for guide in guides if str(guide) not in front]
