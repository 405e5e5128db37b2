"""README's first example, pasted into a shell as it is; only its set-up is left out, and its port is a free one."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import ROOT

SET_UP = "make .venv/with-train && . .venv/bin/activate"
LIMIT_S = 300


def test_the_first_example_of_readme_trains_serves_and_calls(tmp_path: Path) -> None:
    script = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[0]
    assert SET_UP in script
    assert len(script.splitlines()) <= 15
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = script.replace(SET_UP, "true").replace("8080", str(port))
    script = script.replace("pilotlight serve", f"pilotlight serve --port {port}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PILOTLIGHT_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-emc", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "digits:1" in done.stdout
    assert "logits FP32 [1, 10]" in done.stdout
