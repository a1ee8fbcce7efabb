"""Other people's gateways in front of the same engines."""

from __future__ import annotations

import contextlib
import shutil

from benchmarks.figures import Figure
from benchmarks.registry import Run
from benchmarks.rig import processes, servers
from benchmarks.rig.ways import Door, Way

from penstock.local import children

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


async def peers(run: Run, stack: contextlib.AsyncExitStack, direct: Way) -> tuple[list[Way], list[Figure]]:
    """Start what can be had: the ways through them, and a skipped figure for each that cannot."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if program is None:
        return [], [skipped("nginx", "nginx is not installed: `apt install nginx` (it need not run)")]
    with run.steps.step("nginx"):
        return [await _nginx(run, stack, direct, program)], []


def skipped(name: str, why: str) -> Figure:
    """A peer that was not measured."""
    return Figure(name=f"relay.{name}", figure=None, unit="us", note=why)


async def _nginx(run: Run, stack: contextlib.AsyncExitStack, direct: Way, program: str) -> Way:
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
