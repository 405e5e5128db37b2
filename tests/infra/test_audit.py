"""The audit of dependencies says what it knows, and never that all is well when it could not ask."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import yaml

from tests import audit
from tests.audit import HOLES, LISTS, ROOT, UNASKED, Report, main, pins

PINNED = ["a==1", "b[crypto]==2"]


def clean(pinned: Sequence[str]) -> Report:
    named = [pin.replace("[crypto]", "").partition("==") for pin in pinned]
    return {"dependencies": [{"name": name, "version": version, "vulns": []} for name, _, version in named]}


def holed(pinned: Sequence[str]) -> Report:
    report = clean(pinned)
    report["dependencies"][-1]["vulns"] = [{"id": "PYSEC-2026-1", "fix_versions": ["3"]}]
    return report


def silent(pinned: Sequence[str]) -> Report:
    return {"dependencies": [{"name": pin.partition("==")[0], "skip_reason": "not found"} for pin in pinned]}


def broken(pinned: Sequence[str]) -> Report:
    return {"dependencies": [], "error": "ConnectionError"}


def forgetful(pinned: Sequence[str]) -> Report:
    return {"dependencies": clean(pinned)["dependencies"][:1]}


def test_nothing_known_is_good_news() -> None:
    assert audit.audit(PINNED, clean) == (0, ["2 packages, no known holes."])


def test_a_hole_is_named_with_what_mends_it() -> None:
    code, told = audit.audit(PINNED, lambda pinned: holed(pinned) if len(pinned) > 1 else clean(pinned))
    assert (code, told) == (HOLES, ["b 2 has PYSEC-2026-1; mended in 3."])


@pytest.mark.parametrize("answer", [silent, broken])
def test_silence_is_no_good_news(answer: audit.Ask, capsys: pytest.CaptureFixture[str]) -> None:
    code, (told,) = audit.audit(PINNED, answer)
    assert code == UNASKED
    assert "2 packages are NOT audited" in told
    assert main([], answer) == UNASKED
    assert main(["--unasked", "tell"], answer) == 0
    assert "NOT audited" in capsys.readouterr().out


def test_a_package_that_was_left_out_is_named() -> None:
    assert audit.audit(PINNED, forgetful) == (UNASKED, ["b[crypto]==2 is NOT audited."])


def test_holes_fail_whoever_asks_to_be_told() -> None:
    assert main(["--unasked", "tell"], holed) == HOLES


def test_everything_that_is_shipped_is_listed() -> None:
    found = pins([ROOT / path for path in LISTS])
    assert {"onnxruntime==1.32.0", "pyjwt==2.15.1", "torch==2.13.0", "cryptography==50.0.2"} <= set(found)
    units = {path.parent.name for path in (ROOT / "functions").glob("*/requirements.txt")}
    assert units == {path.split("/")[1] for path in LISTS if path.startswith("functions/")}


def test_what_is_passed_over_for_all_functions_has_a_reason() -> None:
    lines = [line.strip() for line in (ROOT / ".checkov.yaml").read_text().partition("skip-check:")[2].splitlines()]
    for before, line in pairwise(lines):
        assert not line.startswith("- ") or before.startswith("# "), f"{line} has no reason above it"


def test_no_check_is_passed_over_twice() -> None:
    """What .checkov.yaml passes over everywhere needs no suppression at a resource."""
    everywhere = yaml.safe_load((ROOT / ".checkov.yaml").read_text())["skip-check"]
    texts = [path.read_text() for path in (ROOT / "template.yaml", *(ROOT / "infra").glob("*.yaml"))]
    assert [check for check in everywhere if any(f"id: {check}" in text for text in texts)] == []
    assert len(set(everywhere)) == len(everywhere)
