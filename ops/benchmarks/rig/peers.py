"""Other people's gateways in front of the same engines."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from benchmarks.figures import Figure, Unmeasurable
from benchmarks.registry import Run
from benchmarks.rig import processes, servers
from benchmarks.rig.installed import install
from benchmarks.rig.ways import Door, Way

from penstock.local import children
from penstock.local.problems import LocalError

NGINX = """
worker_processes 1;
daemon off;
error_log stderr;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_buffering off;
{servers}
}}
"""
NGINX_SERVER = """
  upstream engine{number} {{ server 127.0.0.1:{engine}; keepalive 64; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://engine{number}; }} }}
"""


VLLM_ROUTER = "vllm-router==0.1.17"
LITELLM = "litellm[proxy]==1.106.2"
STARTS_WITHIN_S = 90.0

Starter = Callable[[Run, contextlib.AsyncExitStack, Way], Awaitable[Way]]


async def peers(run: Run, stack: contextlib.AsyncExitStack, direct: Way) -> tuple[list[Way], list[Figure]]:
    """Start what can be had: the ways through them, and a skipped figure for each that cannot."""
    starters: dict[str, Starter] = {"nginx": _nginx}
    if run.peers:
        starters |= {"vllm-router": _vllm_router, "litellm": _litellm}
    ways: list[Way] = []
    skipped: list[Figure] = []
    for name, start in starters.items():
        async with contextlib.AsyncExitStack() as own:
            try:
                with run.steps.step(name):
                    ways.append(await start(run, own, direct))
            except (Unmeasurable, LocalError) as error:
                skipped.append(Figure(name=f"relay.{name}", figure=None, unit="us", note=_short(error)))
            else:
                stack.push_async_exit(own.pop_all())
    return ways, skipped


async def _nginx(run: Run, stack: contextlib.AsyncExitStack, direct: Way) -> Way:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Unmeasurable("not installed: `apt install nginx` (its own service may be stopped)")
    folder = run.folder / "nginx"
    folder.mkdir()
    doors = [Door(door.model, port=processes.free_port()) for door in (direct.quick, direct.paced)]
    blocks = [
        NGINX_SERVER.format(number=number, engine=behind.port, port=door.port)
        for number, (door, behind) in enumerate(zip(doors, (direct.quick, direct.paced), strict=True))
    ]
    (folder / "nginx.conf").write_text(NGINX.format(servers="".join(blocks)))
    command = [program, "-p", str(folder), "-c", "nginx.conf"]
    child = children.start(
        "nginx", command, log=folder / "nginx.log", environment=children.bare_environment(), folder=folder
    )
    await stack.enter_async_context(servers.kept(child))
    await servers.until_answering(child, doors[0].port, "/health")
    return Way("nginx", doors[0], doors[1], [child.pid])


async def _vllm_router(run: Run, stack: contextlib.AsyncExitStack, direct: Way) -> Way:
    """One router per engine: it knows no models, only workers."""
    programs = await install("vllm-router", [VLLM_ROUTER])
    doors, pids = [], []
    for behind in (direct.quick, direct.paced):
        port, figures = processes.free_port(), processes.free_port()
        command: list[str | Path] = [
            *(programs / "python", programs / "vllm-router", "--host", "127.0.0.1", "--port", str(port)),
            *("--worker-urls", f"http://127.0.0.1:{behind.port}", "--policy", "round_robin"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(figures), "--log-level", "warning"),
        ]
        child = await _start(run, stack, f"vllm-router-{port}", command)
        await servers.until_answering(child, port, "/health", STARTS_WITHIN_S)
        doors.append(Door(behind.model, port=port))
        pids.append(child.pid)
    return Way("vllm-router", doors[0], doors[1], pids)


async def _litellm(run: Run, stack: contextlib.AsyncExitStack, direct: Way) -> Way:
    """The proxy with a master key and without its database, as its own figures are taken."""
    programs = await install("litellm", [LITELLM])
    listed = [
        {
            "model_name": door.model,
            "litellm_params": {
                "model": f"openai/{door.model}",
                "api_base": f"http://127.0.0.1:{door.port}/v1",
                "api_key": "none",
            },
        }
        for door in (direct.quick, direct.paced)
    ]
    config = run.folder / "litellm.json"  # JSON is YAML too
    key = "sk-bench"
    config.write_text(json.dumps({"model_list": listed, "general_settings": {"master_key": key}}))
    port = processes.free_port()
    command: list[str | Path] = [
        *(programs / "litellm", "--host", "127.0.0.1", "--port", str(port), "--config", config),
        *("--num_workers", "1", "--telemetry", "False"),
    ]
    child = await _start(run, stack, "litellm", command)
    await servers.until_answering(child, port, "/health/liveliness", STARTS_WITHIN_S)
    doors = [Door(door.model, port=port, key=key) for door in (direct.quick, direct.paced)]
    return Way("litellm", doors[0], doors[1], [child.pid], share=0.05)


async def _start(
    run: Run, stack: contextlib.AsyncExitStack, name: str, command: Sequence[str | Path]
) -> children.Child:
    environment = children.bare_environment() | {
        "HOME": str(run.folder),
        # Its table of prices comes with the package; nothing is fetched.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    child = children.start(
        name, command, log=run.folder / f"{name}.log", environment=environment, folder=run.folder
    )
    return await stack.enter_async_context(servers.kept(child))


def _short(error: Exception) -> str:
    """What went wrong, with the last line of what the program said about it."""
    first, *rest = str(error).splitlines()
    return f"{first} {rest[-1]}" if rest else first
