"""Agents as people install them, each in an environment of its own, since their pins fight: `pytest -m slow` has them.

Every one calls a tool, reads a stream and gets a structured answer from `pilotlight serve`'s gateway, on which models
follow scripts. The programs are in `agents/`.
"""

import json
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotlight.local.gateway import Gateway
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import open_store
from tests.language_model_versions import publish_scripted

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "agents"
CITY = {"name": "Bern", "country": "Switzerland"}
TEXT = "Grüezi! 😀"
SCRIPTS = {
    "talker": TEXT,
    "caller": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>',
    "city": json.dumps(CITY),
    "final": f'<tool_call>\n{{"name": "final_result", "arguments": {json.dumps(CITY)}}}\n</tool_call>',
}
CLIENTS = [
    ("openai-agents==0.24.0", "openai_agents.py", ()),
    ("pydantic-ai-slim[openai]==2.68.0", "pydantic_agents.py", ("responses",)),
    ("pydantic-ai-slim[openai]==2.68.0", "pydantic_agents.py", ("chat",)),
    ("langchain-openai==1.7.4", "langchain_agents.py", ("responses",)),
    ("langchain-openai==1.7.4", "langchain_agents.py", ("chat",)),
    ("anthropic==2.14.0", "anthropic_messages.py", ()),
]


@pytest.fixture(scope="module")
def scripted_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway with the scripted models."""
    store = str(tmp_path_factory.mktemp("agents") / "store")
    registry = Registry(open_store(store))
    for name, text in SCRIPTS.items():
        script = [bytes([byte]) for byte in text.encode()]
        publish_scripted(registry, script, name=name, context_length=4096)
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with gateway.serve_in_background() as address:
        yield address


def install(requirement: str) -> Path:
    """Install a client into an environment of its own, which is kept; return its python."""
    folder = ROOT / ".pilotlight" / "agents" / requirement.split("==")[0].split("[")[0]
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip install {requirement} failed: {done.stderr.strip()[-200:]}")
        (folder / "ready").touch()
    return python


@pytest.mark.slow
@pytest.mark.parametrize(("requirement", "program", "options"), CLIENTS)
def test_an_agent_calls_a_tool_reads_a_stream_and_is_answered_in_its_structure(
    scripted_url: str, requirement: str, program: str, options: tuple[str, ...]
) -> None:
    command = [str(install(requirement)), str(PROGRAMS / program), scripted_url, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    assert answers.pop("final", CITY) == CITY
    assert answers == {"cities": ["Bern"], "tool": "rain", "stream": TEXT, "structured": CITY}
