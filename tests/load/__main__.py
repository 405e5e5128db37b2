"""`python -m tests.load KIND`: fuzz [--count N] [--seed S], mixed [--minutes M] [--swaps N] [--hostile],
hostile [--only WORD] [--memory MB], canary [--count N], moves [--processes N] [--seconds S], release,
queue [--count N] [--seed S], file [--mb N] [--spread N], kills [--count N] [--seed S],
trials [--count N] [--processes N], faults [--kind K] [--times N],
packages [--only WORD] [--keep FOLDER] [--quantize auto] [--json FILE] [--environment PYTHON].

Prints one JSON document; exit code 1 when a request failed, memory grew, or a canary did not do as it must.
"""

import argparse
import json
import logging
import sys
from importlib import import_module
from typing import Any

GROWTH = 1.05  # of resident memory, from the second tenth to the last


def main() -> int:
    """Run what the words say."""
    words = parser().parse_args()
    logging.getLogger("pilotlight").setLevel(logging.CRITICAL if words.kind == "fuzz" else logging.ERROR)
    result = run(words)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    wrong = result.get("growth", 1.0) > GROWTH or result.get("chi_square", 0.0) > result.get("chi_square_limit", 0.0)
    return int(bool(result["failures"]) or wrong or not result.get("rolled_back", True))


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    words = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    kinds = words.add_subparsers(dest="kind", required=True)
    bodies = kinds.add_parser("fuzz", help="bodies and headers that nobody meant, at the handler")
    bodies.add_argument("--count", type=int, default=200_000)
    bodies.add_argument("--seed", type=int, default=1)
    requests = kinds.add_parser("mixed", help="requests of all kinds through the gateway, with hot swaps")
    requests.add_argument("--minutes", type=float, default=30.0)
    requests.add_argument("--swaps", type=int, default=10)
    requests.add_argument("--hostile", action="store_true", help="every second minute, with hostile callers")
    hostile = kinds.add_parser("hostile", help="hostile bodies at every door: status, time, memory")
    hostile.add_argument("--only", default="", help="bodies with this in their name")
    hostile.add_argument("--memory", type=int, default=0, metavar="MB", help="of the functions; 0 is the template's")
    trial = kinds.add_parser("canary", help="a tenth of the requests meets a canary, which then fails")
    trial.add_argument("--count", type=int, default=20_000)
    simulated = kinds.add_parser("trials", help="good and bad canaries, honest and hostile callers, in simulation")
    simulated.add_argument("--count", type=int, default=1_000)
    simulated.add_argument("--processes", type=int, default=1)
    movers = kinds.add_parser("moves", help="processes that promote and roll back one alias at random")
    movers.add_argument("--processes", type=int, default=16)
    movers.add_argument("--seconds", type=float, default=60.0)
    kinds.add_parser("release", help="bad versions at the gate while the champion serves")
    messages = kinds.add_parser("queue", help="messages with poison, duplicates and crashes, at the batch function")
    messages.add_argument("--count", type=int, default=10_000)
    messages.add_argument("--seed", type=int, default=1)
    lives = kinds.add_parser("kills", help="a training that is killed over and over, and must end as if it was not")
    lives.add_argument("--count", type=int, default=20)
    lives.add_argument("--seed", type=int, default=1)
    lines = kinds.add_parser("file", help="a large file through the batch function, which is killed twice")
    lines.add_argument("--mb", type=float, default=200.0)
    lines.add_argument("--spread", type=int, default=0, help="so many handlers at once")
    faults = kinds.add_parser("faults", help="kills, full disks, clocks, slow stores ...: promised and seen")
    faults.add_argument("--kind", default="all", dest="only", metavar="KIND")
    faults.add_argument("--times", type=int, default=20)
    packages = kinds.add_parser("packages", help="real models out of packages: published, served, called, quantized")
    packages.add_argument("--only", default="", help="graphs with this in their name")
    packages.add_argument("--keep", default="", metavar="FOLDER", help="where the stores stay")
    packages.add_argument("--quantize", default="auto", choices=["auto", "int8", "int4", "none"])
    packages.add_argument("--json", default="", dest="json_file", metavar="FILE", help="all that was seen")
    packages.add_argument("--environment", default="", metavar="PYTHON", help="one that has the packages for images")
    return words


def run(words: argparse.Namespace) -> dict[str, Any]:
    """The run's result; with memory, by which factor it grew.

    Only the kind that runs is imported: another one brings torch, beside which no growth of a handler would be seen.
    """
    options = {name: value for name, value in vars(words).items() if name != "kind"}
    result: dict[str, Any] = import_module(f"tests.load.{words.kind}").run(**options)
    memory = result.get("resident_mb", [])
    return result | ({"growth": round(memory[-1] / memory[2], 3)} if len(memory) > 3 else {})


if __name__ == "__main__":
    sys.exit(main())
