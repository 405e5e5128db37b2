"""A mistake in a recipe is one sentence that says where, what, and what instead."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotlight.errors import InvalidInputError
from pilotlight.recipes import schema
from pilotlight.recipes.schema import AdamOptions, CnnOptions, Recipe, dump_recipe, load_recipe

MISTAKES = [
    ("optimiser.learning_rate=-1", ["optimiser.learning_rate", "-1", "greater than 0"]),
    ("optimiser.learning_rate=.nan", ["optimiser.learning_rate", "NaN", "finite"]),
    ("optimiser.learning_rate=.inf", ["optimiser.learning_rate", "Infinity", "finite"]),
    ("optimiser.rate=1", ["'optimiser.rate'", "name, learning_rate, betas"]),
    ("colour=red", ["'colour'", "early_stopping"]),
    ("model.architecture=vgg", ['model.architecture is "vgg"', "'rnn', 'transformer', 'decoder', 'custom'"]),
    ("optimiser.name=lion", ["optimiser.name", '"lion"', "'gd', 'sgd', 'momentum'", "'adam'", "'adamw'"]),
    ("optimiser=3", ["optimiser is 3", "name, learning_rate"]),
    ("optimiser={learning_rate: 1}", ["'optimiser.name' is missing"]),
    ("optimiser={name: momentum, learning_rate: 1, beta: 1}", ["optimiser.beta is 1", "less than 1"]),
    ("optimiser={name: adam, learning_rate: 1, betas: [0.9, 2]}", ["optimiser.betas.1 is 2", "less than 1"]),
    ("optimiser.weight_decay=-1", ["optimiser.weight_decay is -1", "greater than or equal to 0"]),
    ("schedule.name=staircase", ["schedule.name", '"staircase"', "'constant', 'step'", "'cosine'"]),
    ("schedule={name: step, every: 0, gamma: 0.5}", ["schedule.every is 0", "greater than 0"]),
    ("schedule={name: step, every: 0.5}", ["'schedule.gamma' is missing"]),
    ("schedule={name: constant, floor: 0.5}", ["no key 'schedule.floor'", "schedule takes name, warmup"]),
    ("loss={name: hinge}", ["loss.name", '"hinge"', "'cross_entropy', 'mse'"]),
    ("loss={name: cross_entropy, label_smoothing: 1}", ["loss.label_smoothing is 1", "less than 1"]),
    ("loss={name: cross_entropy, class_weights: even}", ['loss.class_weights is "even"', "'balanced'"]),
    ("loss={name: cross_entropy, class_weights: [1, -1]}", ["loss.class_weights.1 is -1", "greater than 0"]),
    ("loss=mse", ['loss is "mse"', "loss takes name, label_smoothing, class_weights"]),
    ("batch_size=all", ['batch_size is "all"', "'full'"]),
    ("optimiser.name=gd", ["batch_size is 64", "must be full for the optimiser gd"]),
    ("accumulation=0", ["accumulation is 0", "greater than or equal to 1"]),
    ("clip_norm=0", ["clip_norm is 0", "greater than 0"]),
    ("ema=1", ["ema is 1", "less than 1"]),
    ("precision=fp16", ['precision is "fp16"', "'auto', 'fp32' or 'bf16'"]),
    ("compile=1", ["compile is 1", "boolean"]),
    ("folds=1", ["folds is 1", "greater than or equal to 2"]),
    ("checkpoint.seconds=0", ["checkpoint.seconds is 0", "greater than 0"]),
    ("checkpoint.steps=0.5", ["checkpoint.steps is 0.5", "integer"]),
    ("checkpoint.minutes=5", ["'checkpoint.minutes'", "seconds, steps"]),
    ("data.name=mnist", ["data.name", '"mnist"', "'digits'"]),
    ("data.path=mine.csv", ["data.target is null", "and 1 more"]),
    ("data=3", ["data is 3", "data takes name, seed"]),
    ("data={path: 3, target: y}", ["data.path is 3"]),
    ("data={path: mine.csv, target: y}", ["'data.fractions' is missing"]),
    ("data={path: mine.csv, target: y, missing: guess}", ["data.missing", '"guess"', "'drop', 'mean' or 'median'"]),
    (
        "data={path: a.csv, target: y, time: t, streaming: true, fractions: {train: 0.6, validation: 0.2, test: 0.2}}",
        ["data.streaming is true", "a stream of tables takes no data.time"],
    ),
    ("data={path: mine.txt}", ["data.format is null", "files that end in .txt are no one format"]),
    ("data={path: pics, image: {size: 0}}", ["data.image.size is 0", "greater than or equal to 1"]),
    ("data={path: pics, image: {size: [8, x]}}", ['data.image.size.1 is "x"']),
    (
        "data={path: mine.csv, fractions: {train: 0.6, validation: 0.2, test: 0.2}}",
        ["it must name"],
    ),
    ("augmentation={shift: -1}", ["augmentation.shift is -1", "greater than or equal to 0"]),
    ("augmentation={spin: 1}", ["no key 'augmentation.spin'", "augmentation takes shift, rotate, flip, noise"]),
    ("model={architecture: custom, factory: net}", ['model.factory is "net"', "match"]),
    ("model={architecture: custom, factory: 'net:build', hidden: 3}", ["no key 'model.hidden'", "factory, arguments"]),
    ("quantization.scheme=magic", ["quantization.scheme", '"magic"', "'static'"]),
    ("epochs=yes", ["epochs", "true", "integer"]),
    ("epochs=1.5", ["epochs", "1.5", "integer"]),
    ("batch_size=1", ["batch_size", "1", "greater than or equal to 2"]),
    ("data.fractions.test=0.5", ["data.fractions", "sum to 1", "1.25"]),
    ("model.channels=[]", ["model.channels", "at least 1"]),
    ("model.channels=[8, 0]", ["model.channels.1", "0", "greater than or equal to 1"]),
    ("model={channels: [8]}", ["'model.architecture'", "missing"]),
    ("model={architecture: mlp, hidden: []}", ["model.hidden", "at least 1"]),
    ("model={architecture: mlp, hidden: [8], channels: [8]}", ["'model.channels'", "architecture, hidden, dropout"]),
    ("model={architecture: rnn, cell: elman, hidden: 8}", ["model.cell", '"elman"', "'lstm' or 'gru'"]),
    ("model={architecture: rnn, cell: gru, hidden: 8, layers: 0}", ["model.layers", "0"]),
    (
        "model={architecture: transformer, patch: 4, width: 10, heads: 4, layers: 1, hidden: 8}",
        ["model is", "width must be a multiple of heads, and 10 is none of 4"],
    ),
    (
        "model={architecture: decoder, layers: 1, width: 12, heads: 4, kv_heads: 2, hidden: 8, context: 8}",
        ["model is", "width must be an even multiple of heads, and 12 is none of 4"],
    ),
    (
        "model={architecture: decoder, layers: 1, width: 16, heads: 4, kv_heads: 3, hidden: 8, context: 8}",
        ["model is", "heads must be a multiple of kv_heads, and 4 is none of 3"],
    ),
    ("data.text={vocabulary: 512, window: 8}", ["data.text is", "must be given for topics", "for nothing else"]),
    ("data.name=topics", ["data.text is null", "must be given for topics, with a vocabulary"]),
    ("data.text={vocabulary: 256, window: 8}", ["data.text.vocabulary is 256", "greater than 257"]),
    ("data.text={vocabulary: 512, window: 8, stride: 9}", ["data.text is", "stride must be at most the window's 8"]),
    ("quantization.block=48", ["quantization.block is 48", "16, 32, 64, 128"]),
    ("model=3", ["model is 3", "architecture, channels"]),
    ("name=../etc", ["name", "../etc", "match"]),
    ("name=stats", ["name", "stats"]),
    ("seed", ["'seed'", "KEY=VALUE"]),
    ("=3", ["'=3'", "KEY=VALUE"]),
    ("capture={mask: 3}", ["capture.mask is 3", "it must map keys to values"]),
    ("name=" + "n" * 500, ['name is "nnn', "nnn...", "must match pattern"]),
    ("seed.of.doubt=3", ["seed.of.doubt", "no keys"]),
    ("seed=[1", ["seed=[1", "not YAML", "line 1"]),
]


def said_of(path: str, *overrides: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def assert_one_sentence(text: str) -> None:
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 320


@pytest.mark.parametrize(("override", "words"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_mistake_is_one_sentence(override: str, words: list[str]) -> None:
    said = said_of("digits", override)
    assert_one_sentence(said)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"- a\n- b\n", "map keys"),
        (b"", "map keys"),
        (b"just words", "map keys"),
        (b"name: [", "line 1"),
        (b"name: x\n\ty: 1", "line 2"),
        (b"name: *nobody", "nobody"),
        (b"a: &a [*a]", "hold itself"),
        (b"? [a]\n: b\n", "unhashable key"),
        (b"2020-01-01: x", "words"),
        (b"name: x", "'data' is missing (and 7 more)"),
        (b"\xff\xfe", "text"),
        (b"a: \x00", "not YAML"),
        (b"name: x\nepochs: 3\nseed: 1\nepochs: 4\n", "not YAML: the key 'epochs' stands there twice in line 4"),
        (b"data:\n  path: x\n  path: y\n", "the key 'path' stands there twice in line 3"),
        (b"a: " + b"[" * 3000 + b"]" * 3000, "not YAML: it is nested too deeply"),
        (b"epochs: " + b"9" * 5000, "not YAML: Exceeds the limit"),
        (b"licence: 2026-13-45", "not YAML: month must be in 1..12"),
        (b'name: "\\ud800"', "it holds what is no text"),
    ],
)
def test_wrong_file_is_one_sentence(tmp_path: Path, text: bytes, word: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_bytes(text)
    said = said_of(str(file))
    assert_one_sentence(said.replace(str(tmp_path), ""))
    assert str(file) in said
    assert word in said


def test_a_word_that_is_spelt_wrongly_is_named_and_not_only_missed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        schema.read_recipe_text(schema.find_recipe_file("digits")).replace("epochs:", "epoch:")
    )
    assert "there is no key 'epoch'; a recipe takes name" in said_of(str(tmp_path / "mine.yaml"))


def test_merged_keys_may_stand_again(tmp_path: Path) -> None:
    merged = "<<: &b {<<: {epochs: 2}, epochs: 3}\n<<: *b\nepochs:"
    text = schema.read_recipe_text(schema.find_recipe_file("digits")).replace("epochs:", merged)
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe("digits")


@pytest.mark.parametrize("path", ["nowhere.yaml", "digit", ".", ""])
def test_missing_recipe_names_those_there_are(path: str) -> None:
    said = said_of(path)
    assert_one_sentence(said)
    assert repr(path) in said
    assert "digits" in said


def test_recipe_of_record_loads() -> None:
    digits = load_recipe("digits")
    assert digits.name == digits.data.name == "digits"
    assert digits.quantization.budget == 0.5
    assert load_recipe(str(schema.BUILTIN_FOLDER / "digits.yaml")) == digits


def test_overrides_are_yaml_and_the_last_one_counts() -> None:
    changed = load_recipe("digits", ["optimiser.learning_rate=1e-4", "model.channels=[8, 16]", "epochs=1", "epochs=3"])
    assert changed.optimiser.learning_rate == 1e-4
    assert isinstance(changed.model, CnnOptions)
    assert changed.model.channels == (8, 16)
    assert changed.epochs == 3
    assert changed.data == load_recipe("digits").data


def test_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("digits").epochs = 3


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_any_notation_of_a_learning_rate_is_a_number(rate: float) -> None:
    for text in (repr(rate), f"{rate:e}", f"{rate:.17e}".upper(), f"+{rate!r}"):
        read = load_recipe("digits", [f"optimiser.learning_rate={text}"]).optimiser
        assert read == AdamOptions(name="adam", learning_rate=float(text))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    small = st.integers(1, 100)
    return load_recipe(
        "digits",
        [
            f"seed={draw(st.integers(0, 2**32 - 1))}",
            f"epochs={draw(small)}",
            f"model.channels={draw(st.lists(small, min_size=1, max_size=8))}",
            f"model.dropout={draw(st.floats(0, 0.99))!r}",
            f"quantization.budget={draw(st.floats(0, 100))!r}",
        ],
    )


@given(recipes())
def test_dumped_recipe_is_read_back_the_same(some: Recipe) -> None:
    assert schema.validate_recipe(schema.parse_yaml(dump_recipe(some), "dump"), "dump") == some
