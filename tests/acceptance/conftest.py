"""The whole platform as a user starts it: real PostgreSQL, Valkey and vLLM, started once for all tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openai
import pytest
import yaml

from penstock_catalog.shelf import BUILTIN


@dataclass
class Platform:
    """A running `penstock up`."""

    base_url: str
    api_key: str
    pid: int
    home: Path
    environment: dict[str, str]
    portal_email: str
    portal_password: str
    """The first account of the portal, which `up` shows once."""

    @property
    def root_url(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def database_url(self) -> str:
        return str(json.loads((self.home / "run.json").read_bytes())["database_url"])

    def command(self, *arguments: str) -> str:
        """Run a `penstock` command beside it, as an operator would."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "penstock.cli", *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def ask(self, path: str) -> Any:
        """GET something with the key."""
        return httpx.get(self.root_url + path, headers={"authorization": f"Bearer {self.api_key}"}).json()

    def engines(self, model: str) -> list[dict[str, Any]]:
        """The engines of a model, as an operator sees them; of one without a pool there are none."""
        listed = json.loads(self.command("pools", "list", "--json"))
        return [engine for each in listed if each["pool"]["model"] == model for engine in each["engines"]]

    def socket_of(self, engine: dict[str, Any]) -> Path:
        """Where an engine listens."""
        return self.home / "engines" / str(engine["id"]) / "engine.sock"

    def engine_socket(self, model: str) -> Path:
        """Where the only engine of a model listens."""
        [engine] = self.engines(model)
        return self.socket_of(engine)

    def engine_figure(self, model: str, name: str) -> float:
        """One figure of the engine's own metrics, summed over its labels."""
        transport = httpx.HTTPTransport(uds=str(self.engine_socket(model)))
        with httpx.Client(transport=transport, base_url="http://engine") as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


OWN = "acceptance/own-chat"
"""A model of the operator's own, which nobody serves until a test makes a pool for it."""


def own_card(folder: Path, cache_mib: int = 64) -> None:
    """Write its card: another name for the chat model that ships, in a folder beside the built-in cards."""
    [shipped] = BUILTIN.glob("penstock--demo-chat.yaml")
    card = yaml.safe_load(shipped.read_text())
    weights = (shipped.parent / card["source"]["path"]).resolve()
    card |= {"id": OWN, "publisher": "acceptance", "source": {"kind": "folder", "path": str(weights)}}
    card["engine"]["kv_cache_mib"] = cache_mib
    folder.mkdir(exist_ok=True)
    (folder / "acceptance--own-chat.yaml").write_text(yaml.safe_dump(card))


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    folder = Path(tempfile.mkdtemp(prefix="penstock-acceptance-"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environment["PENSTOCK_HOME"] = str(folder / "state")
    environment["PENSTOCK_CARDS"] = str(folder / "cards")
    own_card(folder / "cards")
    errors = (folder / "up.log").open("w+")
    up = subprocess.Popen(
        [sys.executable, "-P", "-m", "penstock.cli", "up", "--json", "--port", "0", "--workers", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert up.stdout is not None
    try:
        line = up.stdout.readline()
        if not line:
            errors.seek(0)
            logs = "".join(f"\n== {p.name}\n{p.read_text()[-3000:]}" for p in folder.glob("state/logs/*.log"))
            pytest.fail(f"penstock up did not start:\n{errors.read()}{logs}")
        told = json.loads(line)
        yield Platform(
            told["base_url"],
            told["api_key"],
            told["pid"],
            folder / "state",
            environment,
            told["portal_email"],
            told["portal_password"],
        )
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(90)
        up.stdout.close()
        errors.close()
    assert up.returncode == 0, (folder / "up.log").read_text()
    shutil.rmtree(folder)


@pytest.fixture
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=platform.base_url, api_key=platform.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(platform: Platform) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=platform.base_url, api_key=platform.api_key, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def ledger(platform: Platform) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(platform.database_url)
    yield connection
    await connection.close()
