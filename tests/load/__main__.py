"""`python -m tests.load fuzz [--count N] [--seed S]` and `python -m tests.load mixed [--minutes M] [--swaps N]`.

Prints one JSON document; exit code 1 when a request failed, or memory grew.
"""

import argparse
import json
import logging
import sys

from tests.load import fuzz, mixed

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
    words = parser.parse_args()
    logging.getLogger("pilotlight").setLevel(logging.CRITICAL if words.kind == "fuzz" else logging.ERROR)
    result = fuzz.run(words.count, words.seed) if words.kind == "fuzz" else mixed.run(words.minutes * 60, words.swaps)
    memory = result["resident_mb"]
    result["growth"] = round(memory[-1] / memory[2], 3) if len(memory) > 3 else 1.0
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return int(bool(result["failures"]) or result["growth"] > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
