"""How gateways and engines speak of adapters; engines find them in a folder of the machine.

A request names an adapter by the digest of its content as `model`, and in a header what the answer is to call
it: to engines the same content is the same adapter, whoever uploaded it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DIGEST: Final = re.compile(r"[0-9a-f]{64}")
"""What an adapter is called: the SHA-256 of its content."""
CONFIG: Final = "adapter_config.json"
NAME_HEADER: Final = b"x-penstock-model"
FOLDER: Final = "PENSTOCK_ADAPTERS"
"""The environment variable that tells an engine where adapters are."""


def place_of(folder: Path, name: str) -> Path | None:
    """Where the adapter of a digest lies; None for what is no digest, or is not there."""
    if not DIGEST.fullmatch(name):
        return None
    place = folder / name
    return place if (place / CONFIG).is_file() else None
