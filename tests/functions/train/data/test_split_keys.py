"""Rare classes, files of a set's own, groups and time: what determines the sets besides chance, and what is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.train.data.files import DataRoot
from functions.train.data.folds import build_fold_splits
from functions.train.data.load import load_dataset, load_splits
from functions.train.data.split import Splits, split_by_stratum, spread_edges
from functions.train.data.split_keys import OPEN, assign_groups, assign_times
from pilotlight.errors import InvalidInputError
from pilotlight.recipes.data_schema import SplitFractions, UserDataOptions
from pilotlight.recipes.restrictions import check_restrictions
from pilotlight.recipes.schema import load_recipe

THIRDS = {"train": 0.7, "validation": 0.15, "test": 0.15}
PARTS = ("train", "validation", "test")


def options(**words: Any) -> UserDataOptions:  # noqa: ANN401 - a recipe's values
    known = {"path": "mine.csv", "target": "y", "fractions": THIRDS}
    return UserDataOptions.model_validate_json(json.dumps(known | words))


def load(folder: Path, **words: Any) -> Splits:  # noqa: ANN401
    return load_splits(options(**words), DataRoot(folder))


def write(folder: Path, labels: list[str], name: str = "mine.csv", first: int = 0) -> None:
    """Write a table whose column x numbers the rows, over all files."""
    rows = "".join(f"{first + n},{(first + n) * 7 % 13},{label}\n" for n, label in enumerate(labels))
    (folder / name).write_text("x,z,y\n" + rows)


def rows(splits: Splits, name: str) -> set[int]:
    return set(getattr(splits, name).inputs[:, 0].astype(int).tolist())


def counts(splits: Splits, name: str) -> list[int]:
    part = getattr(splits, name)
    return [int((part.targets == code).sum()) for code in range(len(part.classes))]


def test_four_of_a_thousand_reach_every_set(tmp_path: Path) -> None:
    write(tmp_path, ["seldom"] * 4 + ["often", "also"] * 498)
    splits = load(tmp_path)
    assert splits.train.classes == ("also", "often", "seldom")
    assert [counts(splits, name)[2] for name in PARTS] == [2, 1, 1]


@pytest.mark.parametrize("count", [1, 2])
def test_rare_class_is_refused_with_the_ways_out(tmp_path: Path, count: int) -> None:
    write(tmp_path, ["seldom"] * count + ["often", "also"] * 50)
    with pytest.raises(
        InvalidInputError, match=rf"no example left in that set, of {count} in all; data\.rare: keep, drop"
    ):
        load(tmp_path)


def test_rare_class_is_kept_in_training_at_least(tmp_path: Path) -> None:
    write(tmp_path, ["once", "twice", "twice"] + ["often", "also"] * 50)
    splits = load(tmp_path, rare="keep")
    assert splits.train.classes == ("also", "often", "once", "twice")
    assert [counts(splits, name)[2] for name in PARTS] == [1, 0, 0]
    assert counts(splits, "train")[3] >= 1
    assert sum(len(getattr(splits, name)) for name in PARTS) == 103


def test_rare_classes_are_dropped_and_counted(tmp_path: Path) -> None:
    write(tmp_path, ["once", "twice", "twice"] + ["often", "also"] * 50)
    splits = load(tmp_path, rare="drop")
    assert splits.train.classes == ("also", "often")
    assert sum(len(getattr(splits, name)) for name in PARTS) == 100
    assert "left out 2 classes of fewer than 3 examples: once (1), twice (2); 3 examples" in splits.train.notes
    write(tmp_path, ["seldom"] * 2 + ["often"] * 50)
    with pytest.raises(InvalidInputError, match=r"data\.rare is drop, which leaves one class"):
        load(tmp_path, rare="drop")


def test_rare_classes_are_merged_into_one(tmp_path: Path) -> None:
    write(tmp_path, ["a"] * 2 + ["b"] * 2 + ["often", "also"] * 50)
    splits = load(tmp_path, rare="merge", other="rest")
    assert splits.train.classes == ("also", "often", "rest")
    assert sum(counts(splits, name)[2] for name in PARTS) == 4
    assert "merged into 'rest' 2 classes of fewer than 3 examples: a (2), b (2)" in splits.train.notes
    write(tmp_path, ["a"] * 1 + ["often", "also"] * 50)
    with pytest.raises(
        InvalidInputError, match="the rare classes have 1 examples together, of the 3 that 'other' needs"
    ):
        load(tmp_path, rare="merge")


def test_minimum_says_what_is_rare(tmp_path: Path) -> None:
    write(tmp_path, ["some"] * 9 + ["often", "also"] * 50)
    assert load(tmp_path, rare="drop").train.classes == ("also", "often", "some")
    assert load(tmp_path, rare="drop", minimum=10).train.classes == ("also", "often")
    merged = load(tmp_path, rare="merge", minimum=10, other="also")  # which is there already
    assert merged.train.classes == ("also", "often")
    assert sum(counts(merged, name)[0] for name in PARTS) == 59


def test_own_test_file_is_the_test_set(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"] * 40)
    write(tmp_path, ["a", "b"] * 10, "held.csv", 1000)
    splits = load(tmp_path, test="held.csv", fractions={"train": 0.8, "validation": 0.2})
    assert rows(splits, "test") == set(range(1000, 1020))
    assert len(splits.train) == 64
    assert not rows(splits, "train") & rows(splits, "validation")
    assert "sets with files of their own: test (20 examples)" in splits.train.notes
    write(tmp_path, ["a", "b"] * 5, "valid.csv", 2000)
    both = load(tmp_path, test="held.csv", validation="valid.csv", fractions=None)
    assert rows(both, "train") == set(range(80))
    assert rows(both, "validation") == set(range(2000, 2010))
    assert both.sha256 != splits.sha256
    assert both.test.sha256 == splits.test.sha256


def test_what_a_test_file_repeats_of_the_training_file_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"] * 40)
    (tmp_path / "held.csv").write_text("x,z,y\n3,8,b\n1000,2,a\n1001,9,b\n")
    splits = load(tmp_path, test="held.csv", fractions={"train": 0.8, "validation": 0.2})
    assert rows(splits, "test") == {1000, 1001}
    assert splits.train.cleaning is not None
    assert splits.train.cleaning.duplicates == 1


def test_own_file_may_lack_a_class_but_bring_none(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b", "c"] * 40)
    write(tmp_path, ["a", "b"] * 10, "held.csv", 1000)
    words = {"test": "held.csv", "fractions": {"train": 0.8, "validation": 0.2}}
    assert counts(load(tmp_path, **words), "test") == [10, 10, 0]
    write(tmp_path, ["a", "b", "new", "new"] * 10, "held.csv", 1000)
    with pytest.raises(
        InvalidInputError, match=r"The class 'new' occurs in the files of data\.validation or data\.test"
    ):
        load(tmp_path, **words)
    assert counts(load(tmp_path, rare="drop", **words), "test") == [10, 10, 0]


def test_own_files_are_named_when_they_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"] * 40)
    with pytest.raises(InvalidInputError, match=r"held\.csv"):
        load(tmp_path, test="held.csv", fractions={"train": 0.8, "validation": 0.2})
    (tmp_path / "held.csv").write_text("x,y\n1,a\n")
    with pytest.raises(InvalidInputError, match=r"held\.csv and mine\.csv do not have the same columns: z"):
        load(tmp_path, test="held.csv", fractions={"train": 0.8, "validation": 0.2})


def test_recipe_that_is_sent_names_own_files_in_stores_alone() -> None:
    known = "data={path: 'store:a.csv', target: y, fractions: {train: 0.8, validation: 0.2}, test: %s}"
    check_restrictions(load_recipe("iris", [known % "'store:b.csv'"]))
    for path in ("/etc/passwd", "b.csv", "'s3://b/x.csv?endpoint=http://inner'", "[ 'store:b.csv', ../x.csv]"):
        with pytest.raises(InvalidInputError, match=r"data\.test is .*, which the trainer cannot see"):
            check_restrictions(load_recipe("iris", [known % path]))


def grouped(folder: Path, count: int = 400, groups: int = 60) -> None:
    random = np.random.default_rng(0)
    who = random.integers(0, groups, count)
    lines = [f"{n},p{person},{'ab'[person % 2]}\n" for n, person in enumerate(who)]
    (folder / "mine.csv").write_text("x,patient,y\n" + "".join(lines))


def test_no_group_is_in_two_sets(tmp_path: Path) -> None:
    grouped(tmp_path)
    splits = load(tmp_path, group="patient")
    found = [set(np.unique(getattr(splits, name).keys.groups)) for name in PARTS]
    assert sum(map(len, found)) == len(set.union(*found)) == 60
    assert splits.train.features == ("x",)  # the group is not learned from
    assert [len(getattr(splits, name)) / 400 for name in PARTS] == pytest.approx([0.7, 0.15, 0.15], abs=0.03)
    assert any(note.startswith("split by groups, none of which is in two sets: ") for note in splits.train.notes)
    assert load(tmp_path, group="patient").sha256 == splits.sha256 != load(tmp_path, group="patient", seed=1).sha256


def test_group_in_files_of_two_sets_is_refused(tmp_path: Path) -> None:
    grouped(tmp_path)
    (tmp_path / "held.csv").write_text("x,patient,y\n1000,p3,a\n1001,p900,b\n")
    (tmp_path / "valid.csv").write_text("x,patient,y\n2000,p3,a\n2001,p901,b\n")
    with pytest.raises(InvalidInputError, match="1 groups, such as p3, lie in the files of both validation and test"):
        load(tmp_path, group="patient", test="held.csv", validation="valid.csv", fractions=None)
    (tmp_path / "valid.csv").write_text("x,patient,y\n2000,p902,a\n2001,p901,b\n")
    splits = load(tmp_path, group="patient", test="held.csv", fractions={"train": 0.8, "validation": 0.2})
    assert "p3" not in set(splits.train.keys.groups if splits.train.keys.groups is not None else [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=120), st.integers(0, 2**32 - 1))
def test_groups_are_whole_and_follow_the_seed(pairs: list[tuple[int, int]], seed: int) -> None:
    groups, strata = (np.array(part) for part in zip(*pairs, strict=True))
    taken = np.full(len(groups), OPEN, np.int8)
    fractions = SplitFractions(train=0.6, validation=0.2, test=0.2)
    found = assign_groups(groups, strata, fractions, np.random.default_rng(seed), taken)
    assert all(len(np.unique(found[groups == group])) == 1 for group in np.unique(groups))
    assert set(found.tolist()) <= {0, 1, 2}
    assert np.array_equal(found, assign_groups(groups, strata, fractions, np.random.default_rng(seed), taken))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=30, max_size=200))
def test_time_goes_forward_and_ties_are_not_cut(times: list[int]) -> None:
    moments = np.array(times)
    fractions, taken = SplitFractions(train=0.6, validation=0.2, test=0.2), np.full(len(times), OPEN, np.int8)
    if len(set(times)) < 3:
        with pytest.raises(InvalidInputError, match=r"is too small: no time of data\.time falls in that set"):
            assign_times(moments, fractions, taken)
        return
    try:
        found = assign_times(moments, fractions, taken)
    except InvalidInputError:  # one time has most of the examples
        assert np.bincount(moments).max() > len(times) / 10
        return
    for earlier, later in ((0, 1), (1, 2)):
        assert moments[found == earlier].max() < moments[found == later].min()
    largest = np.bincount(moments).max()
    for number, share in ((0, 0.6), (2, 0.2)):
        assert abs((found == number).sum() - share * len(times)) <= largest / 2 + 0.5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([f"2026-{1 + n // 28:02}-{1 + n % 28:02}" for n in range(200)], "train 2026-01-01 to 2026-05-28"),
        ([f"2026-01-01T{n // 60:02}:{n % 60:02}:00" for n in range(200)], "train 2026-01-01 00:00:00 to"),
        ([str(1_700_000_000 + n) for n in range(200)], "train 1700000000 to 1700000139"),
    ],
)
def test_time_splits_a_table(tmp_path: Path, values: list[str], said: str) -> None:
    order = np.random.default_rng(0).permutation(200)
    lines = [f"{n},{values[n]},{'ab'[n % 2]}\n" for n in order]
    (tmp_path / "mine.csv").write_text("x,when,y\n" + "".join(lines))
    splits = load(tmp_path, time="when")
    assert rows(splits, "train") == set(range(140))
    assert rows(splits, "validation") == set(range(140, 170))
    assert rows(splits, "test") == set(range(170, 200))
    assert splits.train.features == ("x",)
    assert any(said in note for note in splits.train.notes), splits.train.notes


def test_time_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("x,when,y\n" + "".join(f"{n},day {n},{'ab'[n % 2]}\n" for n in range(50)))
    with pytest.raises(
        InvalidInputError, match=r"data\.time is 'when', which holds string, such as 'day 0'; it must hold"
    ):
        load(tmp_path, time="when")
    (tmp_path / "mine.csv").write_text("x,when,y\n" + "".join(f"{n},{n or ''},{'ab'[n % 2]}\n" for n in range(50)))
    with pytest.raises(
        InvalidInputError, match=r"row 1: 'when', which data\.time names, is missing, as in 1 of 50 rows"
    ):
        load(tmp_path, time="when")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.05, 0.9), st.floats(0.01, 0.9), st.integers(0, 99)
)
def test_rare_strata_are_spread_over_the_sets(labels: list[int], train: float, part: float, seed: int) -> None:
    validation = (1 - train) * part
    fractions = SplitFractions(train=train, validation=validation, test=1 - train - validation)
    parts = split_by_stratum(np.array(labels), fractions, np.random.default_rng(seed), spread_rare=True)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label in set(labels):
        sizes = [sum(labels[place] == label for place in part) for part in parts]
        assert sizes[0] >= 1
        assert min(sizes) >= 1 or labels.count(label) < 3


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (4, [2, 1, 1])]
)
def test_smallest_classes(count: int, sizes: list[int]) -> None:
    edges = np.rint(np.array([0.7, 0.85]) * count).astype(int)
    found = spread_edges(edges, count, SplitFractions(train=0.7, validation=0.15, test=0.15))
    assert np.diff([0, *found, count]).tolist() == sizes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"test": "b.csv"}, "test is 0.15, and data.test names its files; leave it out here"),
        ({"fractions": {"train": 0.8, "validation": 0.2}}, "test must be greater than 0"),
        ({"fractions": {"train": 1.0}}, "validation must be greater than 0"),
        ({"minimum": 5}, "it is for data.rare: drop or merge"),
        ({"group": "p", "time": "t"}, "keep one of both"),
        ({"decimal": ","}, "columns need another, such as ';'"),
        ({"path": "folder", "target": None, "group": "x"}, "of images it is folder, or a pattern"),
        ({"path": "folder", "target": None, "group": "{group}*****"}, "it must have 3 stars at most"),
        ({"path": "folder", "target": None, "time": "x"}, "it is a column of csv, parquet or jsonl"),
        ({"path": "a.npz", "group": "x"}, "it is a column of csv, parquet or jsonl"),
        ({"streaming": True, "rare": "drop"}, "a stream of tables takes no data.rare"),
        ({"streaming": True, "time": "t"}, "a stream of tables takes no data.time"),
        ({"streaming": True, "test": "b.csv", "fractions": {"train": 0.8, "validation": 0.2}}, "takes no data.test"),
    ],
)
def test_words_of_the_split_that_do_not_go_together_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options(**words)


def test_folds_are_refused_where_chance_does_not_draw_the_sets(tmp_path: Path) -> None:
    grouped(tmp_path)
    dataset = load_dataset(options(group="patient"), DataRoot(tmp_path))
    with pytest.raises(InvalidInputError, match=r"folds must be null where data\.group determines the sets"):
        build_fold_splits(dataset, 3, 0, options().fractions)


def test_class_that_groups_or_time_leave_out_is_told_with_the_key(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n // 20},{n},{'ab'[n // 20]}\n" for n in range(40))
    (tmp_path / "mine.csv").write_text("x,group,time,y\n" + rows)
    for key in ("group", "time"):
        with pytest.raises(InvalidInputError, match=rf"data\.{key} leaves the class '.' out of the \w+ set, of 20 e"):
            load(tmp_path, **{key: key})


@pytest.mark.parametrize("key", ["group", "time"])
def test_target_determines_no_set(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=r"it is data\.target too"):
        load(tmp_path, **{key: "y"})
