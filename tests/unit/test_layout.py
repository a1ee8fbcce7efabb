"""The house's layout: names that would hide the standard library, stray packages, private places."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WINGS = ("platform", "billing", "catalog", "engines")
TOP = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "docs",
    "ops",
    "tests",
    *WINGS,
}
FORBIDDEN = {
    "platform",
    "types",
    "queue",
    "select",
    "stripe",
    "utils",
    "helpers",
    "common",
    "manager",
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def packages() -> list[Path]:
    return [entry for wing in WINGS for entry in (ROOT / wing).glob("penstock*") if entry.is_dir()]


def test_platform_is_the_standard_librarys() -> None:
    assert platform.python_version()
    assert not Path(str(platform.__file__)).is_relative_to(ROOT / "platform")


def test_no_package_marker_under_tests() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_wings_are_source_roots_and_no_packages() -> None:
    assert not [wing for wing in WINGS if (ROOT / wing / "__init__.py").exists()]


@pytest.mark.parametrize("package", packages(), ids=lambda p: p.name)
def test_no_module_hides_another(package: Path) -> None:
    modules = [path for path in package.rglob("*") if path.suffix == ".py" or path.is_dir()]
    bad = [str(path.relative_to(ROOT)) for path in modules if path.stem in FORBIDDEN]
    # A folder of data beside a module of the same name would be imported in its place.
    bad += [str(path.relative_to(ROOT)) for path in package.rglob("*.py") if path.with_suffix("").is_dir()]
    assert not bad


def test_every_package_is_typed_and_in_the_wheel() -> None:
    wheel = (ROOT / "pyproject.toml").read_text()
    for package in packages():
        assert (package / "py.typed").exists()
        assert f'"{package.relative_to(ROOT)}"' in wheel


def test_only_known_entries_at_the_top() -> None:
    assert {path.parts[0] for path in tracked()} <= TOP


def test_no_file_names_a_private_place() -> None:
    private = re.compile(
        rb"(?<![\w.])/(?:root|work|opt/(?:wheels|pypi))/|/home/(?!you\b)\w+/|\.(?:internal|corp|lan)\b(?:/|:\d)"
    )
    here = Path(__file__).relative_to(ROOT)
    found = [
        f"{path}: {match[0].decode()}"
        for path in tracked()
        if path != here and path.suffix not in {".safetensors", ".png"}
        if (match := private.search((ROOT / path).read_bytes()))
    ]
    assert not found
