"""Prints how often the shipped models are right, and fails where a rate is under its bar.

    python catalog/demo/evaluate.py [--failures]

Greedy decoding in bfloat16, as the engine serves them. Held-out phrasings are never trained on; corpus.py
checks it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from corpus import load
from rates import Rate, chat_rates, embed_rates
from speak import Speaker
from train_embed import load_groups

HERE = Path(__file__).resolve().parent


def show(rates: list[Rate], *, failures: bool) -> None:
    """Print one line per rate, and what failed where asked."""
    for rate in rates:
        bar = "" if rate.at_least is None else f"bar {rate.at_least:.0%}"
        verdict = "told, not demanded" if not bar else "holds" if rate.holds else "UNDER ITS BAR"
        count = f"{rate.right}/{rate.total}"
        print(f"{rate.name:<48} {rate.share:7.1%}  {count:<12} {bar:<8}  {verdict}")
        for failure in rate.failures if failures else ():
            print(f"    {failure}")


def main() -> int:
    """Measure both models; the exit status is 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chat", type=Path, default=HERE / "chat", help="folder of the chat model")
    parser.add_argument("--embed", type=Path, default=HERE / "embed", help="folder of the embedding model")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--failures", action="store_true", help="show each wrong answer")
    arguments = parser.parse_args()
    corpus = load()
    rates = chat_rates(Speaker(arguments.chat, getattr(torch, arguments.dtype)), corpus)
    rates += embed_rates(arguments.embed, load_groups(corpus))
    show(rates, failures=arguments.failures)
    return 0 if all(rate.holds for rate in rates) else 1


if __name__ == "__main__":
    sys.exit(main())
