"""A Chromium without a screen, as distributions package it. Run as a program it says where one is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NAMED_BY = "PENSTOCK_TEST_CHROMIUM"
SWITCH = "PENSTOCK_TEST_BROWSER"
MISSING = (
    "Chromium is missing and browser tests need it: install it (`apt-get install chromium`), "
    f"name another one with {NAMED_BY}=/path/to/chromium, or leave these tests out with {SWITCH}=no"
)
USUAL = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
STARTS_WITHIN_S = 60


def find() -> str | None:
    """Chromium's program, if there is one."""
    named = os.environ.get(NAMED_BY)
    found = (shutil.which(name) for name in ([named] if named else USUAL))
    return next(filter(None, found), None)


@contextlib.contextmanager
def running(program: str) -> Iterator[str]:
    """Start it, and say where it can be driven."""
    with tempfile.TemporaryDirectory(prefix="penstock-chromium-", ignore_cleanup_errors=True) as folder:
        log = (Path(folder) / "log").open("wb")
        process = subprocess.Popen(
            [
                program,
                *FLAGS,
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}/profile",
                "about:blank",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield _address(process, Path(folder))
        finally:
            process.terminate()
            process.wait(STARTS_WITHIN_S)
            log.close()


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    told = folder / "profile" / "DevToolsActivePort"
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not (told.exists() and len(lines := told.read_text().split()) == 2):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Chromium did not start:\n{(folder / 'log').read_text()[-2000:]}")
        time.sleep(0.02)
    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"


if __name__ == "__main__":
    sys.exit(None if find() else f"penstock: {MISSING}")
