"""Where pip gets packages on this machine, told to uv; nothing of it is ever written to a file.

Prints `NAME=value` lines of uv's environment variables. With --reachable it asks the first index instead and
ends with 1 when it does not answer. Runs with the standard library alone, before anything is installed.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

PYPI = "https://pypi.org/simple"


def configured() -> dict[str, list[str]]:
    """Read `pip config list`: sections merge, and `[install]` and the environment come after `[global]`."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found: dict[str, list[str]] = {}
    for line in sorted(listed.splitlines(), key=rank):
        key, _, value = line.partition("=")
        if values := str(ast.literal_eval(value)).split():
            found[key.rpartition(".")[2]] = values
    return found


def rank(line: str) -> int:
    """What comes last wins."""
    return 2 if line.startswith(":env:") else 1 if line.startswith("install.") else 0


def for_uv(pip: dict[str, list[str]]) -> dict[str, str]:
    """Translate pip's settings into uv's variables."""
    told = {}
    if index := pip.get("index-url"):
        told["UV_DEFAULT_INDEX"] = index[0]
    if extra := pip.get("extra-index-url"):
        told["UV_INDEX"] = " ".join(extra)
        # As pip does; every package but one is held to its hash, so no index can slip another one in.
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := pip.get("find-links"):
        told["UV_FIND_LINKS"] = ",".join(links)
    if cert := pip.get("cert"):
        told["SSL_CERT_FILE"] = cert[0]
    if hosts := pip.get("trusted-host"):
        told["UV_INSECURE_HOST"] = " ".join(hosts)
    if pip.get("no-index", ["0"])[0].lower() in {"1", "true", "yes", "on"}:
        told["UV_NO_INDEX"] = "1"
    return told


def reachable(index: str) -> bool:
    """Ask the index for anything: an HTTP error is an answer too."""
    address = urllib.parse.urlsplit(index)
    shown = f"{address.scheme}://{address.hostname or ''}"
    try:
        urllib.request.urlopen(index, timeout=15).close()  # noqa: S310 - the address is pip's own
    except urllib.error.HTTPError:
        return True
    except OSError as error:
        print(f"  {shown} does not answer: {error}", file=sys.stderr)  # noqa: T201
        return False
    return True


def main() -> None:
    """Print the variables, or try the index."""
    pip = configured()
    if sys.argv[1:] == ["--reachable"]:
        sys.exit(not reachable(os.environ.get("UV_DEFAULT_INDEX") or pip.get("index-url", [PYPI])[0] + "/"))
    for name, value in for_uv(pip).items():
        print(f"{name}={value}")  # noqa: T201


main()
