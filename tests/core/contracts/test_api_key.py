"""The form of keys, what a document says of one, and durations and scopes as people write them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pilotlight.contracts.api_key import KEY_FORM, ApiKey, generate_key, hash_key, key_path, parse_key_id
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.durations import compute_end, parse_duration
from pilotlight.contracts.scopes import ALL_SCOPES, parse_scopes
from pilotlight.errors import InvalidInputError

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def document(key_id: str, key: str) -> ApiKey:
    return ApiKey(id=key_id, name="ci", sha256=hash_key(key), scopes=("infer",), created=NOW)


def test_keys_are_random_and_have_one_form() -> None:
    made = [generate_key() for _ in range(100)]
    assert len({key_id for key_id, _ in made}) == len({key for _, key in made}) == 100
    for key_id, key in made:
        assert parse_key_id(key) == key_id
        assert key_path(key_id) == f"keys/{key_id}.json"


@given(st.text(max_size=70) | st.from_regex(KEY_FORM, fullmatch=True))
def test_a_text_is_a_key_or_none(text: str) -> None:
    key_id = parse_key_id(text)
    assert (key_id is None) == (KEY_FORM.fullmatch(text) is None)
    assert key_id is None or (len(key_id) == 12 and key_id.isalnum() and key_id.isascii())


def test_a_document_knows_its_key_alone() -> None:
    key_id, key = generate_key()
    stored = decode_document(encode_document(document(key_id, key)), ApiKey, "here")
    assert stored.matches(key)
    assert not stored.matches(generate_key()[1])
    assert key.split("_", 2)[2] not in encode_document(stored).decode()


def test_a_key_is_valid_until_it_is_expired_or_revoked() -> None:
    stored = document(*generate_key())
    assert stored.get_state(NOW) == "valid"
    ends = replace(stored, expires=NOW + timedelta(hours=1))
    assert [ends.get_state(NOW + timedelta(minutes=minutes)) for minutes in (59, 60)] == ["valid", "expired"]
    assert replace(ends, revoked=NOW).get_state(NOW) == "revoked"


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": ["infer", "root"]}, {"expires": "tomorrow"}, {"expires": "2026-01-01T00:00:00"}, {"id": "../x"},
        {"tenant": "../acme"}, {"sha256": ""}, {"name": ""},
    ],
)  # fmt: skip
def test_a_document_with_something_else_in_it_is_broken(change: dict[str, object]) -> None:
    content = json.loads(encode_document(document(*generate_key()))) | change
    with pytest.raises(InvalidInputError, match="is not a ApiKey"):
        decode_document(json.dumps(content).encode(), ApiKey, "here")


@pytest.mark.parametrize(
    ("text", "scopes"),
    [("infer", ("infer",)), ("train, infer,infer", ("infer", "train")), (",".join(ALL_SCOPES), ALL_SCOPES)],
)
def test_scopes_are_parsed_to_their_order(text: str, scopes: tuple[str, ...]) -> None:
    assert parse_scopes(text) == scopes


@pytest.mark.parametrize("text", ["", "Infer", "infer;batch", "infer,", "root"])
def test_other_words_are_no_scopes(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no scope; write one or more of infer, batch, admin, train"):
        parse_scopes(text)


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "2h", "1d")] == [
        timedelta(seconds=90), timedelta(minutes=30), timedelta(hours=2), timedelta(days=1),
    ]  # fmt: skip
    assert abs(compute_end("1d") - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=5)


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5h", "1w", "1d ", "1234567890s", "\u0661d", "999999999d"])
def test_what_is_no_duration_is_said(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a duration such as|ends after the year 9999"):
        compute_end(text)
