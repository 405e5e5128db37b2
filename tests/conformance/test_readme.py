"""What README and the pages under infra/docs print: Python and reads by curl run, other commands parse."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import pytest
import typer
from botocore import xform_name
from typer.exceptions import TyperException

from pilotlight.api.routes import SCOPES
from pilotlight.cli import commands
from pilotlight.cli.known_servers import open_remembered_stacks
from pilotlight.deployment.remembered_stacks import RememberedStack
from pilotlight.local.intrinsics import load_raw_template
from pilotlight.recipes.schema import build_recipe, parse_yaml
from tests.conformance.test_batches import call

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "infra" / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {"bash", "console", "json", "python", "text", "yaml"}
LOCAL = "localhost:8080"
SERVED = ("digits",)  # models in these pages that the conformance server has
PRINTED = {  # by each Python block, by page and its number there
    "quickstart.md-0": r"\(1, 10\)\n",
    "quickstart.md-1": r"\[1, 10\]\n",
    "batch.md-0": r"(validating|in_progress|finalizing|completed)\n",
}
# Commands whose arguments need no check here.
UNCHECKED = {".", "cat", "cut", "echo", "git", "kill", "moto_server"}
AWS_COMMANDS = {("s3", "cp"), ("ecr", "get-login-password")}  # of the aws command alone, not of the service's API
AWS_OPTIONS = {"include-value", "query", "output", "force", "profile", "region"}
SAM_COMMANDS = {"build", "delete", "deploy", "local invoke", "local start-api"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    number: int  # among the page's blocks of its language
    language: str
    text: str

    @property
    def id(self) -> str:
        return f"{self.page}-{self.number}"


@dataclass(frozen=True)
class Command:
    """A command line of a block, and what the page prints behind it."""

    page: str
    line: str
    output: str

    def split(self) -> Iterator[list[str]]:
        """Give each simple command of the line; those in `$(...)` first."""
        for nested in re.findall(r"\$\(([^()]*)\)", self.line):
            yield shlex.split(nested)
        lexer = shlex.shlex(re.sub(r"\$\([^()]*\)", "VALUE", self.line), posix=True, punctuation_chars="<>|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def find_blocks() -> Iterator[Block]:
    for page in PAGES:
        count = dict.fromkeys([*LANGUAGES, ""], -1)
        for language, text in FENCE.findall(page.read_text()):
            count[language] = count.get(language, -1) + 1
            yield Block(page.name, count[language], language, text)


def find_commands() -> Iterator[Command]:
    for block in BLOCKS:
        text = re.sub(r" *\\\n *", " ", block.text)
        if block.language == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                yield Command(block.page, line, output)
        elif block.language == "bash":
            text = re.sub(r"<<'END'\n.*?^END$", "", text, flags=re.DOTALL | re.MULTILINE)
            yield from (Command(block.page, line, "") for line in text.splitlines() if line.strip())


def is_read(line: str) -> bool:
    """Whether this is one curl that changes nothing, of a model that the conformance server has."""
    if not line.startswith("curl ") or " | " in line or LOCAL not in line:
        return False
    named = re.findall(r"/models/(\w+)", line)
    return "-X" not in line and (" -d " not in line or "/infer" in line) and set(named) <= set(SERVED)


BLOCKS = list(find_blocks())
COMMANDS = list(find_commands())
READS = [command for command in COMMANDS if is_read(command.line)]
SCRIPTS = [block for block in BLOCKS if block.language == "python"]


# --- what runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.id)
def test_python_in_the_pages_runs(
    block: Block, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calls.jsonl").write_bytes(call(0) + call(1))
    monkeypatch.chdir(tmp_path)
    exec(block.text.replace(LOCAL, url.removeprefix("http://")), {})  # noqa: S102 - our own pages
    assert re.fullmatch(PRINTED[block.id], capsys.readouterr().out)


def test_there_is_python_in_the_pages() -> None:
    assert {block.id for block in SCRIPTS} == PRINTED.keys()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("command", READS, ids=lambda command: f"{command.page}: {command.line[:60]}")
def test_a_read_by_curl_answers_as_printed(command: Command, url: str, tmp_path: Path) -> None:
    words = ["curl", "--fail-with-body", *shlex.split(command.line.replace(LOCAL, url.removeprefix("http://")))[1:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    if command.output:
        printed, answer = json.loads(command.output), json.loads(done.stdout)
        assert {**printed, "versions": []} == {**answer, "versions": []}


def test_there_are_reads_in_the_pages() -> None:
    assert {command.page for command in READS} >= {"README.md", "quickstart.md", "training.md", "versions.md"}


# --- what parses ------------------------------------------------------------------------------------------------------


def test_blocks_have_a_language_that_is_checked() -> None:
    assert [block.id for block in BLOCKS if block.language not in LANGUAGES] == []


def test_console_blocks_begin_with_a_command() -> None:
    """Else their lines would be output, which no test reads."""
    assert [block.id for block in BLOCKS if block.language == "console" and not block.text.startswith("$ ")] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: block.id)
def test_yaml_in_the_pages_is_a_recipe(block: Block) -> None:
    build_recipe(parse_yaml(block.text, block.page), [], block.page)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=lambda block: block.id)
def test_json_in_the_pages_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.page}: {command.line[:60]}")
def test_a_command_in_the_pages_parses(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a deploy: the pages name its stack where a URL may stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    open_remembered_stacks().remember(RememberedStack("pilotlight", "https://a.example.com/prod", "b", "eu-central-1"))
    for words in command.split():
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words and words[0] != "export" and words[0] not in UNCHECKED:
            CHECKS[words[0]](words[1:])


WRONG = (
    "aws sqs send-massage --queue-url URL",
    "aws sqs send-message --queue URL",
    "curl localhost:8080/v3/models",
    "docker run image",
    "make cake",
    "pilotlight predict digits --output digit.json",
    "pilotlight trian digits",
    "python -m tests.missing",
    "sam deploy --parameter-overrides Colour=red",
    "sam local invoke MissingFunction",
)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_is_noticed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, KeyError, TyperException)):
        test_a_command_in_the_pages_parses(Command("", line, ""), tmp_path, monkeypatch)


def check_pilotlight(words: list[str]) -> None:
    """Parse the words as the command does, with files for those that must exist."""
    if ">" in words:
        words = [word for word in words[: words.index(">")] if word != "2"]  # of `2> file`
    command: object = typer.main.get_command(commands)
    for word in (word for word in words if re.fullmatch(r"[\w-]+(\.\w+|/)", word)):
        Path(word).mkdir() if word.endswith("/") else Path(word).touch()
    while subcommands := getattr(command, "commands", {}):
        if not words:
            return
        name, words = words[0], words[1:]
        assert name in subcommands, name
        command = subcommands[name]
    command.make_context("pilotlight", list(words))  # type: ignore[attr-defined]  # typer bundles its own click


def check_make(words: list[str]) -> None:
    """A target of the Makefile, or a file that one makes; then variables."""
    targets = re.findall(r"^([\w.$()/ -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name.replace("$(VENV)", ".venv") for line in targets for name in line.split()}
    assert {word for word in words if "=" not in word} <= known


def check_curl(words: list[str]) -> None:
    """A route that the API has."""
    for word in words:
        if match := re.fullmatch(r"localhost:(?:8080|3000)(?:/prod)?(/[^?]*)(\?.*)?", word):
            patterns = [re.sub(r"\{\w+\}", "[^/]+", path) for path in SCOPES]
            assert any(re.fullmatch(pattern, match[1]) for pattern in patterns), word


def check_sam(words: list[str]) -> None:
    """A command of the SAM CLI, over files and parameters that are there."""
    name = " ".join(words[:2]) if words[0] == "local" else words[0]
    assert name in SAM_COMMANDS
    options = {word: list(words[place + 1 :]) for place, word in enumerate(words) if word.startswith("-")}
    files = [options[option][0] for option in ("-t", "-e", "--env-vars", "--config-file") if option in options]
    assert [file for file in files if not file.startswith("/tmp/") and not (ROOT / file).exists()] == []  # noqa: S108
    template = load_raw_template(ROOT / options.get("-t", ["template.yaml"])[0])
    given = [word.partition("=")[0] for word in options.get("--parameter-overrides", []) if not word.startswith("-")]
    assert set(given) <= template["Parameters"].keys()
    if name == "local invoke":
        assert words[2] in template["Resources"]


def check_aws(words: list[str]) -> None:
    """An operation of the service, with options that are its parameters."""
    service, operation, *rest = words
    if (service, operation) in AWS_COMMANDS:
        return
    model = botocore.session.Session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    members = model.operation_model(names[operation]).input_shape.members
    given = {word.removeprefix("--") for word in rest if word.startswith("--")}
    assert given - {xform_name(name, "-") for name in members} <= AWS_OPTIONS


def check_python(words: list[str]) -> None:
    """A module that can be run."""
    assert words[0] == "-m"
    assert importlib.util.find_spec(words[1]) is not None


def check_docker(words: list[str]) -> None:
    """A command that is used here, over a Dockerfile that is there."""
    assert words[0] in {"build", "login", "push", "tag"}
    if "-f" in words:
        assert (ROOT / words[words.index("-f") + 1]).exists()


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "aws": check_aws,
    "curl": check_curl,
    "docker": check_docker,
    "make": check_make,
    "pilotlight": check_pilotlight,
    "python": check_python,
    "sam": check_sam,
}
