from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

from penstock_catalog import reading, reference
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN

README = BUILTIN.parents[1] / "README.md"
BEGIN = "<!-- begin: python -m penstock_catalog.reference -->\n"
END = "<!-- end -->\n"


def test_the_readme_has_the_reference_as_the_code_says_it() -> None:
    block = README.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert block.strip() == reference.markdown().strip(), (
        "run `python -m penstock_catalog.reference` and put what it prints between the two marks"
    )


def test_the_command_prints_the_reference() -> None:
    command = [sys.executable, "-m", "penstock_catalog.reference"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == reference.markdown()


def test_every_field_has_a_row_that_says_what_it_means() -> None:
    cells = [
        row.strip("| ").split(" | ") for row in reference.markdown().splitlines() if row.startswith("| `")
    ]
    meanings = {row[0].strip("`"): row[1].strip() for row in cells}
    assert set(ModelCard.__struct_fields__) <= set(meanings)
    assert {"source.path", "source.repository", "prices.output", "engine.extra"} <= set(meanings)
    assert [name for name, meaning in meanings.items() if not meaning] == []


def test_the_readmes_own_card_is_a_good_card(tmp_path: Path, today: datetime.date) -> None:
    text = README.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    file = tmp_path / "acme--helpdesk.yaml"
    file.write_text(text, encoding="utf-8")
    assert reading.read(file, today).card.id == "acme/helpdesk"
