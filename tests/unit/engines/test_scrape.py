from __future__ import annotations

import pytest

from penstock_engines.failures import ScrapeError
from penstock_engines.scrape import EngineFigures, parse

PAGE = """# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b{"} 2.0
vllm:num_requests_running{engine="1",model_name="a"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="a"} 1.234e+06
vllm:prompt_tokens_created{engine="0",model_name="a"} 1.7e+09
vllm:prompt_tokens_cached_total{engine="0",model_name="a"} 384.0
vllm:generation_tokens_total{engine="0",model_name="a"} 185.0
vllm:num_preemptions_total{engine="0",model_name="a"} 3.0
"""


def test_figures_are_read_and_summed_over_engines() -> None:
    assert parse(PAGE) == EngineFigures(3, 4, 0.25, 1_234_000, 384, 185, 3)


def test_an_engine_that_makes_no_tokens_has_none() -> None:
    assert parse("vllm:num_requests_running 0.0\n").generation_tokens == 0


@pytest.mark.parametrize(
    "page", ["", "process_cpu_seconds_total 1\n", 'vllm:num_requests_running{a="b"} x\n']
)
def test_a_page_that_says_nothing_is_an_error(page: str) -> None:
    with pytest.raises(ScrapeError):
        parse(page)
