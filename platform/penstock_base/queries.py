"""Named SQL: a `.sql` file holds queries, each under a line `-- name: what_it_does` and a sentence on it."""

from __future__ import annotations

import re
from importlib import resources

NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(package: str, file: str) -> dict[str, str]:
    """Read `sql/<file>` of a package into {query name: SQL}.

    Raises ValueError when a name stands twice or the file names none.
    """
    text = (resources.files(package) / "sql" / file).read_text(encoding="utf-8")
    parts = NAME.split(text)[1:]
    names, bodies = parts[::2], parts[1::2]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{package}/sql/{file}: each query needs a '-- name:' of its own")
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}
