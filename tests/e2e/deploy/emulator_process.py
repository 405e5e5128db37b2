"""The process of the emulator of AWS, and the containers that it starts."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from tests import fakes
from tests.e2e.conftest import ROOT

PYTHON = ROOT / ".venv-emulator" / "bin" / "python"
IMAGE = "public.ecr.aws/lambda/python:3.13-x86_64"  # of Lambda's runtime, under which the SAM CLI looks for it too
TRUSTED = "trusted.pem"
START_S = 60


def find_obstacle() -> str:
    """Say why no emulator can run here; empty if one can."""
    answered = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
    if answered.returncode != 0:
        return f"no Docker runs here, or it has no {IMAGE}"
    return "" if PYTHON.exists() else "there is no .venv-emulator, which `make test-deploy` installs"


def find_free_port() -> int:
    """Find a port that is free on all addresses, since containers reach the emulator by another one than we do."""
    with socket.socket() as free:
        free.bind(("", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def emulator_running(log: Path, usage: Path, *, iam: str = "on") -> Iterator[str]:
    """Yield the URL of an emulator; `log` gets what it prints, `usage` each call that it has judged.

    Functions trust the certificates in `trusted.pem` beside the log, once it is there.
    """
    port = find_free_port()
    command = [str(PYTHON), "-m", "tests.emulator", "--port", str(port), "--usage", str(usage), "--iam", iam]
    command += ["--trust", str(log.with_name(TRUSTED))]
    with TemporaryDirectory(prefix="emulator-") as folder, log.open("w") as output:
        own = {**os.environ, "TMPDIR": folder}  # code and layers, unpacked; no other emulator may have them
        process = subprocess.Popen(command, cwd=ROOT, env=own, stdout=output, stderr=output, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            fakes.eventually(lambda: _is_up(url, process, log), START_S)
            yield url
        finally:
            _stop(process, port)


def _is_up(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    try:
        return httpx2.get(f"{url}/_ministack/health").status_code == 200
    except httpx2.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes], port: int) -> None:
    """End the emulator, and remove its containers, which are labelled by its port."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    labelled = f"label=ministack.instance={socket.gethostname()}:{port}"
    listed = subprocess.run(["docker", "ps", "-aq", "--filter", labelled], capture_output=True, text=True, check=True)
    if names := listed.stdout.split():
        subprocess.run(["docker", "rm", "--force", *names], capture_output=True, check=True)
