"""Known holes in what is shipped and what trains: `python -m tests.audit`, which pip-audit asks PyPI's advisories for.

pip-audit ends with 0 when it could ask nobody, and says so in a warning. Here that is an exit code of its own, 3,
unless `--unasked tell` makes it a sentence; 1 means that there are holes. Only the standard library is imported, since
this runs in pip-audit's environment.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
LISTS = (  # what runs on Lambda, what trains, and with the lock what both of them pull in
    "layers/deps/requirements.txt",
    "functions/authorize/requirements.txt",
    "functions/batch_worker/requirements.txt",
    "layers/core/pilotlight/local/requirements.txt",
    "functions/train/requirements.txt",
    "infra/constraints.txt",
)
HOLES, UNASKED = 1, 3
Report = dict[str, Any]
Ask = Callable[[Sequence[str]], Report]


def pins(paths: Sequence[Path]) -> list[str]:
    """Every `name==version` of the lists, once."""
    lines = [
        line.partition("#")[0].partition(";")[0].strip() for path in paths for line in path.read_text().splitlines()
    ]
    return sorted({line.lower().replace("_", "-") for line in lines if "==" in line})


def ask(pinned: Sequence[str]) -> Report:
    """What pip-audit says about these, as its JSON; empty when it says nothing."""
    with TemporaryDirectory() as folder:
        listed = Path(folder, "requirements.txt")
        listed.write_text("\n".join(pinned))
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "-f", "json"]
        done = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        return {"dependencies": [], "error": (done.stderr.strip().splitlines() or ["nothing"])[-1]}
    return report


def audit(pinned: Sequence[str], asked: Ask) -> tuple[int, list[str]]:
    """An exit code, and what is to be said. One package comes first: where that fails, so would all the others."""
    first = asked(pinned[:1])
    why = first.get("error") or next((one["skip_reason"] for one in first["dependencies"] if "skip_reason" in one), "")
    if why:
        return UNASKED, [
            f"PyPI's advisories cannot be reached from here: {why}. {len(pinned)} packages are NOT audited."
        ]
    report = asked(pinned)
    known = {one["name"]: one for one in report["dependencies"]}
    holes = [said(one, hole) for one in known.values() for hole in one.get("vulns", ())]
    unasked = [pin for pin in pinned if "vulns" not in known.get(pin.partition("[")[0].partition("==")[0], {})]
    told = [*holes, *(f"{pin} is NOT audited." for pin in unasked)]
    if holes:
        return HOLES, told
    return (UNASKED, told) if unasked else (0, [f"{len(pinned)} packages, no known holes."])


def said(package: Report, hole: Report) -> str:
    """A hole in a sentence."""
    mended = ", ".join(hole.get("fix_versions") or ()) or "no version yet"
    return f"{package['name']} {package['version']} has {hole['id']}; mended in {mended}."


def main(words: Sequence[str] | None = None, asked: Ask = ask) -> int:
    """Audit, say what was found, give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unasked", choices=["fail", "tell"], default="fail", help="what to do where nobody answers")
    chosen = parser.parse_args(words)
    code, told = audit(pins([ROOT / path for path in LISTS]), asked)
    sys.stdout.write("\n".join(told) + "\n")
    return 0 if code == UNASKED and chosen.unasked == "tell" else code


if __name__ == "__main__":
    sys.exit(main())
