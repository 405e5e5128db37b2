"""Which code made a version."""

import os
import subprocess
from pathlib import Path


def get_code_revision() -> str:
    """The git commit of this code, with `-dirty` when tracked files differ from it.

    The image holds no repository; there, the build's argument REVISION says it. `unknown` when nothing does.
    """
    configured = os.environ.get("PILOTLIGHT_REVISION", "")
    return configured or describe_git_commit(Path(__file__).parent) or "unknown"


def describe_git_commit(folder: Path) -> str:
    """What git says of the commit that a folder is at; nothing without git or a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
