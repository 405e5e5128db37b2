"""What the job's command line names: recipes that lie in the store, and runs that nobody wants any more."""

from pathlib import Path

import msgspec
import pytest

from functions.train.__main__ import main
from functions.train.errors import CancelledError
from functions.train.run_setup import load_command_recipe, refuse_cancelled_run
from pilotlight.errors import InvalidInputError, NotFoundError
from pilotlight.recipes.schema import BUILTIN_FOLDER, dump_recipe, load_recipe
from pilotlight.storage.object_store import ObjectStore, open_store
from pilotlight.training_runs import jobs, run_store
from pilotlight.training_runs.jobs import StopRequest, TrainingJob

KEY = "runs/monday/recipe.yaml"
JOB = TrainingJob(launcher="batch", id="4c75", by="ann", asked="2026-11-25T15:00:00+00:00")
STOP = StopRequest("bob", "2026-11-25T16:00:00+00:00", "wrong data")


def test_a_recipe_lies_in_the_store_beside_the_data_of_the_recipes_of_record(store: ObjectStore) -> None:
    store.put(KEY, dump_recipe(load_recipe("iris")).encode())
    recipe, folder = load_command_recipe(f"store:{KEY}", ["epochs=3"], store)
    assert (recipe, folder) == (load_recipe("iris", ["epochs=3"]), BUILTIN_FOLDER)


def test_a_file_is_a_recipe_with_its_own_folder(tmp_path: Path, store: ObjectStore) -> None:
    (tmp_path / "mine.yaml").write_text(dump_recipe(load_recipe("digits")))
    assert load_command_recipe(str(tmp_path / "mine.yaml"), [], store) == (load_recipe("digits"), tmp_path)
    assert load_command_recipe("digits", [], store)[1] == BUILTIN_FOLDER


def test_what_a_sent_recipe_may_not_name_the_job_refuses_too(store: ObjectStore) -> None:
    code = load_recipe("digits", ["model={architecture: custom, factory: 'os:system'}"])
    for recipe in (code, load_recipe("iris", ["data.path=/etc/mine.csv"])):
        store.put(KEY, dump_recipe(recipe).encode())
        with pytest.raises(InvalidInputError):
            load_command_recipe(f"store:{KEY}", [], store)


def test_a_recipe_that_is_not_there(store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFoundError, match="There is nothing at"):
        load_command_recipe(f"store:{KEY}", [], store)
    assert main([f"store:{KEY}", "--store", str(tmp_path / "empty")]) == 1
    assert "There is nothing at" in capsys.readouterr().err


@pytest.mark.parametrize("own", ["4c75", "4c75#0"])
def test_a_cancelled_job_is_not_gone_on_with(store: ObjectStore, own: str) -> None:
    jobs.open_job_document(store, "monday").create(JOB)
    refuse_cancelled_run(store, "monday", {"AWS_BATCH_JOB_ID": own})
    jobs.open_job_document(store, "monday").update(lambda job: msgspec.structs.replace(job, stop=STOP))
    with pytest.raises(CancelledError, match="'monday' was cancelled by bob: wrong data"):
        refuse_cancelled_run(store, "monday", {"AWS_BATCH_JOB_ID": own})


def test_another_job_of_a_run_that_was_cancelled_goes_on(store: ObjectStore) -> None:
    jobs.open_job_document(store, "monday").create(msgspec.structs.replace(JOB, stop=STOP))
    refuse_cancelled_run(store, "monday", {"AWS_BATCH_JOB_ID": "next"})
    refuse_cancelled_run(store, "monday", {})
    refuse_cancelled_run(store, None, {"AWS_BATCH_JOB_ID": "4c75"})


def test_a_further_attempt_ends_with_one_which_batch_does_not_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path))
    store.put(run_store.run_path("monday", "recipe.yaml"), dump_recipe(load_recipe("digits")).encode())
    jobs.open_job_document(store, "monday").create(msgspec.structs.replace(JOB, stop=STOP))
    monkeypatch.setenv("AWS_BATCH_JOB_ID", "4c75")
    assert main([f"store:{KEY}", "--run", "monday", "--store", str(tmp_path)]) == 1
    assert "was cancelled by bob" in capsys.readouterr().err
