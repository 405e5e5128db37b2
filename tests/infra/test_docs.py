"""README, the pages and the decisions: short enough, in one form, and everything that they name exists."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pilotlight.local.intrinsics import load_raw_template
from tests.infra.test_house import tracked

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "infra" / "docs").glob("*.md"))
DECISIONS = sorted((ROOT / "infra" / "decisions").glob("*.md"))
TEXTS = [README, *PAGES, *DECISIONS]
SECTIONS = ["Status", "Context", "Options", "Decision", "Consequences"]
REFERENCE = re.compile(r"\b(?:infra/decisions/|[Dd]ecisions? )(\d{4})\b")
MAX_README_LINES = 150
PICTURE = ROOT / "infra" / "docs" / "architecture.svg"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


def test_readme_leads_to_every_page() -> None:
    assert {name_of(page) for page in PAGES} <= set(re.findall(r"\]\((infra/docs/[\w-]+\.md)", README.read_text()))


def test_readme_says_in_the_first_screen_that_nothing_is_deployed() -> None:
    assert "not yet deployed to AWS" in "\n".join(README.read_text().splitlines()[:40])


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            assert linked.exists(), target
            assert not anchor or anchor in anchors_of(linked), target


@pytest.mark.parametrize("path", DECISIONS, ids=name_of)
def test_a_decision_has_the_one_form(path: Path) -> None:
    text = path.read_text()
    number = re.match(r"(\d{4})-[a-z0-9-]+\.md", path.name)
    assert number is not None
    assert re.match(rf"# {number[1]} \S", text)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS


def test_references_to_decisions_resolve() -> None:
    numbers = {path.name[:4] for path in DECISIONS}
    wrong = [
        f"{path}: {number}"
        for path in tracked()
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".json", ".txt", ".dot"} or path.name == "Makefile"
        for number in REFERENCE.findall((ROOT / path).read_text())
        if number not in numbers
    ]
    assert wrong == []


def test_parameters_of_the_deploy_page_are_the_template_s() -> None:
    table = (
        (ROOT / "infra" / "docs" / "deploy.md").read_text().partition("| parameter | decides |")[2].partition("\n\n")[0]
    )
    named = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named
    assert named <= load_raw_template(ROOT / "template.yaml")["Parameters"].keys()


# --- the picture of the architecture ----------------------------------------------------------------------------------


def labels_of_the_picture() -> set[str]:
    """The lines of text in the SVG."""
    return {element.text or "" for element in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314 - ours


def folders_of_functions() -> set[str]:
    """The folder below functions/ of each function of the stack."""
    handlers = [
        resource["Properties"]["Handler"]
        for path in ("template.yaml", "infra/events.yaml")
        for resource in load_raw_template(ROOT / path)["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    return {re.split(r"[./]", handler.removeprefix("functions."))[0] for handler in handlers}


def test_the_picture_names_every_function() -> None:
    assert folders_of_functions()
    assert folders_of_functions() | {"train"} <= labels_of_the_picture()


def test_the_picture_is_that_of_its_text() -> None:
    text = PICTURE.with_suffix(".dot").read_text()
    drawn = {" ".join(line.split()) for label in re.findall(r'label="([^"]*)"', text) for line in label.split("\\n")}
    assert drawn == {" ".join(label.split()) for label in labels_of_the_picture()}


def test_the_picture_shows_what_the_stack_is_made_of() -> None:
    labels = " ".join(labels_of_the_picture())
    for part in ("API Gateway", "SQS", "EventBridge", "Step Functions", "AWS Batch", "S3 bucket"):
        assert part in labels
