"""P10: the unzipped size of a function's layers, against Lambda's 250 MB, of which its own code takes a share too."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.goal import Measure
from tests.benchmarks.starts import ROOT, python

BUILT = ROOT / ".aws-sam" / "build"


def measure() -> list[Measure]:
    """What `make package` has built, else what it would install."""
    with TemporaryDirectory() as folder:
        if (BUILT / "DepsLayer").is_dir():
            deps, how = BUILT / "DepsLayer", "as packaged"
        else:
            deps, how = installed(Path(folder)), "as installed"
        found = size(deps) + size(ROOT / "layers" / "core")
    return [Measure("P10", f"unzipped layers, {how}", found / 1e6, 180, "MB")]


def installed(folder: Path) -> Path:
    """The deps layer, by pip."""
    command = [python(), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    subprocess.run([*command, "-r", str(ROOT / "layers/deps/requirements.txt")], check=True)
    return folder


def size(folder: Path) -> int:
    """The bytes of all files in a folder, caches of the interpreter left out where they are ours."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
