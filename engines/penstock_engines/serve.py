"""One vLLM server: what every engine process runs, on GPU by itself and on CPU after a fork.

`python -m penstock_engines.serve --parent PID -- ARGUMENTS` takes the arguments of `vllm serve`, the model as
`--model`. Nothing here is imported by the gateway or the controller.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
from collections.abc import Callable
from typing import Any, Final

from penstock_engines import lifeline

WARM_MODULES: Final = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.entrypoints.launchers.api_server.routers",
)
"""What every engine imports on its way to its first answer, found by looking at what a started one had."""


def run(arguments: list[str]) -> None:
    """Serve until told to stop; the arguments are those of vLLM's API server."""
    import uvloop  # noqa: PLC0415 - see warm
    from vllm.entrypoints.launchers.api_server.entry import run_server  # noqa: PLC0415
    from vllm.entrypoints.launchers.cli_args import (  # noqa: PLC0415
        make_arg_parser,
        validate_parsed_serve_args,
    )
    from vllm.logger import configure_logging_from_args  # noqa: PLC0415
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: PLC0415

    from penstock_engines import receipts  # noqa: PLC0415

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    configure_logging_from_args(parsed)
    validate_parsed_serve_args(parsed)
    receipts.install()
    uvloop.run(run_server(parsed))


def warm() -> None:
    """Import what an engine needs and make vLLM fork its parts; for a process that will be forked."""
    from vllm.utils import system_utils  # noqa: PLC0415 - to be changed before others take its names

    # vLLM insists on spawning on CPU, which would import everything anew in each of an engine's processes.
    system_utils.get_mp_context = lambda: multiprocessing.get_context("fork")
    for module in WARM_MODULES:
        importlib.import_module(module)
    from vllm.model_executor.models import registry  # noqa: PLC0415

    # vLLM inspects a model's class in a new process, so that no CUDA context is made here. There is none on
    # CPU, and that process would import everything once more: a minute on a busy machine.
    registry._run_in_subprocess = call


def call(function: Callable[[], Any]) -> Any:
    """Call it here."""
    return function()


def main() -> None:
    """Serve as a process of its own."""
    parser = argparse.ArgumentParser(prog="penstock_engines.serve")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    ours = parser.parse_args()
    lifeline.die_with(ours.parent)
    lifeline.children_die_with_us()
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    run(ours.arguments[1:])


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # A part of an engine that vLLM spawned: its interpreter is new and knows nothing of the promise above.
    lifeline.die_with(os.getppid())
    lifeline.children_die_with_us()
