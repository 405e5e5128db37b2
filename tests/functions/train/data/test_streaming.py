"""A stream gives every training example once in each pass, goes on at the exact batch, and holds only so many."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.train.__main__ import main
from functions.train.data import files
from functions.train.data import shards as shards_module
from functions.train.data.cleaning import CleaningReport
from functions.train.data.files import DataRoot, fetch_object
from functions.train.data.load import load_splits
from functions.train.data.loader import compute_batch_sizes, load_batches
from functions.train.data.passes import MiniBatch
from functions.train.data.shards import assign_splits, generate_uniform
from functions.train.data.split import Splits, scale_targets
from functions.train.data.statistics import RandomSample, RunningMoments
from functions.train.data.streaming import StreamedDataset, rechunk_rows
from functions.train.distributed.process_group import ProcessGroup
from functions.train.models import build
from functions.train.training.trainer import seed_torch, train_model
from functions.train.training.training_history import TrainingHistory
from pilotlight.contracts.processing import TablePreprocessing
from pilotlight.errors import InvalidInputError, StoreError
from pilotlight.recipes.data_schema import SplitFractions, UserDataOptions
from pilotlight.recipes.schema import Recipe, load_recipe
from pilotlight.registry.registry import Registry
from pilotlight.storage.object_store import ObjectStore, open_store
from tests.functions.train.training.test_checkpoint import StopAt, assert_same, stopped

ROOT = Path(__file__).parents[4]
FRACTIONS = SplitFractions(train=0.7, validation=0.15, test=0.15)


def shards(folder: Path, count: int = 5, rows: int = 60, columns: int = 4) -> list[Path]:
    """Files of examples that hold their own number in the first column; one more row in each than in the last."""
    paths, first = [], 0
    for number in range(count):
        size = rows + number
        numbers = np.arange(first, first + size)
        values = np.random.default_rng(number).normal(3, 2, (size, columns)).astype(np.float32)
        values[:, 0] = numbers
        paths.append(folder / f"part-{number}.npz")
        np.savez(paths[-1], x=values, y=(values[:, 1] > 3).astype(np.int64))
        first += size
    return paths


def options(**words: object) -> UserDataOptions:
    known = {"path": "*.npz", "target": "y", "fractions": FRACTIONS, "streaming": True, "buffer": 50, "calibration": 20}
    return UserDataOptions.model_validate(known | words)


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    shards(tmp_path)
    return load_splits(options(), DataRoot(tmp_path))


def passes(splits: Splits) -> StreamedDataset:
    assert isinstance(splits.train.passes, StreamedDataset)
    return splits.train.passes


def batched(stream: StreamedDataset, order: torch.Tensor, size: int = 16, start: int = 0) -> Iterator[MiniBatch]:
    return stream.iterate_batches(order, compute_batch_sizes(len(stream), size)[start:], start * size)


def numbers(stream: StreamedDataset, order: torch.Tensor, size: int = 16, start: int = 0) -> list[int]:
    return [int(number) for inputs, _ in batched(stream, order, size, start) for number in inputs[:, 0]]


def test_every_example_is_in_one_set_and_a_pass_gives_each_training_example_once(splits: Splits) -> None:
    stream = passes(splits)
    given_out = numbers(stream, stream.draw_order())
    assert len(given_out) == len(set(given_out)) == len(stream) == len(splits.train)
    held = [int(number) for part in (splits.validation, splits.test) for number in part.inputs[:, 0]]
    assert sorted(given_out + held) == list(range(310))
    assert given_out != sorted(given_out)
    assert {int(number) for number in splits.calibration.inputs[:, 0]} < set(given_out)
    assert len(splits.calibration) == 20


def test_sets_and_hash_hang_on_seed_and_files_alone(tmp_path: Path, splits: Splits) -> None:
    again, other = (load_splits(options(seed=seed), DataRoot(tmp_path)) for seed in (0, 1))
    for name in ("validation", "test", "calibration"):
        assert getattr(splits, name).sha256 == getattr(again, name).sha256 != getattr(other, name).sha256
    assert splits.sha256 == again.sha256 == other.sha256
    shards(tmp_path, columns=5)
    assert load_splits(options(), DataRoot(tmp_path)).sha256 != splits.sha256


@pytest.mark.parametrize(("buffer", "size"), [(50, 16), (7, 16), (1000, 16), (64, 64), (1, 3)])
def test_pass_goes_on_at_any_batch(splits: Splits, tmp_path: Path, buffer: int, size: int) -> None:
    stream = passes(load_splits(options(buffer=buffer), DataRoot(tmp_path)))
    order = stream.draw_order()
    whole = numbers(stream, order, size)
    for start in range(0, len(whole) // size + 1, 3):
        assert numbers(stream, order, size, start) == whole[start * size :]


def test_processes_share_each_batch_of_a_stream(splits: Splits) -> None:
    order, device = passes(splits).draw_order(), torch.device("cpu")
    whole = list(load_batches(splits.train, order, 16, device, 2))
    shares = [list(load_batches(splits.train, order, 16, device, 2, ProcessGroup(rank, 2))) for rank in range(2)]
    assert len(whole) == len(compute_batch_sizes(len(splits.train), 16)) - 2
    for both, first, second in zip(whole, *shares, strict=True):
        assert abs(len(first[1]) - len(second[1])) <= 1
        for part in range(2):
            assert torch.equal(torch.cat([first[part], second[part]]), both[part])


def test_targets_stay_with_their_inputs(splits: Splits) -> None:
    stream = passes(splits)
    for inputs, targets in batched(stream, stream.draw_order()):
        assert torch.equal(targets, (inputs[:, 1] > 3).long())


def test_profile_is_that_of_the_same_examples_in_memory(splits: Splits) -> None:
    stream = passes(splits)
    held = torch.cat([inputs for inputs, _ in batched(stream, stream.draw_order())]).numpy()
    assert splits.train.statistics.input_moments.mean == pytest.approx(held.mean(axis=0), rel=1e-5)
    assert splits.train.statistics.input_moments.deviation == pytest.approx(held.std(axis=0), rel=1e-5)
    assert splits.train.statistics.class_counts.sum() == len(held)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 7))
def test_rows_are_cut_as_if_they_had_come_at_once(counts: list[int], size: int) -> None:
    total, starts = sum(counts), np.cumsum([0, *counts])
    rows = ((np.arange(a, b)[:, None], np.arange(a, b)) for a, b in pairwise(starts))
    pieces = [answers.tolist() for _, answers in rechunk_rows(rows, repeat(size))]
    assert [number for piece in pieces for number in piece] == list(range(total))
    assert {len(piece) for piece in pieces[:-1]} <= {size}


@settings(max_examples=30)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(0, 100))
def test_moments_of_parts_are_those_of_the_whole(counts: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(1e4, 3, (sum(counts) + 2, 3))
    running = RunningMoments()
    for part in np.split(values, np.cumsum(counts)):
        running.add_part(part)
    assert running.moments.mean == pytest.approx(values.mean(axis=0), rel=1e-6)
    assert running.moments.deviation == pytest.approx(values.std(axis=0), rel=1e-3)


def test_gaps_count_as_the_mean() -> None:
    running = RunningMoments()
    running.add_part(np.array([[1.0, np.nan], [3.0, 5.0]]))
    running.add_part(np.array([[np.nan, 5.0]]))
    filled = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    assert running.moments.mean == pytest.approx(filled.mean(axis=0))
    assert running.moments.deviation == pytest.approx([filled[:, 0].std(), 1])


def test_sample_is_of_the_lowest_keys_whatever_the_parts() -> None:
    keys = np.random.default_rng(0).random(100)
    whole, split = RandomSample(10), RandomSample(10)
    whole.add_part(keys, keys[:, None], keys)
    for part in np.split(keys, [1, 5, 60]):
        split.add_part(part, part[:, None], part)
    for sample in (whole, split):
        assert sample.keys is not None
        assert np.array_equal(np.sort(sample.keys), np.sort(keys)[:10])


def test_hashes_are_spread_evenly() -> None:
    values = generate_uniform(3, 10**12, 100_000)
    assert np.histogram(values, 10, (0, 1))[0] == pytest.approx(10_000, rel=0.05)
    assert np.bincount(assign_splits(0, 100_000, options())) / 1e5 == pytest.approx([0.7, 0.15, 0.15], abs=0.01)
    assert np.array_equal(generate_uniform(3, 5, 10)[2:], generate_uniform(3, 7, 8))
    assert abs(np.corrcoef(generate_uniform(3, 0, 10_000), generate_uniform(3, 0, 10_000, 1))[0, 1]) < 0.05


RECIPE = (
    "name=tiny", "epochs=3", "batch_size=16", "model={architecture: mlp, hidden: [8]}", "early_stopping.patience=9",
)  # fmt: skip


def recipe() -> Recipe:
    return load_recipe("digits", RECIPE)


def test_killed_run_over_a_stream_ends_with_the_same_weights(splits: Splits) -> None:
    def trained(start: StopAt | None = None) -> tuple[torch.nn.Module, TrainingHistory]:
        with seed_torch(0):
            network = build.build_model(recipe().model, splits.train)
        return network, train_model(network, splits, recipe(), lambda _: None, start)

    whole, history = trained()
    for step in (9, 20):  # in the first epoch and in the second
        resumed, other = trained(StopAt(-1, stopped(recipe(), splits, step)))
        assert_same((resumed, other), (whole, history))


def test_numbers_are_learned_in_their_deviations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        x = rng.normal(0, 1, (200, 3))
        np.savez(tmp_path / f"{number}.npz", x=x, y=1000 + 50 * x[:, 0])
    found = scale_targets(load_splits(options(), DataRoot(tmp_path)))
    stream = passes(found)
    targets = torch.cat([targets for _, targets in batched(stream, stream.draw_order())])
    assert (targets.dtype, targets.shape[1]) == (torch.float32, 1)
    assert [float(targets.mean()), float(targets.std(correction=0))] == pytest.approx([0, 1], abs=1e-3)
    assert abs(float(found.validation.targets.mean())) < 0.3


def test_tables_are_streamed_too_and_their_text_is_refused(tmp_path: Path) -> None:
    for number in range(4):
        rows = "".join(f"{n},{n % 7},7,{'yes' if n % 2 else 'no'}\n" for n in range(30 * number, 30 * number + 30))
        (tmp_path / f"{number}.csv").write_text("id,a,same,y\n" + rows + ",1,7,yes\n")
    found = load_splits(options(path="*.csv"), DataRoot(tmp_path))
    assert (found.train.features, found.train.classes) == (("id", "a"), ("no", "yes"))
    assert found.train.cleaning == CleaningReport(124, missing=4, duplicates=None, constant=("same",))
    held = [int(number) for part in (found.validation, found.test) for number in part.inputs[:, 0]]
    assert sorted(numbers(passes(found), passes(found).draw_order()) + held) == list(range(120))
    for inputs, targets in batched(passes(found), passes(found).draw_order()):
        assert torch.equal(targets, inputs[:, 0].long() % 2)
    (tmp_path / "4.csv").write_text("id,a,same,y\n1,red,7,no\n")
    with pytest.raises(
        InvalidInputError, match=r"4\.csv: column 'a' holds text, such as 'red', which a stream does not"
    ):
        load_splits(options(path="*.csv"), DataRoot(tmp_path))


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_whole_numbers_are_classes_in_a_stream_too(tmp_path: Path, dtype: type) -> None:
    for number in range(3):
        values = np.random.default_rng(number).normal(size=(80, 2))
        np.savez(tmp_path / f"{number}.npz", x=values, y=(values[:, 0] > 0).astype(dtype))
    found = load_splits(options(), DataRoot(tmp_path)).train
    assert found.classes == ("0", "1")
    assert (
        "target 'y': 2 classes (0, 1), since its numbers are whole and few; data.task: number makes it"
        in found.notes[0]
    )


def test_rare_class_of_a_stream_may_be_kept(tmp_path: Path) -> None:
    targets = ["often", "also"] * 60
    for seed in range(20):  # until the one example is drawn for training
        np.savez(tmp_path / "0.npz", x=np.random.default_rng(0).normal(size=(121, 2)), y=np.array([*targets, "once"]))
        if assign_splits(120, 1, options(seed=seed))[0] == 0:
            break
    with pytest.raises(
        InvalidInputError, match=r"the class 'once' has no example left in that set, of 1 in all; data\.rare"
    ):
        load_splits(options(seed=seed), DataRoot(tmp_path))
    assert "once" in load_splits(options(seed=seed, rare="keep"), DataRoot(tmp_path)).train.classes


def test_too_many_held_examples_are_refused(tmp_path: Path) -> None:
    shards(tmp_path)
    with pytest.raises(InvalidInputError, match=r"fractions\.\w+ is 0\.15, which is .* data\.held lets only 30"):
        load_splits(options(held=30), DataRoot(tmp_path))


class Faulty(ObjectStore):
    """A store whose objects break off in the middle, as often as it is told."""

    def __init__(self, folder: Path) -> None:
        inner = open_store(str(folder))
        super().__init__(inner.url, inner._store)
        self.faults, self.truncated = 0, 0

    def stream(self, path: str, chunk_bytes: int = 8 << 20) -> Iterator[memoryview]:
        whole = b"".join(bytes(chunk) for chunk in super().stream(path, chunk_bytes))
        if self.faults:
            self.faults -= 1
            yield memoryview(whole[: len(whole) // 2])
            raise StoreError(f"The store failed at {path}: 500")
        if self.truncated:
            self.truncated -= 1
            whole = whole[: len(whole) // 2]
        yield memoryview(whole)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Faulty, StreamedDataset]:
    monkeypatch.setattr(files, "PAUSE_S", 0)
    monkeypatch.setattr("functions.train.data.shards.PAUSE_S", 0)
    shards(tmp_path)
    store = Faulty(tmp_path)
    return store, passes(load_splits(options(path="store:*.npz"), DataRoot(store=store)))


def test_store_that_fails_once_in_the_middle_is_asked_again(faulty: tuple[Faulty, StreamedDataset]) -> None:
    store, stream = faulty
    order = stream.draw_order()
    expected = numbers(stream, order)
    store.faults = 2
    assert numbers(stream, order) == expected
    store.truncated = 2
    assert numbers(stream, order) == expected
    assert (store.faults, store.truncated) == (0, 0)


def test_epoch_is_never_shortened_in_silence(faulty: tuple[Faulty, StreamedDataset], tmp_path: Path) -> None:
    store, stream = faulty
    store.faults = 99
    with pytest.raises(StoreError, match="500"):
        numbers(stream, stream.draw_order())
    store.faults, store.truncated = 0, 99
    with pytest.raises(StoreError, match=r"The store gave [\d,]+ of the [\d,]+ bytes of part-\d\.npz"):
        numbers(stream, stream.draw_order())
    store.truncated = 0
    (tmp_path / "part-3.npz").unlink()
    with pytest.raises(InvalidInputError, match=r"There is nothing at .*part-3\.npz"):
        numbers(stream, stream.draw_order())


def test_shard_that_is_broken_from_the_start_is_named(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    paths[2].write_bytes(paths[2].read_bytes()[:300])
    with pytest.raises(InvalidInputError, match=r"part-2\.npz cannot be read as NPZ"):
        load_splits(options(), DataRoot(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros((9, 3)), "y": np.arange(9)}, "other columns, or examples of another shape, than part-0"),
        ({"x": np.zeros((9, 4)), "y": np.array(["a"] * 9)}, "text in some shards and numbers in others"),
        ({"x": np.zeros((9, 4)), "z": np.arange(9)}, "has no array 'y'"),
    ],
)
def test_shard_that_does_not_go_with_the_others_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    shards(tmp_path)
    np.savez(tmp_path / "part-9.npz", **change)
    with pytest.raises(InvalidInputError, match=said):
        load_splits(options(), DataRoot(tmp_path))


STREAMED = (
    "data={path: 'store:sets/*.npz', target: y, streaming: true, buffer: 64, missing: mean, calibration: 32, "
    "fractions: {train: 0.7, validation: 0.15, test: 0.15}}"
)


def test_command_trains_over_shards_in_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sets").mkdir()
    shards(tmp_path / "sets")
    words = [*RECIPE, STREAMED, "quantization={scheme: dynamic, budget: 100}"]
    assert main(["digits", "--store", str(tmp_path), "--set", *words, "--run", "r"]) == 0
    out, err = capsys.readouterr()
    assert out == "tiny:1\n"
    assert "left out of 310 rows: 0 with missing values, duplicates were not looked for" in err
    manifest = Registry(open_store(str(tmp_path))).load_manifest("tiny", 1)
    assert isinstance(manifest.preprocess, TablePreprocessing)
    assert [column.name for column in manifest.preprocess.columns] == ["x0", "x1", "x2", "x3"]
    assert main(["digits", "--store", str(tmp_path), "--set", *words, "batch_size=full"]) == 2
    assert capsys.readouterr().err.endswith("it must be a number where data.streaming is true.\n")
    assert main(["digits", "--store", str(tmp_path), "--set", *words, "folds=3"]) == 2
    assert "folds is 3; it must be null where data.streaming is true" in capsys.readouterr().err


PEAK = """
import resource, sys
from pathlib import Path
from functions.train.data.load import load_splits
from functions.train.data.loader import compute_batch_sizes
from pilotlight.recipes.data_schema import SplitFractions, UserDataOptions
from pilotlight.storage.object_store import open_store
from functions.train.data.files import DataRoot, fetch_object
fractions = SplitFractions(train=0.96, validation=0.02, test=0.02)
for path in (("0000.npz", "0001.npz", "0002.npz", "0003.npz"), "*.npz"):
    options = UserDataOptions(path=path, target="y", fractions=fractions, streaming=True, buffer=1000, calibration=50)
    stream = load_splits(options, DataRoot(Path(sys.argv[1]))).train.passes
    sizes = compute_batch_sizes(len(stream), 100)
    count = sum(len(targets) for _, targets in stream.iterate_batches(stream.draw_order(), sizes, 0))
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(1000, 500)).astype(np.float32)
    first = tmp_path / "0000.npz"
    np.savez(first, x=values, y=(values[:, 0] > 0).astype(np.int64))
    for number in range(1, 60):
        (tmp_path / f"{number:04}.npz").hardlink_to(first)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/core")])}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    few, many = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert many[0] == pytest.approx(15 * few[0], rel=0.02)  # 8 and 120 MB, of which 2 MB are the buffer
    assert many[1] - few[1] < 25_000  # kB; the held sets grow by 4 MB


