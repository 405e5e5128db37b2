"""Golden prompts: recorded as far as a model is sure, and replayed token by token."""

import pytest
from msgspec.structs import replace

from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.errors import ModelRefusedError
from pilotlight.generation.chat_template import ChatTemplate
from pilotlight.generation.prompt_encoding import encode_prompt
from pilotlight.runtime.golden import GoldenDocument
from pilotlight.runtime.golden_prompts import (
    BEGINNINGS,
    ENOUGH_TOKENS,
    MAX_TOKENS,
    record_golden_prompts,
    replay_prompts,
)
from tests.scripted_model import CHAT_TEMPLATE, ScriptedModel

SCRIPT = ("Paris", " is", " the", " capital", ".")


def record(scripted: ScriptedModel, *prompts: str) -> GoldenDocument:
    found = record_golden_prompts(scripted.open(), "int8", prompts)
    assert found is not None
    return found


def test_what_a_model_says_to_a_prompt_is_recorded_up_to_its_end_token() -> None:
    scripted = ScriptedModel.build(SCRIPT)
    (prompt,) = record(scripted, "Where?").prompts
    assert prompt.tokens == tuple(b"Where?")
    assert prompt.expected == (*scripted.tokens, scripted.ids["<|im_end|>"])
    assert prompt.expected_text.startswith("Paris is the capital.")


def test_a_document_survives_its_json_and_is_answered_as_recorded() -> None:
    scripted = ScriptedModel.build(SCRIPT)
    document = decode_document(encode_document(record(scripted, "Where?", "And?")), GoldenDocument, "golden.json")
    assert document.schema_version == 3
    assert len(document.prompts) == 2
    replay_prompts(document, scripted.open())


def test_default_prompts_are_questions_in_the_chat_template_and_enough_of_them() -> None:
    scripted = ScriptedModel.build(SCRIPT)
    template = ChatTemplate(CHAT_TEMPLATE, scripted.spec.special_tokens)
    document = record_golden_prompts(scripted.open(chat_template=template), "int8")
    assert document is not None
    assert all(prompt.text.startswith("<|im_start|>user\n") for prompt in document.prompts)
    assert document.prompts[0].tokens[0] == scripted.ids["<|im_start|>"]
    assert sum(len(prompt.expected) for prompt in document.prompts) >= ENOUGH_TOKENS


def test_without_a_template_texts_are_continued() -> None:
    document = record_golden_prompts(ScriptedModel.build(SCRIPT).open(), "int8")
    assert document is not None
    assert document.prompts[0].text == BEGINNINGS[0]


def test_long_answers_are_recorded_in_part() -> None:
    (prompt,) = record(ScriptedModel.build([*"abcdefghijklmnopqrstuvwxyz"]), "Go").prompts
    assert prompt.expected_text == "abcdefghijklmnopqrstuvwxyz"[:MAX_TOKENS]


def test_tokens_that_are_nearly_as_likely_as_others_are_not_recorded() -> None:
    assert record_golden_prompts(ScriptedModel.build(SCRIPT, margin=0.9).open(), "int8", ["Where?"]) is None


def test_a_prompt_that_fills_the_context_is_left_out() -> None:
    assert (
        record_golden_prompts(ScriptedModel.build(SCRIPT, context_length=8).open(), "int8", ["Where, please?"]) is None
    )


def test_another_answer_is_refused_with_the_prompt_and_both_texts() -> None:
    document = record(ScriptedModel.build(SCRIPT, more_tokens=["Lyon"]), "Where?")
    other = ScriptedModel.build(("Lyon", *SCRIPT[1:]), more_tokens=["Paris"])
    wrong = replace(document.prompts[0], expected=tuple(other.tokens[:1]), expected_text="Paris")
    with pytest.raises(ModelRefusedError) as told:
        replay_prompts(replace(document, prompts=(replace(wrong, expected=(1, 2)),)), other.open())
    assert "Golden prompt 1, 'Where?', is continued with 'Lyon is', recorded as 'Paris'." in str(told.value)


def test_another_tokenizer_is_refused() -> None:
    scripted = ScriptedModel.build(SCRIPT)
    document = record(scripted, "Where?")
    changed = replace(document, prompts=(replace(document.prompts[0], tokens=(1, 2, 3, 4)),))
    with pytest.raises(ModelRefusedError, match="is split into other tokens than when it was recorded"):
        replay_prompts(changed, scripted.open())


def test_a_graph_that_fails_is_refused() -> None:
    document = record(ScriptedModel.build(SCRIPT), "Where?")
    with pytest.raises(ModelRefusedError, match="'Where\\?', is refused"):
        replay_prompts(document, ScriptedModel.build(SCRIPT, fail_after=2).open())


def test_the_begin_token_stands_before_a_prompt_once() -> None:
    scripted = ScriptedModel.build(SCRIPT)
    begin = scripted.ids["<|im_start|>"]
    begins = ScriptedModel(scripted.graph, scripted.tokenizer_json, replace(scripted.spec, begin_token=begin), ())
    assert encode_prompt(begins.open(), "a") == (begin, ord("a"))
    assert encode_prompt(begins.open(), "<|im_start|>a") == (begin, ord("a"))
