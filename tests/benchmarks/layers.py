"""P10: the unzipped size of a function's layers, against Lambda's 250 MB, of which its own code takes a share too."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.goal import Measure
from tests.benchmarks.starts import ROOT

BUILT = ROOT / ".aws-sam" / "build"


def measure() -> list[Measure]:
    """What `make package` has built, else what it would build, by the layer's own Makefile as `sam build` runs it."""
    if BUILT.is_dir():
        found, how = size(BUILT / "DepsLayer") + size(BUILT / "CoreLayer"), "as packaged"
    else:
        core = ROOT / "layers" / "core"
        with TemporaryDirectory() as folder:
            make = ["make", "--silent", "-C", str(ROOT / "layers" / "deps"), "build-DepsLayer"]
            subprocess.run([*make, f"ARTIFACTS_DIR={folder}"], check=True, stderr=subprocess.DEVNULL)
            found, how = size(Path(folder)) + size(core), "as the layer's Makefile builds them"
    return [Measure("P10", f"unzipped layers, {how}", found / 1e6, 160, "MB")]


def size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
