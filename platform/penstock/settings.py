"""The environment, read once into one frozen struct; a value that makes no sense stops the start."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import msgspec

PREFIX = "PENSTOCK_"
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """A setting that cannot be used; the message names the variable and what would be accepted."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a process of Penstock is told from outside."""

    home: Path
    """PENSTOCK_HOME: the state folder (journals, engine sockets, logs, embedded databases)."""
    database_url: str
    """PENSTOCK_DATABASE_URL: PostgreSQL, as asyncpg reads it."""
    redis_url: str
    """PENSTOCK_REDIS_URL: a Redis-compatible server; only what may be lost is kept there."""
    cards: tuple[Path, ...]
    """PENSTOCK_CARDS: folders of model cards beside the built-in ones, separated by colons."""
    models: tuple[str, ...]
    """PENSTOCK_MODELS: the models to keep an engine for, separated by commas."""
    models_asleep: tuple[str, ...] = ()
    """PENSTOCK_MODELS_ASLEEP: models whose engine starts when somebody asks, and stops when nobody does."""
    cpu_slots: int | None = None
    """PENSTOCK_CPU_SLOTS: how many engines may run on this machine's processor; two per core by default."""
    pepper: bytes
    """PENSTOCK_KEY_PEPPER (hex) or the file secrets/pepper: what API keys are hashed with."""
    public_url: str = ""
    """PENSTOCK_PUBLIC_URL: where clients reach this platform, for the addresses it tells them."""
    proxies: tuple[IPNetwork, ...] = ()
    """PENSTOCK_PROXIES: reverse proxies in front, whose `X-Forwarded-For` says who asks."""
    body_bytes_max: int
    """PENSTOCK_BODY_BYTES_MAX: the largest request body taken."""
    drain_s: float
    """PENSTOCK_DRAIN_S: how long a stop waits for running requests."""
    first_byte_timeout_s: float
    """PENSTOCK_FIRST_BYTE_TIMEOUT_S: how long an engine may take until its first byte."""
    stall_timeout_s: float
    """PENSTOCK_STALL_TIMEOUT_S: how long a running stream may bring nothing."""
    hub_endpoint: str
    """PENSTOCK_HUB_ENDPOINT: where weights come from, https://huggingface.co or a mirror of it."""
    hub_token: str
    """PENSTOCK_HUB_TOKEN: for gated and private repositories of the hub."""
    metrics_token: str
    """PENSTOCK_METRICS_TOKEN: the bearer token for /metrics; without one only loopback may scrape."""
    log_level: str
    """PENSTOCK_LOG_LEVEL: debug, info, warning or error."""
    adapter_bytes_max: int = 2**30
    """PENSTOCK_ADAPTER_BYTES_MAX: the largest adapter taken."""
    adapters_bytes_max: int = 16 * 2**30
    """PENSTOCK_ADAPTERS_BYTES_MAX: the most that all adapters of one organisation may have together."""
    events_retention_days: int = 90
    """PENSTOCK_EVENTS_RETENTION_DAYS: then a day's events go to a file; 0 keeps them in Postgres for ever."""
    archive: Path | None = None
    """PENSTOCK_ARCHIVE_FOLDER: where those files go; by default the folder `archive` of `home`."""

    @property
    def archive_folder(self) -> Path:
        """Where events go that are too old for Postgres."""
        return self.archive or self.home / "archive"

    @property
    def journal_folder(self) -> Path:
        """Where gateway processes write what they metered, before Postgres has it."""
        return self.home / "journal"

    @property
    def engines_folder(self) -> Path:
        """Where engines listen and log."""
        return self.home / "engines"

    @property
    def models_folder(self) -> Path:
        """Where weights from a hub are kept."""
        return self.home / "models"

    @property
    def adapters_folder(self) -> Path:
        """Where adapters of models are kept."""
        return self.home / "adapters"

    @property
    def metrics_folder(self) -> Path:
        """Where the processes of one machine share their figures."""
        return self.home / "metrics"


DEFAULT_MODELS = "penstock/demo-chat"
DEFAULT_MODELS_ASLEEP = "penstock/demo-embed"
"""Where no models are named at all: a first start waits for one engine only."""


