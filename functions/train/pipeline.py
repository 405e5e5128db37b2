"""One training run from start to end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from functions.train import feature_profile
from functions.train.data.files import DataRoot
from functions.train.data.folds import FoldScores
from functions.train.data.load import load_splits
from functions.train.data.split import Splits, scale_targets
from functions.train.distributed import consensus
from functions.train.distributed.process_group import SINGLE_PROCESS, ProcessGroup, leave_process_group
from functions.train.evaluation import learning_curves, plots, quantization_report
from functions.train.evaluation.metrics import evaluate_outputs, format_metric, sample_text
from functions.train.export import golden, parity
from functions.train.export.artifacts import TrainingArtifacts
from functions.train.export.onnx_export import export_onnx
from functions.train.export.quantization_search import QuantizationSearch, select_best_candidate
from functions.train.models import build, custom
from functions.train.progress import ProgressReporter
from functions.train.publish import get_code_revision, publish_artifacts
from functions.train.run_folder import RunFolder
from functions.train.training import precision
from functions.train.training.checkpoint_policy import CheckpointPolicy
from functions.train.training.epoch import EarlyStopping, Epoch, TrainingHistory
from functions.train.training.interruption import Interruption
from functions.train.training.step import get_process_device
from functions.train.training.trainer import Trainer, predict_outputs, seed_torch, train_model
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import Manifest, Precision, TrainingRecord
from pilotlight.contracts.names import ModelReference
from pilotlight.recipes.schema import CustomOptions, Recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.session import open_session
from pilotlight.storage.object_store import ObjectStore


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run that published."""

    reference: ModelReference
    run_name: str  # its folder below runs/ in the store
    manifest: Manifest
    report: quantization_report.QuantizationReport
    history: TrainingHistory
    seconds: dict[str, float]  # of each stage
    folds: FoldScores | None = None  # where the recipe asks for a cross-validation


