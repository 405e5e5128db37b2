"""One training run from start to end, in the order of the laboratory protocol."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from functions.train import feature_profile, ngram
from functions.train.data import dataset as data
from functions.train.data.dataset import Splits
from functions.train.data.files import Place
from functions.train.data.folds import Folds
from functions.train.distributed import consensus
from functions.train.distributed.process_group import ALONE, World, part
from functions.train.evaluation import learning_curves, plots, quantization_report, sample
from functions.train.evaluation.metrics import judge, shown
from functions.train.export import golden, parity
from functions.train.export.artifacts import Product
from functions.train.export.onnx_export import export
from functions.train.export.quantization_search import Ladder, kept
from functions.train.models import build, custom
from functions.train.progress import Progress
from functions.train.publish import publish
from functions.train.revision import revision
from functions.train.run_folder import Journal
from functions.train.training import precision
from functions.train.training.checkpoint_policy import Keeper
from functions.train.training.epoch import EarlyStopping, Epoch, History
from functions.train.training.interruption import Interruption
from functions.train.training.step import device
from functions.train.training.trainer import Trainer, predict, seeded, train
from pilotlight.contracts.manifest import Manifest, Precision, Reference, Training, decode, encode
from pilotlight.recipes.options.model import CustomOptions
from pilotlight.recipes.schema import Recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import ObjectStore


@dataclass(frozen=True)
class Outcome:
    """A run that ended well."""

    reference: Reference
    run: str  # its folder below runs/ in the store
    manifest: Manifest
    report: quantization_report.Report
    history: History
    seconds: dict[str, float]  # of each stage
    folds: Folds | None = None  # where the recipe asks for a cross-validation


def run(
    recipe: Recipe,
    store: ObjectStore,
    progress: Progress,
    name: str | None = None,
    interruption: Interruption | None = None,
    beside: Path = Path(),
    world: World = ALONE,
) -> Outcome:
    """Make a version of what a recipe describes, and keep a journal of how that goes.

    Under the name of an earlier run it goes on where that was killed, or says again what that published.
    `beside` is the recipe's folder: there begin the paths of data, and there lies a model of the user's own.
    Of a `world` of several processes this is the lead; the others `follow`.
    """
    journal, place = Journal(store, recipe, name), Place(beside, store)
    progress.show(f"run {journal.run}")
    reference = journal.published
    if consensus.published(world, known=reference is not None) and reference:
        return again(reference, journal, recipe, store)
    with journal.life():
        return proceed(recipe, store, progress, journal, interruption or Interruption(), place, world)


def proceed(
    recipe: Recipe,
    store: ObjectStore,
    progress: Progress,
    journal: Journal,
    interruption: Interruption,
    place: Place,
    world: World,
) -> Outcome:
    """Train, evaluate, export, check, quantize, measure and publish.

    Nothing is visible in the registry unless every stage succeeds. Long on purpose: the protocol reads downwards.
    """
    with progress.stage("data") as say:
        splits = data.shared(recipe.data, place)
        feature_profile.check(recipe.capture, splits.train)
        journal.data(splits)
        say(f"{recipe.data.name}: {sizes(splits)}")
        if splits.train.cleaning:
            say(str(splits.train.cleaning))
        consensus.same_data(world, splits, recipe.data.name)
    source = None
    if isinstance(recipe.model, CustomOptions):
        with progress.stage("model") as say:
            source = tried(recipe, recipe.model, splits, place.folder)
            journal.factory(source)
            say(f"{recipe.model.factory} takes, gives and exports what it should")
    keep = keeping(journal, recipe, progress, interruption, world)
    crossed = None
    if recipe.folds:
        with progress.stage("folds") as say:
            crossed = cross_validate(recipe, journal, progress, keep, place, world)
            say(str(crossed))
    with progress.stage("train") as say:
        watch, keeper = watching(recipe, progress, journal), keep("checkpoints")
        network, history = fit(recipe, data.scaled(splits), watch, keeper, place.folder, world)
        part()
        network = build.unscaled(network, splits.train)
        where = device_name() if world.size == 1 else f"{world.size} x {device_name()}"
        say(f"{len(history.epochs)} epochs on {where}, kept epoch {history.best.number}")
    with progress.stage("evaluate") as say:
        result = judge(predict(network, splits.test.inputs), splits.test)
        found = f"{splits.test.metric} {shown(splits.test.metric, result.metrics[splits.test.metric])}"
        drawn = {
            "curves.png": learning_curves.draw(history, f"{recipe.name}: {found} on {len(splits.test)} test examples")
        }
        journal.pictures(drawn)
        say(f"{found} on the test set")
    baseline = None
    if splits.test.text:
        with progress.stage("baseline") as say:
            baseline = ngram.baseline(splits)
            say(str(baseline))
        with progress.stage("sample") as say:
            journal.sample(written := sample.write(network, splits.test.text.tokenizer, splits.test.inputs[0]))
            say(written)
    with TemporaryDirectory(prefix="pilotlight-train-") as folder:
        graphs: dict[Precision, Path] = {"fp32": Path(folder, "model.fp32.onnx")}
        with progress.stage("export") as say:
            opset = export(network, splits.train, recipe.export, graphs["fp32"])
            say(f"opset {opset}, {graphs['fp32'].stat().st_size:,} bytes")
        with progress.stage("parity") as say:
            agreed = parity.check(network, graphs["fp32"], splits.validation.inputs, recipe.export.tolerance)
            say(f"within {agreed.max_abs:.2g} of the model at batches {', '.join(map(str, agreed.batches))}")
            if agreed.lengths:
                say(f"each at lengths {', '.join(map(str, agreed.lengths))}")
        with progress.stage("quantize") as say:
            ladder = Ladder(graphs["fp32"], splits.calibration.inputs, splits.validation, recipe.quantization)
            rungs = ladder.climb(Path(folder, "model.smaller.onnx"))
            small = kept(rungs).precision
            graphs[small] = Path(folder, "model.smaller.onnx").rename(Path(folder, f"model.{small}.onnx"))
            say(f"{graphs[small].stat().st_size:,} bytes, {len(splits.calibration)} training examples to calibrate")
            say(f"{len(rungs)} tried")
        with progress.stage("report") as say:
            measured = quantization_report.compare(
                graphs, splits.test, splits.calibration, ladder.budget, rungs, baseline
            )
            drawn |= plots.draw(measured, graphs[measured.serve], splits.test, recipe.name)
            journal.pictures(drawn)
            say(measured.verdict)
        with progress.stage("golden") as say:
            recorded = golden.record(graphs[measured.serve], measured.serve, splits.test)
            golden.replay(encode(recorded), graphs[measured.serve])
            say(f"{len(recorded.exchanges)} requests recorded and repeated")
        with progress.stage("publish") as say:
            session = open_session(str(graphs["fp32"]))
            product = Product(
                recipe=recipe,
                run=journal.run,
                graphs=graphs,
                inputs=session.inputs,
                outputs=session.outputs,
                opset=opset,
                parity=agreed,
                report=measured,
                golden=recorded,
                splits=splits,
                folds=crossed,
                pictures=drawn,
                training=provenance(recipe, splits, history),
                preprocessing=build.scaling(network, build.Standardise, build.entering_names(splits.train)),
                postprocessing=build.scaling(network, build.Rescale, ("prediction",)),
                source=source,
            )
            manifest = publish(product, Registry(store))
            say(f"{manifest.name}:{manifest.version} in {store.url}")
    reference = Reference(manifest.name, manifest.version)
    journal.publish(reference)
    keep("checkpoints").clear()
    return Outcome(reference, journal.run, manifest, measured, history, dict(progress.seconds), crossed)


def again(reference: Reference, journal: Journal, recipe: Recipe, store: ObjectStore) -> Outcome:
    """The outcome of a run that has published already, from what it left."""
    registry = Registry(store)
    manifest = registry.manifest(reference.name, registry.resolve(reference))
    path = version_path(manifest.name, manifest.version, "report.json")
    measured = decode(store.get(path).data, quantization_report.Report, path)
    epochs, stopping = journal.epochs, EarlyStopping(recipe.early_stopping)
    history = History(tuple(epochs), stopping.replay(epochs))
    return Outcome(reference, journal.run, manifest, measured, history, {}, journal.folds if recipe.folds else None)


def sizes(splits: Splits) -> str:
    """How many examples each set has; of a text, tokens."""
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = {name: len(part.text.stream if part.text else part) for name, part in sets.items()}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) + (" tokens" if splits.train.text else "")


def keeping(
    journal: Journal, recipe: Recipe, progress: Progress, interruption: Interruption, world: World = ALONE
) -> Callable[[str], Keeper]:
    """Gives the keeper of the training whose checkpoints are in a folder of the run."""

    def look(trainer: Trainer) -> None:
        progress.step(trainer, recipe.epochs)

    def keep(folder: str) -> Keeper:
        checkpoints = journal.checkpoints(folder)
        return Keeper(checkpoints, recipe.checkpoint, interruption, progress.show, look=look, world=world)

    return keep


def watching(recipe: Recipe, progress: Progress, journal: Journal | None = None) -> Callable[[Epoch], None]:
    """Shows epochs as they pass, and notes them in the journal."""

    def watch(epoch: Epoch) -> None:
        left = progress.epoch(epoch, recipe.epochs)
        if journal:
            journal.epoch(epoch, left)

    return watch


def cross_validate(
    recipe: Recipe,
    journal: Journal,
    progress: Progress,
    keep: Callable[[str], Keeper],
    place: Place,
    world: World,
) -> Folds:
    """Train on all folds but one, score on that one, for each; those that an earlier life has scored are known."""
    known = journal.folds
    values = list(known.values) if known else []
    dataset, left = consensus.folds_left(world, recipe, place, len(values))
    for parts in left:
        keeper = keep(f"folds/{len(values) + 1}/checkpoints")
        network, _ = fit(recipe, data.scaled(parts), watching(recipe, progress), keeper, place.folder, world)
        outputs = predict(build.unscaled(network, parts.train), parts.test.inputs)
        values.append(judge(outputs, parts.test).metrics[dataset.metric])
        journal.fold(Folds(dataset.metric, tuple(values)))
        keeper.clear()
    return Folds(dataset.metric, tuple(values))


def tried(recipe: Recipe, options: CustomOptions, splits: Splits, folder: Path) -> str:
    """The source of a model of the user's own, after one was built and tried as far as it goes without training."""
    with seeded(recipe.seed):
        network = build.build(options, splits.train, folder)
        custom.check(network, splits.train, options.factory, recipe.export)
    return custom.find(options, folder).source


def fit(
    recipe: Recipe,
    splits: Splits,
    watch: Callable[[Epoch], None],
    keeper: Keeper,
    folder: Path,
    world: World = ALONE,
) -> tuple[nn.Module, History]:
    """A model of the recipe's architecture, trained where there is a GPU on it, and the history of its epochs."""
    with seeded(recipe.seed):
        network = build.build(recipe.model, splits.train, folder)
    if world.size == 1:  # of several processes, each trains a copy
        network = network.to(device())
    history = train(network, splits, recipe, watch, keeper, world)
    return network.to(device()), history


def provenance(recipe: Recipe, splits: Splits, history: History) -> Training:
    """Where the version comes from, enough to train it again."""
    return Training(
        recipe=recipe.model_dump(mode="json"),
        data_sha256=splits.sha256,
        seed=recipe.seed,
        revision=revision(),
        device=device_name(),
        precision=precision.resolve(recipe.precision, device()),
        wall_s=sum(epoch.seconds for epoch in history.epochs),
    )


def device_name() -> str:
    """The device as the manifest names it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
