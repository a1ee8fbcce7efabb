"""Settings: read once, and a value that makes no sense stops the start with its name."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock import settings
from penstock.settings import SettingsError


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_DATABASE_URL": "postgresql://x",
        "PENSTOCK_REDIS_URL": "redis://x",
    } | more


def test_defaults_serve_the_shipped_models(tmp_path: Path) -> None:
    told = settings.read(environment(tmp_path))
    assert (told.models, told.models_asleep) == (("penstock/demo-chat",), ("penstock/demo-embed",))
    assert told.journal_folder == tmp_path / "journal"


def test_who_names_models_gets_those_and_no_others(tmp_path: Path) -> None:
    told = settings.read(environment(tmp_path, PENSTOCK_MODELS="a/b, c/d"))
    assert (told.models, told.models_asleep) == (("a/b", "c/d"), ())
    told = settings.read(environment(tmp_path, PENSTOCK_MODELS="", PENSTOCK_MODELS_ASLEEP="a/b"))
    assert (told.models, told.models_asleep) == ((), ("a/b",))


def test_the_pepper_is_made_once_and_only_we_may_read_it(tmp_path: Path) -> None:
    first = settings.read(environment(tmp_path)).pepper
    assert settings.read(environment(tmp_path)).pepper == first
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "secrets" / "pepper").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_DRAIN_S", "soon"),
        ("PENSTOCK_DRAIN_S", "-1"),
        ("PENSTOCK_DRAIN_S", "nan"),
        ("PENSTOCK_BODY_BYTES_MAX", "10"),
        ("PENSTOCK_STALL_TIMEOUT_S", "inf"),
        ("PENSTOCK_LOG_LEVEL", "loud"),
        ("PENSTOCK_EVENTS_RETENTION_DAYS", "2"),
        ("PENSTOCK_EVENTS_RETENTION_DAYS", "30.5"),
        ("PENSTOCK_EVENTS_RETENTION_DAYS", "-1"),
        ("PENSTOCK_KEY_PEPPER", "short"),
        ("PENSTOCK_CARDS", "/does/not/exist"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings.read(environment(tmp_path, **{name: value}))


def test_without_a_running_penstock_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="bash ops/up"):
        settings.read({"PENSTOCK_HOME": str(tmp_path)})


def test_commands_follow_a_running_penstock(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        '{"pid": 1, "database_url": "postgresql://db", "redis_url": "unix://r"}'
    )
    told = settings.read({"PENSTOCK_HOME": str(tmp_path)})
    assert (told.database_url, told.redis_url) == ("postgresql://db", "unix://r")


def test_addresses_are_told_as_penstock_up_is_reached(tmp_path: Path) -> None:
    here = {
        "PENSTOCK_HOME": str(tmp_path),
        "PENSTOCK_DATABASE_URL": "postgresql://x",
        "PENSTOCK_REDIS_URL": "unix:///y",
        "PENSTOCK_KEY_PEPPER": "70" * 32,
    }
    assert settings.read(here).public_url == "http://127.0.0.1:8088"
    (tmp_path / "run.json").write_text('{"pid": 1, "public_url": "http://127.0.0.1:9000"}')
    assert settings.read(here).public_url == "http://127.0.0.1:9000"
    named = here | {"PENSTOCK_PUBLIC_URL": "https://models.example/"}
    assert settings.read(named).public_url == "https://models.example"
