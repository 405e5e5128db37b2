"""Tell whether a file that a model names lies with the model: in its folder, or in its part of a Hugging Face cache.

    models--org--name/snapshots/<commit>/model.onnx -> ../../blobs/<sha256>

There every file is a link; what counts is that its target is one of the same model's blobs. A path that is absolute or
climbs is refused as it is written, and a link that ends elsewhere is refused for where it ends.
"""

import re
from pathlib import Path, PurePosixPath

WINDOWS_PATH = re.compile(r"[A-Za-z]:|\\")
BLOBS, SNAPSHOTS, CACHE_PREFIX = "blobs", "snapshots", "models--"


def is_contained(folder: Path, location: str) -> bool:
    """Return whether `location`, as written in a file of `folder`, names a file of the same model."""
    written = PurePosixPath(location)
    if written.is_absolute() or WINDOWS_PATH.match(location) or "\0" in location:
        return False
    real_folder = folder.resolve()
    place = normalise_path(real_folder / location)
    if place is None or not place.is_relative_to(real_folder):
        return False
    target = place.resolve()  # follows links, as opening the file would
    blobs = find_blobs(real_folder)
    return target.is_relative_to(real_folder) or (blobs is not None and target.is_relative_to(blobs))


def normalise_path(path: Path) -> Path | None:
    """Remove `..` from a path without looking at links; None if it climbs beyond the root."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif len(parts) > 1:
            parts.pop()
        else:
            return None
    return Path(*parts)


def find_blobs(folder: Path) -> Path | None:
    """Find the blobs of the model in whose snapshot the folder lies; None if it lies in no Hugging Face cache."""
    for above in folder.parents:
        if above.name == SNAPSHOTS and above.parent.name.startswith(CACHE_PREFIX):
            return (above.parent / BLOBS).resolve()
    return None
