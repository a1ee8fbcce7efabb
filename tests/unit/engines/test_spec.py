from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock_catalog.cards import EngineSettings, Task
from penstock_engines.failures import EngineSettingsError
from penstock_engines.spec import (
    Device,
    EngineSpec,
    inherited_environment,
    vllm_arguments,
    vllm_environment,
)

SOCKET = Path("/run/engine.sock")


def spec(task: Task = Task.CHAT, **settings: Any) -> EngineSpec:
    return EngineSpec("penstock/demo-chat", Path("/weights"), task, 2048, EngineSettings(**settings))


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_a_card_s_settings_reach_vllm() -> None:
    made = vllm_arguments(
        spec(max_concurrent_requests=7, kv_cache_mib=64, max_output_tokens=99, extra={"block-size": "64"}),
        SOCKET,
        Device.CPU,
    )
    assert value(made, "--served-model-name") == "penstock/demo-chat"
    assert value(made, "--max-model-len") == "2048"
    assert value(made, "--max-num-seqs") == "7"
    assert value(made, "--kv-cache-memory-bytes") == str(64 * 2**20)
    assert value(made, "--override-generation-config") == '{"max_new_tokens": 99}'
    assert value(made, "--block-size") == "64"


def test_tools_and_thoughts_are_parsed_only_where_the_card_names_a_parser() -> None:
    plain = vllm_arguments(spec(), SOCKET, Device.CPU)
    assert "--enable-auto-tool-choice" not in plain
    assert "--reasoning-parser" not in plain
    both = vllm_arguments(spec(tool_parser="hermes", reasoning_parser="qwen3"), SOCKET, Device.CPU)
    assert "--enable-auto-tool-choice" in both
    assert value(both, "--tool-call-parser") == "hermes"
    assert value(both, "--reasoning-parser") == "qwen3"


def test_a_gpu_engine_takes_its_cache_from_the_gpu_s_memory_and_compiles() -> None:
    made = vllm_arguments(spec(), SOCKET, Device.CUDA)
    assert "--kv-cache-memory-bytes" not in made
    assert "--enforce-eager" not in made


@pytest.mark.parametrize("task", [Task.EMBEDDING, Task.RERANKING])
def test_models_that_do_not_generate_run_as_pooling_models(task: Task) -> None:
    assert value(vllm_arguments(spec(task), SOCKET, Device.CPU), "--runner") == "pooling"


@pytest.mark.parametrize("device", list(Device))
def test_no_engine_logs_requests_or_fetches_anything(device: Device) -> None:
    made = vllm_arguments(spec(), SOCKET, device)
    assert "--no-enable-log-requests" in made
    assert "--disable-uvicorn-access-log" in made
    assert value(made, "--allowed-media-domains").endswith(".invalid")
    assert not [word for word in made if "trust" in word]
    environment = vllm_environment(spec(), device)
    assert environment["HF_HUB_OFFLINE"] == environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    # Set even to nothing, it would break vLLM's start; set to a number, it overrides the card.
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment


def test_a_socket_path_that_the_system_does_not_take_is_refused_with_what_to_do() -> None:
    good = Path("/" + "x" * 106)
    vllm_arguments(spec(), good, Device.CPU)
    with pytest.raises(EngineSettingsError, match=r"108 bytes and the system takes 107: choose a shorter"):
        vllm_arguments(spec(), Path("/" + "x" * 107), Device.CPU)


def test_an_engine_inherits_neither_secrets_nor_other_settings_of_vllm() -> None:
    ours = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "LANG": "C"}
    theirs = {"PENSTOCK_DATABASE_URL": "x", "VLLM_CPU_KVCACHE_SPACE": "4", "AWS_SECRET_ACCESS_KEY": "x"}
    assert inherited_environment(ours | theirs) == ours


def test_an_engine_takes_adapters_where_its_card_says_so_and_it_knows_where_they_are() -> None:
    taking = replace(spec(adapter_rank_max=16, adapters_together=2, adapters_kept=8), adapters=Path("/kept"))
    made = vllm_arguments(taking, SOCKET, Device.CPU)
    assert "--enable-lora" in made
    flags = ("--max-lora-rank", "--max-loras", "--max-cpu-loras")
    assert [value(made, flag) for flag in flags] == ["16", "2", "8"]
    environment = vllm_environment(taking, Device.CPU)
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert environment["PENSTOCK_ADAPTERS"] == "/kept"


@pytest.mark.parametrize(
    "plain",
    [
        spec(adapter_rank_max=16),
        replace(spec(), adapters=Path("/kept")),
        replace(spec(Task.EMBEDDING, adapter_rank_max=16), adapters=Path("/kept")),
    ],
)
def test_an_engine_that_takes_none_cannot_be_given_any(plain: EngineSpec) -> None:
    assert "--enable-lora" not in vllm_arguments(plain, SOCKET, Device.CPU)
    environment = vllm_environment(plain, Device.CPU)
    assert not environment.keys() & {"VLLM_ALLOW_RUNTIME_LORA_UPDATING", "PENSTOCK_ADAPTERS"}


def test_only_an_engine_on_a_gpu_that_is_to_sleep_can() -> None:
    sleeping = replace(spec(), sleeps=True)
    assert "--enable-sleep-mode" in vllm_arguments(sleeping, SOCKET, Device.CUDA)
    assert vllm_environment(sleeping, Device.CUDA)["VLLM_SERVER_DEV_MODE"] == "1"
    for one, device in ((sleeping, Device.CPU), (spec(), Device.CUDA)):
        assert "--enable-sleep-mode" not in vllm_arguments(one, SOCKET, device)
        assert "VLLM_SERVER_DEV_MODE" not in vllm_environment(one, device)
