"""What ops/pip_sources.py hands from pip to uv."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ops" / "pip_sources.py"


def told(
    tmp_path: Path, config: str = "", *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "pip.conf").write_text(config)
    pytest.importorskip("pip", reason="an environment made by uv has no pip to ask")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
    environment |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "HOME": str(tmp_path)}
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_indexes_folders_and_certificates_are_handed_on(tmp_path: Path) -> None:
    config = """
[global]
index-url = https://mirror.example/simple
extra-index-url = https://a.example/simple
    https://b.example/simple
find-links = /somewhere
cert = /certs.pem
"""
    lines = told(tmp_path, config).stdout.splitlines()
    assert {
        "UV_DEFAULT_INDEX=https://mirror.example/simple",
        "UV_INDEX=https://a.example/simple https://b.example/simple",
        "UV_INDEX_STRATEGY=unsafe-best-match",
        "UV_FIND_LINKS=/somewhere",
        "SSL_CERT_FILE=/certs.pem",
    } <= set(lines)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = "[global]\nfind-links = /file\n"
    assert "UV_FIND_LINKS=/environment" in told(tmp_path, config, PIP_FIND_LINKS="/environment").stdout


def test_an_index_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    answer = told(tmp_path, "", "--reachable", PIP_INDEX_URL="http://me:secret@127.0.0.1:1/simple")
    assert answer.returncode == 1
    assert "http://127.0.0.1 does not answer" in answer.stderr
    assert "secret" not in answer.stderr
