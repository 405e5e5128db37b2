"""Find the snapshot of a model in Hugging Face's cache: `models--org--name` has blobs, refs and snapshots."""

from pathlib import Path

from pilotlight.errors import InvalidInputError
from pilotlight.runtime import containment


def choose_snapshot(path: Path) -> Path:
    """Return the snapshot of a model's folder in the cache, that of `refs/main` or the only one; else `path` itself."""
    snapshots = path / containment.SNAPSHOTS
    if not path.resolve().name.startswith(containment.CACHE_PREFIX) or not snapshots.is_dir():
        return path
    found = sorted(child for child in snapshots.iterdir() if child.is_dir())
    commit = read_main_commit(path)
    if snapshots / commit in found:
        return snapshots / commit
    if len(found) == 1:
        return found[0]
    names = ", ".join(child.name for child in found) or "none"
    raise InvalidInputError(
        f"{path} has the snapshots {names}, and refs/main names none of them; name the folder of one."
    )


def read_main_commit(path: Path) -> str:
    """Read which commit the main branch was at; "-" if that is not written or no name."""
    try:
        commit = (path / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "-"
    return commit if commit and Path(commit).name == commit else "-"


def check_graph_location(graph: Path) -> None:
    """Refuse a graph in a snapshot that is a link out of the cache."""
    if containment.find_blobs(graph.parent.resolve()) and not containment.is_contained(graph.parent, graph.name):
        raise InvalidInputError(f"{graph} is a link out of the cache of Hugging Face; download the model again.")
