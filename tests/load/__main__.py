"""`python -m tests.load fuzz [--count N] [--seed S]`, `mixed [--minutes M] [--swaps N]`, `queue [--count N] [--seed S]`
and `file [--mb N]`.

Prints one JSON document; exit code 1 when a request failed, or memory grew.
"""

import argparse
import json
import logging
import sys
from typing import Any

from tests.load import file, fuzz, mixed, queue

GROWTH = 1.05  # of resident memory, from the second tenth to the last


def main() -> int:
    """Run what the words say."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    bodies = kinds.add_parser("fuzz", help="bodies and headers that nobody meant, at the handler")
    bodies.add_argument("--count", type=int, default=200_000)
    bodies.add_argument("--seed", type=int, default=1)
    requests = kinds.add_parser("mixed", help="requests of all kinds through the gateway, with hot swaps")
    requests.add_argument("--minutes", type=float, default=30.0)
    requests.add_argument("--swaps", type=int, default=10)
    messages = kinds.add_parser(
        "queue", help="messages with poison, duplicates and crashes, through the batch function"
    )
    messages.add_argument("--count", type=int, default=10_000)
    messages.add_argument("--seed", type=int, default=1)
    lines = kinds.add_parser("file", help="a large file through the batch function, which is killed twice")
    lines.add_argument("--mb", type=float, default=200.0)
    words = parser.parse_args()
    logging.getLogger("pilotlight").setLevel(logging.ERROR if words.kind == "mixed" else logging.CRITICAL)
    result = run(words)
    memory = result["resident_mb"]
    result["growth"] = round(memory[-1] / memory[2], 3) if len(memory) > 3 else 1.0
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return int(bool(result["failures"]) or result["growth"] > GROWTH)


def run(words: argparse.Namespace) -> dict[str, Any]:
    """The load that is meant."""
    if words.kind == "fuzz":
        return fuzz.run(words.count, words.seed)
    if words.kind == "queue":
        return queue.run(words.count, words.seed)
    return file.run(words.mb) if words.kind == "file" else mixed.run(words.minutes * 60, words.swaps)


if __name__ == "__main__":
    sys.exit(main())
