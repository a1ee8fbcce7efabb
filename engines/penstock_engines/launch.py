"""How engines start on this machine: forked from a warm parent on CPU, processes of their own on GPU."""

from __future__ import annotations

from pathlib import Path

from penstock_engines.device import detect_device
from penstock_engines.direct import DirectLauncher
from penstock_engines.launcher import EngineProcess, Launcher, socket_of
from penstock_engines.spec import Device
from penstock_engines.warm import ZygoteLauncher

__all__ = ["DirectLauncher", "EngineProcess", "Launcher", "ZygoteLauncher", "choose_launcher", "socket_of"]


def choose_launcher(folder: Path, device: Device | None = None) -> Launcher:
    """Choose how engines start on this machine; `folder` holds the launcher's own socket and log.

    Raises NoEngineBuildError where no engine can run here.
    """
    device = device or detect_device()
    return ZygoteLauncher(folder) if device is Device.CPU else DirectLauncher(device)