def test_file_of_several_parts_is_fetched(tmp_path: Path) -> None:
    """More than a part is hashed from the file itself, which must be open for reading."""
    store, content = open_store("memory://"), bytes(range(256)) * 40_000
    store.put("data/large.bin", content)
    fetch_object(store, "data/large.bin", tmp_path / "large.bin")
    assert (tmp_path / "large.bin").read_bytes() == content


def stream_of_texts(folder: Path, shards: list[list[str]]) -> Splits:
    """A stream of Parquet files, whose targets are texts."""
    for number, words in enumerate(shards):
        inputs = np.random.default_rng(number).normal(size=len(words))
        pyarrow.parquet.write_table(pa.table({"a": inputs, "y": words}), folder / f"{number}.parquet")
    data = {"path": f"{folder}/*.parquet", "target": "y", "streaming": True}
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2}
    return load_splits(UserDataOptions.model_validate_json(json.dumps(data | {"fractions": fractions})), DataRoot())


def test_numbers_that_are_texts_are_scaled_as_numbers_are(tmp_path: Path) -> None:
    shards = [[f"{100 + n / 7:.3f}" for n in range(300)] for _ in range(2)]
    moments = stream_of_texts(tmp_path, shards).train.statistics.target_moments
    assert moments.mean == pytest.approx([121.5], abs=2)
    assert moments.deviation == pytest.approx([12.4], abs=2)


