"""Peers from PyPI, each in an environment of its own in the account's cache, out of Penstock's way."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from benchmarks.figures import Unmeasurable

INSTALL_WITHIN_S = 600.0


async def install(name: str, requirements: list[str]) -> Path:
    """The `bin` folder of an environment with these requirements, made the first time.

    Raises Unmeasurable with the installer's last line.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "penstock" / "bench" / name
    done = place / "installed"
    wanted = "\n".join(requirements)
    if await asyncio.to_thread(lambda: done.exists() and done.read_text() == wanted):
        return place / "bin"
    python = str(place / "bin" / "python")
    # pip and not the faster uv: it knows by itself where this machine gets packages from.
    await _do(sys.executable, "-m", "venv", "--clear", str(place))
    await _do(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    await asyncio.to_thread(done.write_text, wanted)
    return place / "bin"


async def _do(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(INSTALL_WITHIN_S):
            said, _ = await process.communicate()
    except TimeoutError:
        raise Unmeasurable(f"not installed within {INSTALL_WITHIN_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = (said.decode(errors="replace").strip().splitlines() or ["the installer said nothing"])[-1]
        raise Unmeasurable(f"cannot be installed: {last}")