def default_home(environ: Mapping[str, str]) -> Path:
    """Name the state folder: PENSTOCK_HOME, or the XDG state folder of this account."""
    if home := environ.get("PENSTOCK_HOME"):
        return Path(home).expanduser().resolve()
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "penstock"


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment; raises SettingsError naming the first variable that cannot be used."""
    env = os.environ if environ is None else environ
    home = default_home(env)
    return Settings(
        home=home,
        database_url=_required(env, "DATABASE_URL", home),
        redis_url=_required(env, "REDIS_URL", home),
        cards=tuple(_folders(env.get("PENSTOCK_CARDS", ""))),
        models=_names(env.get("PENSTOCK_MODELS", DEFAULT_MODELS)),
        models_asleep=_names(
            env.get("PENSTOCK_MODELS_ASLEEP", "" if "PENSTOCK_MODELS" in env else DEFAULT_MODELS_ASLEEP)
        ),
        cpu_slots=int(_number(env, "CPU_SLOTS", 1, least=0)) if "PENSTOCK_CPU_SLOTS" in env else None,
        pepper=read_pepper(env, home),
        public_url=_address(env, "PUBLIC_URL", _running(home).get("public_url") or "http://127.0.0.1:8088"),
        proxies=tuple(_networks(env.get("PENSTOCK_PROXIES", ""))),
        body_bytes_max=int(_number(env, "BODY_BYTES_MAX", 8 * 1024 * 1024, least=1024)),
        drain_s=_number(env, "DRAIN_S", 30, least=0),
        first_byte_timeout_s=_number(env, "FIRST_BYTE_TIMEOUT_S", 600, least=1),
        stall_timeout_s=_number(env, "STALL_TIMEOUT_S", 60, least=1),
        hub_endpoint=_address(env, "HUB_ENDPOINT", "https://huggingface.co"),
        hub_token=env.get("PENSTOCK_HUB_TOKEN", ""),
        metrics_token=env.get("PENSTOCK_METRICS_TOKEN", ""),
        adapter_bytes_max=int(_number(env, "ADAPTER_BYTES_MAX", 2**30, least=2**20)),
        adapters_bytes_max=int(_number(env, "ADAPTERS_BYTES_MAX", 16 * 2**30, least=2**20)),
        events_retention_days=_retention(env),
        archive=Path(folder).expanduser().resolve()
        if (folder := env.get("PENSTOCK_ARCHIVE_FOLDER"))
        else None,
        log_level=_choice(env, "LOG_LEVEL", ("debug", "info", "warning", "error"), "info"),
    )


def read_pepper(env: Mapping[str, str], home: Path) -> bytes:
    """Read the pepper that API keys are hashed with, making the file at the first start.

    Losing it makes every key unknown; it is never in the database, so a copied database opens nothing.
    """
    if text := env.get("PENSTOCK_KEY_PEPPER"):
        return _pepper(text, "PENSTOCK_KEY_PEPPER")
    path = home / "secrets" / "pepper"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _pepper(path.read_text(encoding="ascii"), str(path))
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written ({error.strerror}); choose another PENSTOCK_HOME"
        ) from error
    text = secrets.token_hex(32)
    with os.fdopen(made, "w", encoding="ascii") as file:
        file.write(text)
    return bytes.fromhex(text)


def _pepper(text: str, place: str) -> bytes:
    try:
        pepper = bytes.fromhex(text.strip())
    except ValueError:
        pepper = b""
    if len(pepper) < 16:
        raise SettingsError(f"{place} must hold at least 32 hexadecimal digits")
    return pepper


def _required(env: Mapping[str, str], name: str, home: Path) -> str:
    """Take a variable, or what a running `penstock up` wrote down for the commands beside it."""
    if value := env.get(PREFIX + name):
        return value
    value = _running(home).get(name.lower(), "")
    if not value:
        raise SettingsError(
            f"no running Penstock was found in {home}: start one with `bash ops/up`, "
            f"or set PENSTOCK_HOME to its state folder, or set {PREFIX}{name}"
        )
    return value


def _running(home: Path) -> dict[str, str]:
    """What a running `penstock up` wrote down; nothing where none runs."""
    try:
        found = msgspec.json.decode((home / "run.json").read_bytes(), type=dict[str, str | int])
    except (OSError, msgspec.MsgspecError):
        return {}
    return {name: str(value) for name, value in found.items()}


def _number(env: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = env.get(PREFIX + name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise SettingsError(f"{PREFIX}{name} is {text!r}: it must be a number of at least {least:g}")
    return value


def _retention(env: Mapping[str, str]) -> int:
    days = _number(env, "EVENTS_RETENTION_DAYS", 90, least=0)
    if days % 1 or 0 < days < 3:
        text = env.get(PREFIX + "EVENTS_RETENTION_DAYS")
        raise SettingsError(
            f"{PREFIX}EVENTS_RETENTION_DAYS is {text!r}: it must be a whole number of at least 3 days, "
            "or 0 to keep all events in the database"
        )
    return int(days)


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = env.get(PREFIX + name, default).lower()
    if value not in choices:
        raise SettingsError(f"{PREFIX}{name} is {value!r}: it must be one of {', '.join(choices)}")
    return value


def _address(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(PREFIX + name, default).rstrip("/")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise SettingsError(f"{PREFIX}{name} is {value!r}: it must be an http:// or https:// address")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _networks(text: str) -> list[IPNetwork]:
    found = []
    for name in _names(text):
        try:
            found.append(ipaddress.ip_network(name))
        except ValueError:
            raise SettingsError(
                f"PENSTOCK_PROXIES names {name!r}, which is no address or network like 10.0.0.0/8"
            ) from None
    return found


def _folders(text: str) -> list[Path]:
    folders = [Path(part).expanduser().resolve() for part in text.split(":") if part]
    for folder in folders:
        if not folder.is_dir():
            raise SettingsError(f"PENSTOCK_CARDS names {folder}, which is not a folder")
    return folders