def run_recipe(
    recipe: Recipe,
    store: ObjectStore,
    progress: ProgressReporter,
    run_name: str | None = None,
    interruption: Interruption | None = None,
    recipe_folder: Path = Path(),
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> RunOutcome:
    """Make a version from a recipe, and record the run in its folder.

    Under the name of an earlier run, this resumes it, or returns its outcome where it has published. `recipe_folder` is
    the recipe's folder: paths of data are relative to it, and a custom model is in it. Of a `process_group` of several
    processes this is the main one; the others run `worker`.
    """
    run_folder, data_root = RunFolder(store, recipe, run_name), DataRoot(recipe_folder, store)
    progress.show(f"run {run_folder.run_name}")
    reference = run_folder.published_version
    if consensus.is_run_published(process_group, published=reference is not None) and reference:
        return load_outcome(reference, run_folder, recipe, store)
    with run_folder.track_status():
        return run_stages(recipe, store, progress, run_folder, interruption or Interruption(), data_root, process_group)


def run_stages(
    recipe: Recipe,
    store: ObjectStore,
    progress: ProgressReporter,
    run_folder: RunFolder,
    interruption: Interruption,
    data_root: DataRoot,
    process_group: ProcessGroup,
) -> RunOutcome:
    """Train, evaluate, export, check, quantize, measure and publish.

    Nothing is visible in the registry unless every stage succeeds. Long on purpose: the stages read from top to bottom.
    """
    with progress.stage("data") as say:
        splits = load_splits(recipe.data, data_root)
        feature_profile.check_capture_options(recipe.capture, splits.train)
        run_folder.record_data(splits)
        say(f"{recipe.data.name}: {format_split_sizes(splits)}")
        if splits.train.cleaning:
            say(str(splits.train.cleaning))
        consensus.check_same_data(process_group, splits, recipe.data.name)
    source = None
    if isinstance(recipe.model, CustomOptions):
        with progress.stage("model") as say:
            source = check_custom_model(recipe, recipe.model, splits, data_root.folder)
            run_folder.record_factory(source)
            say(f"{recipe.model.factory} takes, gives and exports what it should")
    create_policy = create_checkpoint_policies(run_folder, recipe, progress, interruption, process_group)
    folds = None
    if recipe.folds:
        with progress.stage("folds") as say:
            folds = cross_validate(recipe, run_folder, progress, create_policy, data_root, process_group)
            say(str(folds))
    with progress.stage("train") as say:
        on_epoch, checkpoint_policy = create_epoch_callback(recipe, progress, run_folder), create_policy("checkpoints")
        network, history = build_and_train(
            recipe, scale_targets(splits), on_epoch, checkpoint_policy, data_root.folder, process_group
        )
        leave_process_group()
        network = build.restore_scale(network, splits.train)
        device_label = get_device_name() if process_group.size == 1 else f"{process_group.size} x {get_device_name()}"
        say(f"{len(history.epochs)} epochs on {device_label}, kept epoch {history.best_epoch.number}")
    with progress.stage("evaluate") as say:
        result = evaluate_outputs(predict_outputs(network, splits.test.inputs), splits.test)
        metric_text = f"{splits.test.metric} {format_metric(splits.test.metric, result.metrics[splits.test.metric])}"
        plot_files = {
            "curves.png": learning_curves.draw_learning_curves(
                history, f"{recipe.name}: {metric_text} on {len(splits.test)} test examples"
            )
        }
        run_folder.write_plots(plot_files)
        say(f"{metric_text} on the test set")
    if splits.test.text:
        with progress.stage("sample") as say:
            run_folder.write_sample(
                generated_text := sample_text(network, splits.test.text.tokenizer, splits.test.inputs[0])
            )
            say(generated_text)
    with TemporaryDirectory(prefix="pilotlight-train-") as folder:
        graphs: dict[Precision, Path] = {"fp32": Path(folder, "model.fp32.onnx")}
        with progress.stage("export") as say:
            opset = export_onnx(network, splits.train, recipe.export, graphs["fp32"])
            say(f"opset {opset}, {graphs['fp32'].stat().st_size:,} bytes")
        with progress.stage("parity") as say:
            parity_result = parity.check_parity(
                network, graphs["fp32"], splits.validation.inputs, recipe.export.tolerance
            )
            say(
                f"within {parity_result.max_abs:.2g} of the model at batches "
                f"{', '.join(map(str, parity_result.batches))}"
            )
            if parity_result.lengths:
                say(f"each at lengths {', '.join(map(str, parity_result.lengths))}")
        with progress.stage("quantize") as say:
            search = QuantizationSearch(
                graphs["fp32"], splits.calibration.inputs, splits.validation, recipe.quantization
            )
            candidates = search.search(Path(folder, "model.smaller.onnx"))
            small = select_best_candidate(candidates).precision
            graphs[small] = Path(folder, "model.smaller.onnx").rename(Path(folder, f"model.{small}.onnx"))
            say(f"{graphs[small].stat().st_size:,} bytes, {len(splits.calibration)} training examples to calibrate")
            say(f"{len(candidates)} tried")
        with progress.stage("report") as say:
            baseline = quantization_report.load_recorded_baseline(recipe.data)
            comparison = quantization_report.compare_variants(
                graphs, splits.test, splits.calibration, search.budget, candidates, baseline
            )
            plot_files |= plots.draw_diagnosis_plots(comparison, graphs[comparison.serve], splits.test, recipe.name)
            run_folder.write_plots(plot_files)
            say(comparison.verdict)
        with progress.stage("golden") as say:
            golden_requests = golden.record_test_requests(graphs[comparison.serve], comparison.serve, splits.test)
            golden.verify_recorded_answers(encode_document(golden_requests), graphs[comparison.serve])
            say(f"{len(golden_requests.exchanges)} requests recorded and repeated")
        with progress.stage("publish") as say:
            session = open_session(str(graphs["fp32"]))
            artifacts = TrainingArtifacts(
                recipe=recipe,
                run_name=run_folder.run_name,
                graphs=graphs,
                inputs=session.inputs,
                outputs=session.outputs,
                opset=opset,
                parity=parity_result,
                report=comparison,
                golden=golden_requests,
                splits=splits,
                folds=folds,
                plots=plot_files,
                training=build_provenance(recipe, splits, history),
                preprocessing=build.find_scaling(network, build.Standardise, build.name_network_inputs(splits.train)),
                postprocessing=build.find_scaling(network, build.Rescale, ("prediction",)),
                source=source,
            )
            manifest = publish_artifacts(artifacts, Registry(store))
            say(f"{manifest.name}:{manifest.version} in {store.url}")
    reference = ModelReference(manifest.name, manifest.version)
    run_folder.record_version(reference)
    create_policy("checkpoints").delete_all()
    return RunOutcome(
        reference, run_folder.run_name, manifest, comparison, history, dict(progress.stage_seconds), folds
    )


def load_outcome(reference: ModelReference, run_folder: RunFolder, recipe: Recipe, store: ObjectStore) -> RunOutcome:
    """Load the outcome of a run that has published already."""
    registry = Registry(store)
    manifest = registry.load_manifest(reference.name, registry.resolve_reference(reference))
    path = version_path(manifest.name, manifest.version, "report.json")
    comparison = decode_document(store.get(path).data, quantization_report.QuantizationReport, path)
    epochs, stopping = run_folder.epochs, EarlyStopping(recipe.early_stopping)
    history = TrainingHistory(tuple(epochs), stopping.replay_epochs(epochs))
    return RunOutcome(
        reference, run_folder.run_name, manifest, comparison, history, {}, run_folder.folds if recipe.folds else None
    )


def format_split_sizes(splits: Splits) -> str:
    """Format how many examples each set has; of a text, how many tokens."""
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counts = {name: len(part.text.tokens if part.text else part) for name, part in sets.items()}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) + (" tokens" if splits.train.text else "")