@pytest.mark.parametrize("word", ["n/a", "nan"])
def test_a_late_text_among_numbers_is_told_with_its_row(tmp_path: Path, word: str) -> None:
    shards = [[f"{n / 7:.3f}" for n in range(1100)], [*[f"{n / 9:.3f}" for n in range(50)], word]]
    with pytest.raises(InvalidInputError, match=rf"^1\.parquet, row 51: the target is '{word}', and others"):
        stream_of_texts(tmp_path, shards)


def test_too_many_classes_of_a_stream_are_told_with_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="more than 1,000 different values, such as 'id0', which are too many"):
        stream_of_texts(tmp_path, [[f"id{n}" for n in range(1100)]])


@pytest.mark.parametrize("change", [lambda file: file.unlink(), lambda file: file.write_bytes(b"other")])
def test_a_shard_that_is_gone_or_another_is_refused(
    tmp_path: Path, splits: Splits, change: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "PAUSE_S", 0)
    stream = splits.train.passes
    assert isinstance(stream, StreamedDataset)
    change(tmp_path / "part-2.npz")
    with pytest.raises(StoreError, match=r"The shard part-2\.npz is not what it was when this run first read it"):
        list(batched(stream, stream.draw_order()))


def test_stream_of_tables_leaves_the_index_out_as_in_memory(tmp_path: Path) -> None:
    for number in range(3):
        rows = "".join(f"{n},{n * 7 % 40 + number}.5,{n % 2}\n" for n in range(40))
        (tmp_path / f"{number}.csv").write_text(",a,y\n" + rows)
    streamed = load_splits(options(path="*.csv"), DataRoot(tmp_path)).train
    whole = load_splits(options(path="*.csv", streaming=False), DataRoot(tmp_path)).train
    assert streamed.features == whole.features == ("a",)
    note = "left out the index in column ''"
    assert note in streamed.notes
    assert note in whole.notes
