"""ONNX's backend test suite through the front door: published by the command, served by the gateway, asked in binary.

What onnxruntime by itself cannot do is excluded, case by case with the reason, in excluded.json. The list is checked
both ways: a case that is excluded without need fails as well as one that is not excluded and wrong.
"""

import json
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from pilotlight.cli import publish as publish_module
from pilotlight.contracts.manifest import Precision
from pilotlight.gate import graph_probe
from pilotlight.local.gateway import Gateway
from pilotlight.runtime import request_search
from pilotlight.runtime.datatypes import Array
from pilotlight.runtime.session import open_session
from tests.conformance.operators import BY_MACHINE, Case, cases, exclusion

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXCLUDED = Path(__file__).with_name("excluded.json")


@pytest.fixture(scope="module")
def suite() -> tuple[list[Case], dict[str, str]]:
    """The cases that are ours, and why each of the others is not."""
    every = list(cases())
    reasons = {case.name: reason for case in every if (reason := exclusion(case)) is not None}
    return [case for case in every if case.name not in reasons], reasons


@pytest.fixture(scope="module")
def client(
    suite: tuple[list[Case], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[triton.InferenceServerClient]:
    """A client of a gateway that serves all of them."""
    folder = tmp_path_factory.mktemp("operators")
    store, file = str(folder / "store"), folder / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:  # two processes for each of 1,500 graphs would take 20 minutes
        patch.setattr(graph_probe, "examine_graph", examine_here)
        patch.setattr(request_search, "search_requests", partial(request_search.search_requests, seconds=0.1))
        patch.setattr(publish_module, "measure_request_cost", lambda graph, golden: None)
        for case in suite[0]:
            file.write_bytes(case.model)
            publish_module.publish(file, model_name(case), store=store)
    gateway = Gateway(ROOT / "template.yaml", port=0, workers=1, environment={"PILOTLIGHT_STORE": store})
    with (
        gateway.serve_in_background() as url,
        triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60) as connected,
    ):
        yield connected


def examine_here(graph: Path, precision: Precision, sample: Path | None = None) -> graph_probe.GraphExamination:
    """What the probe finds, without a process of its own."""
    return graph_probe.record_examination(open_session(str(graph)), graph, precision, sample)


def model_name(case: Case) -> str:
    """The case's name, cut to what a model's name may be."""
    return case.name if len(case.name) <= 64 else f"{case.name[:55]}.{zlib.crc32(case.name.encode()):08x}"


def infer(client: triton.InferenceServerClient, case: Case) -> dict[str, Array]:
    """The suite's inputs in V2 binary form, and the answers by output."""
    tensors = []
    for name, value in case.inputs.items():
        tensors.append(triton.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype)))
        tensors[-1].set_data_from_numpy(value)
    result = client.infer(model_name(case), tensors)
    return {name: result.as_numpy(name) for name in case.outputs}


def test_every_operator_answers_as_the_suite_expects(
    client: triton.InferenceServerClient, suite: tuple[list[Case], dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {}
    for case in suite[0]:
        try:
            case.check(infer(client, case))
        except (AssertionError, InferenceServerException, ValueError) as exc:
            wrong[case.name] = f"{type(exc).__name__}: {str(exc).strip()[:300]}"
    with capsys.disabled():
        sys.stdout.write(table(len(suite[0]) - len(wrong), len(suite[0]), suite[1]))
    assert wrong == {}


def table(passed: int, count: int, excluded: dict[str, str]) -> str:
    """How many pass, and how many are excluded for each reason."""
    rows = [f"  {number:4}  {reason}" for reason, number in Counter(excluded.values()).most_common()]
    return "\n".join(["", f"ONNX operators: {passed} of {count} pass, {len(excluded)} are excluded:", *rows, ""])


def test_a_wrong_answer_would_be_noticed(suite: tuple[list[Case], dict[str, str]]) -> None:
    case = next(case for case in suite[0] if case.name == "abs")
    case.check(case.outputs)
    with pytest.raises(AssertionError):
        case.check({"y": case.outputs["y"] * 1.01})


def test_the_exclusions_are_those_that_are_needed(suite: tuple[list[Case], dict[str, str]]) -> None:
    listed = {name: reason for reason, names in json.loads(EXCLUDED.read_text()).items() for name in names}
    assert everywhere(suite[1]) == everywhere(listed)


def everywhere(reasons: dict[str, str]) -> dict[str, str]:
    """Without those that depend on the machine."""
    return {name: reason for name, reason in reasons.items() if reason not in BY_MACHINE}