def create_checkpoint_policies(
    run_folder: RunFolder,
    recipe: Recipe,
    progress: ProgressReporter,
    interruption: Interruption,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Callable[[str], CheckpointPolicy]:
    """Return a function that creates the policy for the checkpoints in a folder of the run."""

    def look(trainer: Trainer) -> None:
        progress.show_step(trainer, recipe.epochs)

    def keep(folder: str) -> CheckpointPolicy:
        checkpoints = run_folder.open_checkpoints(folder)
        return CheckpointPolicy(
            checkpoints, recipe.checkpoint, interruption, progress.show, on_step=look, process_group=process_group
        )

    return keep


def create_epoch_callback(
    recipe: Recipe, progress: ProgressReporter, run_folder: RunFolder | None = None
) -> Callable[[Epoch], None]:
    """Return a function that shows an epoch and records it in the run's folder."""

    def watch(epoch: Epoch) -> None:
        left = progress.show_epoch(epoch, recipe.epochs)
        if run_folder:
            run_folder.record_epoch(epoch, left)

    return watch


def cross_validate(
    recipe: Recipe,
    run_folder: RunFolder,
    progress: ProgressReporter,
    create_policy: Callable[[str], CheckpointPolicy],
    data_root: DataRoot,
    process_group: ProcessGroup,
) -> FoldScores:
    """Train on all folds but one and score on that one, for each fold that is not scored yet."""
    earlier_folds = run_folder.folds
    values = list(earlier_folds.values) if earlier_folds else []
    dataset, remaining_splits = consensus.load_remaining_folds(process_group, recipe, data_root, len(values))
    for parts in remaining_splits:
        checkpoint_policy = create_policy(f"folds/{len(values) + 1}/checkpoints")
        network, _ = build_and_train(
            recipe,
            scale_targets(parts),
            create_epoch_callback(recipe, progress),
            checkpoint_policy,
            data_root.folder,
            process_group,
        )
        outputs = predict_outputs(build.restore_scale(network, parts.train), parts.test.inputs)
        values.append(evaluate_outputs(outputs, parts.test).metrics[dataset.metric])
        run_folder.record_folds(FoldScores(dataset.metric, tuple(values)))
        checkpoint_policy.delete_all()
    return FoldScores(dataset.metric, tuple(values))


def check_custom_model(recipe: Recipe, options: CustomOptions, splits: Splits, folder: Path) -> str:
    """Return the source of a custom model, after one was built and checked as far as possible without training."""
    with seed_torch(recipe.seed):
        network = build.build_model(options, splits.train, folder)
        custom.check_custom_network(network, splits.train, options.factory, recipe.export)
    return custom.load_factory(options, folder).source


def build_and_train(
    recipe: Recipe,
    splits: Splits,
    on_epoch: Callable[[Epoch], None],
    checkpoint_policy: CheckpointPolicy,
    folder: Path,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[nn.Module, TrainingHistory]:
    """Build the recipe's model and train it, on a GPU where there is one; return it with the history of its epochs."""
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train, folder)
    if process_group.size == 1:  # of several processes, each trains a copy
        network = network.to(get_process_device())
    history = train_model(network, splits, recipe, on_epoch, checkpoint_policy, process_group)
    return network.to(get_process_device()), history


def build_provenance(recipe: Recipe, splits: Splits, history: TrainingHistory) -> TrainingRecord:
    """Build the record of where the version comes from, enough to train it again."""
    return TrainingRecord(
        recipe=recipe.model_dump(mode="json"),
        data_sha256=splits.sha256,
        seed=recipe.seed,
        revision=get_code_revision(),
        device=get_device_name(),
        precision=precision.resolve_precision(recipe.precision, get_process_device()),
        wall_s=sum(epoch.seconds for epoch in history.epochs),
    )


def get_device_name() -> str:
    """Return the device's name for the manifest."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
