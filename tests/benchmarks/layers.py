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
        if BUILT.is_dir():
            found, how = size(BUILT / "DepsLayer") + size(BUILT / "CoreLayer"), "as packaged"
        else:
            core = sum(path.stat().st_size for path in (ROOT / "layers" / "core").rglob("*.py"))
            found, how = size(installed(Path(folder))) + core, "as installed"
    return [Measure("P10", f"unzipped layers, {how}", found / 1e6, 180, "MB")]


def installed(folder: Path) -> Path:
    """The deps layer, by pip."""
    command = [python(), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(folder)]
    subprocess.run([*command, "-r", str(ROOT / "layers/deps/requirements.txt")], check=True)
    return folder


def size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
