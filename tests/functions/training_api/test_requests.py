"""What a body may be, and each of the ways in which it orders nothing."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from functions.training_api.requests import MAX_BODY_BYTES, TrainingRequest, parse_training_request
from pilotlight.api.http import Request
from pilotlight.errors import InvalidInputError, PilotlightError, TooLargeError
from pilotlight.recipes.schema import dump_recipe, load_recipe

WHOLE = load_recipe("digits", ["epochs=3"])
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def order(body: object, **query: str) -> TrainingRequest:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_training_request(Request("POST", "/v1/trainings", {}, {}, sent, "1", query))


def refused(body: object, **query: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        order(body, **query)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


def test_a_recipe_of_record_by_its_name_with_changes() -> None:
    taken = order({"recipe": "digits", "set": ["epochs=3"], "run": "monday", "nodes": 2, "resume": True})
    assert taken == TrainingRequest(WHOLE, "monday", 2, resume=True)


@pytest.mark.parametrize("write", [lambda: dump_recipe(WHOLE).encode(), lambda: json.dumps(tree()).encode()])
def test_a_whole_recipe_is_the_body(write: object) -> None:
    assert callable(write)
    taken = order(write(), run="monday", nodes="3", resume="true")
    assert taken == TrainingRequest(WHOLE, "monday", 3, resume=True)


def test_an_order_in_yaml() -> None:
    body = yaml.safe_dump({"recipe": tree(), "set": ["epochs=4"], "run": "monday"}).encode()
    assert order(body).recipe == load_recipe("digits", ["epochs=4"])


def tree() -> object:
    return WHOLE.model_dump(mode="json")


def test_a_run_without_a_name_gets_one_of_its_own() -> None:
    names = {order({"recipe": "digits"}).run for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("digits-2") for name in names)


@pytest.mark.parametrize("nodes", ["02", "1_0", " 2", "2.0", "9" * 40])
def test_a_count_in_the_query_has_one_spelling(nodes: str) -> None:
    assert f"nodes={nodes!r}: Input should be a valid integer" in refused(dump_recipe(WHOLE).encode(), nodes=nodes)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"a: [", "not YAML"),
        (b"- a", "orders no training"),
        (b"digits", "orders no training"),
        (b'{"recipe": 3}', "orders no training"),
        ({"recipe": "nothing"}, "one of breast-cancer, diabetes, digits"),
        ({"recipe": "/etc/passwd"}, "no recipe '/etc/passwd'"),
        ({"recipe": "../digits"}, "no recipe '../digits'"),
        ({"recipe": "digits", "nodes": 0}, "orders no training"),
        ({"recipe": "digits", "nodes": 17}, "orders no training"),
        ({"recipe": "digits", "colour": "red"}, "colour"),
        ({"recipe": "digits", "run": "../x"}, "orders no training"),
        ({"recipe": "digits", "set": ["optimiser.learning_rate=-1"]}, "learning_rate is -1; it must be greater than 0"),
        ({"recipe": "digits", "set": ["epochs"]}, "KEY=VALUE"),
        ({"recipe": {"name": "x"}}, "is missing"),
        ({"name": "x"}, "is missing"),
        (BOMB.encode(), "aliases"),
        ({"recipe": "digits", "set": ["model=[&a [1], *a]"]}, "aliases"),
        (b"[" * 5000, "nested too deeply"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "nested too deeply"),
    ],
)
def test_what_orders_nothing_is_told_in_a_sentence(body: object, words: str) -> None:
    assert words in refused(body)


def test_a_body_beyond_the_limit_is_not_read() -> None:
    with pytest.raises(TooLargeError, match="262,145 bytes"):
        order(b"#" * (MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    "path",
    ["mine.csv", "/etc/a.csv", "file:///etc/a.csv", "../iris.csv", "s3://bucket/a.csv?endpoint=http://10.0.0.1"],
)
def test_the_trainer_reads_no_file_of_its_machine_and_calls_no_other_host(path: str) -> None:
    said = refused({"recipe": "iris", "set": [f"data.path={path}"]})
    assert path in said
    assert "store:data/" in said


@pytest.mark.parametrize("path", ["store:data/iris.csv", "s3://bucket/iris/*.csv", "iris.csv"])
def test_data_in_stores_is_taken_and_that_of_a_recipe_of_record(path: str) -> None:
    assert order({"recipe": "iris", "set": [f"data.path={path}"]}).recipe.data.name


def test_code_is_not_taken_over_http() -> None:
    said = refused({"recipe": "digits", "set": ["model={architecture: custom, factory: 'os:system'}"]})
    assert "which is code" in said


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_order_or_a_sentence(body: bytes) -> None:
    try:
        assert order(body).run
    except PilotlightError as exc:
        assert str(exc)  # noqa: PT017 - either is right
