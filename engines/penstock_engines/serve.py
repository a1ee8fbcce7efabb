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
from pathlib import Path
from typing import Any, Final

from penstock_engines import lifeline, shared_memory

ENGINE_PID: Final = "PENSTOCK_ENGINE_PID"
"""Tells the parts of an engine that vLLM spawns whose parts they are."""

WARM_MODULES: Final = (
    "penstock_engines.adapters",
    "penstock_engines.receipts",
    # The API process.
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.entrypoints.openai.models.api_router",
    "vllm.entrypoints.openai.chat_completion.api_router",
    "vllm.entrypoints.openai.completion.api_router",
    "vllm.entrypoints.openai.responses.api_router",
    "vllm.entrypoints.anthropic.api_router",
    "vllm.entrypoints.cohere.api_router",
    "vllm.entrypoints.generate.api_router",
    "vllm.entrypoints.generate.generative_scoring.api_router",
    "vllm.entrypoints.generate.structured_decisions.api_router",
    "vllm.entrypoints.scale_out.derender.api_router",
    "vllm.entrypoints.scale_out.render.api_router",
    "vllm.entrypoints.scale_out.token_in_token_out.api_router",
    "vllm.entrypoints.pooling.factories",
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.entrypoints.serve.lora.api_router",
    "vllm.entrypoints.serve.profile.api_router",
    "vllm.entrypoints.serve.tokenize.api_router",
    "vllm.renderers.hf",
    "vllm.tool_parsers.hermes_tool_parser",
    "vllm.v1.engine.async_llm",
    "model_hosting_container_standards.sagemaker",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    # The process that schedules.
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.structured_output.backend_xgrammar",
    # The process that computes.
    "vllm.v1.worker.cpu_worker",
    "vllm.lora.punica_wrapper.punica_cpu",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.model_executor.model_loader.default_loader",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.models.adapters",
    "vllm.model_executor.models.llama",
)
"""What an engine imports on its way to its first answer, found by looking at what a started one had.

One that is missing here costs each start its import; one that vLLM no longer has is left out with a line in
the log, so that another version of vLLM starts slower instead of not at all.
"""


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

    from penstock_engines import adapter_names, adapters, receipt_log, receipts  # noqa: PLC0415

    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    configure_logging_from_args(parsed)
    validate_parsed_serve_args(parsed)
    if folder := os.environ.get(adapter_names.FOLDER):
        adapters.install(Path(folder))
    receipts.install(receipt_log.ReceiptLog(Path(parsed.uds)) if parsed.uds else None)
    try:
        uvloop.run(run_server(parsed))
    finally:
        receipts.BOOK.close()


def warm() -> None:
    """Import what an engine needs and make vLLM fork its parts; for a process that will be forked."""
    from vllm.utils import system_utils  # noqa: PLC0415 - to be changed before others take its names

    # vLLM insists on spawning on CPU, which would import everything anew in each of an engine's processes.
    system_utils.get_mp_context = lambda: multiprocessing.get_context("fork")
    for module in WARM_MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"not warm: {module}: {error}", flush=True)  # noqa: T201 - this is the zygote's log
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
    os.environ[ENGINE_PID] = str(os.getpid())
    shared_memory.name_after(os.getpid())
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    run(ours.arguments[1:])


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    # A part of an engine that vLLM spawned: its interpreter is new and knows nothing of what main did.
    shared_memory.name_after(int(os.environ[ENGINE_PID]))
    lifeline.die_with(os.getppid())
    lifeline.children_die_with_us()
