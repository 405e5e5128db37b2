"""A line that ends the process costs its own answer alone, however often the process ends, and in few invocations."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from functions.batch_worker import caution
from pilotlight.contracts.batch import BatchRequest, Block, ByteRange, batch_document_path, generate_sortable_id
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.upload import content_path
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from tests import fakes

ROOT = Path(__file__).parents[3]
ABORTS, IS_KILLED = 666, 667


def answer_mortally(store: ObjectStore, target: str, part_bytes: int = 4_000_000) -> dict[str, int]:
    """What it took to answer a file in processes that may die."""
    environment = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/core")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.functions.batch_worker.mortal", store.address, target, str(part_bytes)],
        capture_output=True,
        check=True,
        env=environment,
        cwd=ROOT,
    )
    return dict(json.loads(done.stdout))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A store on disk with double:1."""
    found = open_store(str(tmp_path / "store"))
    fakes.publish(Registry(found))
    return found


def put_lines(store: ObjectStore, name: str, values: list[int]) -> str:
    """Put a file of lines of one row each into the inbox; its URI."""
    store.put(f"inbox/double/{name}", b"".join(b"[%d, 0, 1]\n" % value for value in values))
    return f"{store.url}/inbox/double/{name}"


def read_lines(store: ObjectStore, path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.get(path).data.splitlines()]


def check_answers(store: ObjectStore, values: list[int], poisonous: set[int]) -> None:
    """Check that each line has its answer, and the poisonous ones an error."""
    said = read_lines(store, "outbox/double/a.jsonl")
    assert [each["line"] for each in said] == list(range(1, len(values) + 1))
    assert {each["line"] - 1 for each in said if "error" in each} == poisonous
    assert all("is set aside: each process that answered it ended" in each["error"] for each in said if "error" in each)
    assert all(each["outputs"][0]["data"][0] == 2 * values[each["line"] - 1] for each in said if "outputs" in each)


def test_one_line_that_aborts_costs_its_own_answer(store: ObjectStore) -> None:
    values = list(range(7))
    values[3] = ABORTS
    took = answer_mortally(store, put_lines(store, "a.jsonl", values))
    check_answers(store, values, {3})
    assert took == {"invocations": 4, "deaths": 2, "dead_letters": 0}
    manifest = json.loads(store.get("outbox/double/a/manifest.json").data)
    assert (manifest["answered"], manifest["failed"], manifest["invocations"]) == (6, 1, 4)


def test_lines_that_are_killed_among_thousands_are_found_in_few_invocations(store: ObjectStore) -> None:
    values = [number % 600 for number in range(3000)]
    values[1234], values[1235] = IS_KILLED, ABORTS
    took = answer_mortally(store, put_lines(store, "a.jsonl", values), part_bytes=20_000)
    check_answers(store, values, {1234, 1235})
    assert took["dead_letters"] == 0
    assert took["deaths"] <= 8
    assert took["invocations"] <= 16


def test_a_batch_of_openais_has_the_line_in_its_error_file(store: ObjectStore) -> None:
    target = f"batch_{generate_sortable_id()}"
    endpoint = "/v2/models/double/infer"
    lines = []
    for number in (1, ABORTS, 3):
        x = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [number, 0, 1]}
        lines.append({"custom_id": f"c-{number}", "method": "POST", "url": endpoint, "body": {"inputs": [x]}})
    store.put(content_path("file-" + "0" * 32), "\n".join(map(json.dumps, lines)).encode())
    order = BatchRequest(
        id=target,
        endpoint=endpoint,
        input_file_id="file-" + "0" * 32,
        completion_window="24h",
        created_at=0,
        expires_at=9_999_999_999,
    )
    store.put(batch_document_path(target, "order"), encode_document(order))
    assert answer_mortally(store, target)["dead_letters"] == 0
    folder = order.results_folder
    assert [each["custom_id"] for each in read_lines(store, f"{folder}/output.jsonl")] == ["c-1", "c-3"]
    (wrong,) = read_lines(store, f"{folder}/errors.jsonl")
    assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("c-666", 500)


@given(
    lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=300),
    data=st.data(),
)
def test_any_lines_that_end_processes_are_found_and_no_other_is_set_aside(
    lengths: list[int], data: st.DataObject
) -> None:
    """The range alone, against a worker that dies at the poisonous lines: no store and no process."""
    ends = [sum(lengths[: place + 1]) for place in range(len(lengths))]
    poisonous = data.draw(st.sets(st.sampled_from(ends), max_size=3))
    span, set_aside, deaths = ByteRange(0, ends[-1], 0, 0, 0), set(), 0
    while not span.is_done:
        span = caution.begin_range(span)
        while not span.is_done:
            items = [end for end in ends if end > span.position]
            known = span.caution
            block = choose_block(items, span.position, known.block_bytes if known else caution.PART_BYTES)
            if known is not None and known.sets_aside:
                set_aside.add(items[0])
                block = items[:1]
            elif known is not None:
                span = structs.replace(span, block=Block(block[-1], is_single=len(block) == 1))
            if poisonous & set(block) - set_aside:
                deaths += 1
                break
            span = caution.ease_caution(structs.replace(span, position=block[-1]))
    assert set_aside == poisonous
    assert deaths <= 8 * len(poisonous)


def choose_block(ends: list[int], position: int, max_bytes: int) -> list[int]:
    """The lines of a block, by their ends."""
    return [end for place, end in enumerate(ends) if place == 0 or end - position <= max_bytes]


def test_a_worker_that_fails_in_order_is_no_death(store: ObjectStore) -> None:
    span = caution.begin_range(ByteRange(0, 100, 0, 0, 0))
    assert caution.begin_range(structs.replace(span, block=None)).caution is None
    assert caution.begin_range(span).caution is not None
