"""The training image, built from its own Dockerfile on a base that is made here, for who runs it in Docker."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEM = "public.ecr.aws/lambda/python:3.13-x86_64"  # that SAM's tests need, too; any image with a C library would do
LISTS = ("layers/deps/requirements.txt", "functions/train/requirements.txt", "infra/constraints.txt")
IMAGE = "pilotlight-train:e2e"
# This machine's python, and all packages as wheels: in the build, pip asks nobody.
BASE = f"""
FROM {SYSTEM}
COPY python /usr/local
COPY wheels /wheels
ENV PATH=/usr/local/bin:/usr/bin:/bin LD_LIBRARY_PATH=/usr/local/lib PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
RUN python3 -m ensurepip
ENTRYPOINT []
"""
LEFT_OUT = shutil.ignore_patterns("site-packages", "test", "__pycache__", "*.a", "idlelib", "include", "share")


def docker(*words: str, check: bool = True, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of Docker, with `given` on its standard input."""
    done = subprocess.run(["docker", *words], cwd=ROOT, input=given, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def answers(*words: str) -> bool:
    """Whether Docker is there, and this command of it succeeds."""
    return bool(shutil.which("docker")) and docker(*words, check=False).returncode == 0


def find_obstacle() -> str:
    """Say why the image cannot be built here; empty if it can."""
    if not answers("info"):
        return "no Docker engine answers here"
    return "" if answers("image", "inspect", SYSTEM) else f"there is no {SYSTEM} to build on"


def build_base() -> str:
    """Build an image with python and the pinned packages' wheels, unless there is one of these pins."""
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in LISTS)).hexdigest()[:12]
    tag = f"pilotlight-base:{digest}"
    if not answers("image", "inspect", tag):
        with tempfile.TemporaryDirectory(prefix="pilotlight-base-") as made:
            folder = Path(made)
            shutil.copytree(sys.base_prefix, folder / "python", symlinks=True, ignore=LEFT_OUT)
            download_wheels(folder / "wheels")
            (folder / "Dockerfile").write_text(BASE)
            docker("build", "--quiet", "--tag", tag, str(folder))
    return tag


def download_wheels(folder: Path) -> None:
    """Download everything that the image installs, from wherever this machine's pip gets it."""
    lists = [word for name in LISTS[:2] for word in ("-r", str(ROOT / name))]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    subprocess.run([*command, "--constraint", str(ROOT / LISTS[2]), *lists], check=True)


def build_image(base: str) -> str:
    """Build the image, and return its id: the tag may be another checkout's a moment later."""
    command = ["build", "--quiet", "--file", "functions/train/Dockerfile", "--tag", IMAGE]
    return docker(*command, "--build-arg", f"BASE={base}", "--build-arg", "REVISION=e2e", ".").stdout.strip()
