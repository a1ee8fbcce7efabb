"""vLLM itself accepts the arguments made from every card, on both devices."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHECK = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines.spec import Device, EngineSpec, vllm_arguments
from pathlib import Path

parser = make_arg_parser(FlexibleArgumentParser())
seen = []
for card in Shelf.open([BUILTIN]).cards:
    for device in Device:
        spec = EngineSpec(card.id, Path("/weights"), card.task, card.context_length, card.engine)
        arguments = vllm_arguments(spec, Path("/run/engine.sock"), device)
        try:
            parsed = parser.parse_args(arguments)
            validate_parsed_serve_args(parsed)
            validate_api_server_args(parsed)
        except (SystemExit, KeyError, TypeError, ValueError) as error:
            print(json.dumps([card.id, device, str(error), arguments]))
            sys.exit(3)
        assert parsed.served_model_name == [card.id]
        assert parsed.trust_remote_code is False
        assert parsed.allowed_local_media_path == ""
        assert parsed.enable_log_requests is False
        seen.append([card.id, device])
print(json.dumps(seen))
"""


@pytest.mark.engine
def test_vllm_accepts_what_is_made_of_every_card() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) == 2 * len({card for card, _ in seen}) >= 44
