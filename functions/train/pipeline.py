"""One training run from start to end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from functions.train import feature_profile
from functions.train.data.dataset import Dataset
from functions.train.data.files import DataRoot
from functions.train.data.folds import FoldScores
from functions.train.data.load import load_splits
from functions.train.data.split import Splits, scale_targets
from functions.train.distributed import consensus
from functions.train.distributed.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    leave_process_group,
    translate_faults,
)
from functions.train.evaluation import learning_curves, plots, quantization_report
from functions.train.evaluation.metric_check import check_metrics
from functions.train.evaluation.metrics import sample_text
from functions.train.export import golden, parity
from functions.train.export.candidate_search import QuantizationCandidate, select_best_candidate
from functions.train.export.onnx_export import export_onnx
from functions.train.export.quantization_search import QuantizationSearch
from functions.train.language_models.hugging_face_export import build_llama_files
from functions.train.language_models.trained_decoder import describe_trained_decoder
from functions.train.models import build, custom
from functions.train.progress import ProgressReporter
from functions.train.publish import publish_artifacts
from functions.train.run_artifacts import ExportedModel, TrainedModel, build_artifacts, get_device_name
from functions.train.run_folder import RunFolder
from functions.train.training.checkpoint_policy import CheckpointPolicy
from functions.train.training.device import get_process_device
from functions.train.training.interruption import InterruptionMonitor
from functions.train.training.prediction import evaluate_network
from functions.train.training.step import describe_accumulation
from functions.train.training.trainer import Trainer, seed_torch, train_model
from functions.train.training.training_history import EarlyStopping, EpochMetrics, TrainingHistory
from pilotlight.contracts.codec import decode_document, encode_document
from pilotlight.contracts.manifest import ExportParity, Manifest, Precision
from pilotlight.contracts.metric import format_value
from pilotlight.contracts.names import ModelReference
from pilotlight.recipes.schema import CustomOptions, DecoderOptions, Recipe
from pilotlight.registry.registry import Registry, version_path
from pilotlight.runtime.golden import GoldenDocument
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
    interruption: InterruptionMonitor | None = None,
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
    pipeline = TrainingPipeline(
        recipe, store, progress, run_folder, interruption or InterruptionMonitor(), data_root, process_group
    )
    with run_folder.track_status(), translate_faults(process_group):
        return pipeline.run()


@dataclass(frozen=True)
class TrainingPipeline:
    """The stages of one run, each with its time and its result on the console."""

    recipe: Recipe
    store: ObjectStore
    progress: ProgressReporter
    run_folder: RunFolder
    interruption: InterruptionMonitor
    data_root: DataRoot
    process_group: ProcessGroup

    def run(self) -> RunOutcome:
        """Run all stages; nothing is visible in the registry unless every one of them succeeds."""
        splits = self.load_data()
        source = self.check_custom_model(splits)
        folds = self.cross_validate()
        network, history = self.train(splits)
        plot_files = self.evaluate(network, history, splits.test)
        self.write_sample(network, splits.test)
        trained = TrainedModel(network, history, splits, folds, source)
        with TemporaryDirectory(prefix="pilotlight-train-") as folder:
            exported = self.export_variants(trained, plot_files, Path(folder))
            manifest = self.publish(trained, exported)
        reference = ModelReference(manifest.name, manifest.version)
        self.run_folder.record_version(reference)
        self.create_checkpoint_policy("checkpoints").delete_all()
        return RunOutcome(
            reference,
            self.run_folder.run_name,
            manifest,
            exported.report,
            history,
            dict(self.progress.stage_seconds),
            folds,
        )

    def export_variants(self, trained: TrainedModel, plot_files: dict[str, bytes], folder: Path) -> ExportedModel:
        """Export the network to a folder, quantize it, and measure both variants."""
        splits, fp32 = trained.splits, folder / "model.fp32.onnx"
        opset = self.export(trained.network, splits.train, fp32)
        parity_result = self.check_parity(trained.network, fp32, splits.validation)
        search = QuantizationSearch(fp32, splits.calibration.inputs, splits.validation, self.recipe.quantization)
        candidates, smaller = self.quantize(search, len(splits.calibration), folder)
        graphs = {"fp32": fp32, **smaller}
        comparison, plot_files = self.compare(graphs, splits, search.budget, candidates, plot_files)
        golden_requests = self.record_golden_requests(graphs[comparison.serve], comparison.serve, splits.test)
        return ExportedModel(graphs, opset, parity_result, comparison, golden_requests, plot_files)

    def load_data(self) -> Splits:
        """Load and record the data set, which is the same in all processes."""
        recipe = self.recipe
        with self.progress.stage("data") as write_result:
            splits = load_splits(recipe.data, self.data_root)
            feature_profile.check_capture_options(recipe.capture, splits.train)
            self.run_folder.record_data(splits)
            write_result(f"{recipe.data.name}: {format_split_sizes(splits)}")
            for note in splits.train.notes:
                write_result(note)
            if splits.train.cleaning:
                write_result(str(splits.train.cleaning))
            consensus.check_same_data(self.process_group, splits, recipe.data.name)
            check_metrics(recipe, splits)
        return splits

    def check_custom_model(self, splits: Splits) -> str | None:
        """Check and record a model of the user's own; return its source, or None for another model."""
        options = self.recipe.model
        if not isinstance(options, CustomOptions):
            return None
        with self.progress.stage("model") as write_result:
            source = check_custom_model(self.recipe, options, splits, self.data_root.folder)
            self.run_folder.record_factory(source)
            write_result(f"{options.factory} takes, gives and exports what it should")
        return source

    def cross_validate(self) -> FoldScores | None:
        """Train and score on folds where the recipe asks for a cross-validation."""
        if not self.recipe.folds:
            return None
        with self.progress.stage("folds") as write_result:
            folds = cross_validate(
                self.recipe,
                self.run_folder,
                self.progress,
                self.create_checkpoint_policy,
                self.data_root,
                self.process_group,
            )
            write_result(str(folds))
        return folds

    def train(self, splits: Splits) -> tuple[nn.Module, TrainingHistory]:
        """Train the network, after which the other processes are no longer needed."""
        with self.progress.stage("train") as write_result:
            network, history = build_and_train(
                self.recipe,
                scale_targets(splits),
                create_epoch_callback(self.recipe, self.progress, self.run_folder),
                self.create_checkpoint_policy("checkpoints"),
                self.data_root.folder,
                self.process_group,
                self.progress.show,
            )
            leave_process_group()
            network = build.restore_scale(network, splits.train)
            processes = self.process_group.size
            device_label = get_device_name() if processes == 1 else f"{processes} x {get_device_name()}"
            write_result(f"{len(history.epochs)} epochs on {device_label}, kept epoch {history.best_epoch.number}")
        return network, history

    def evaluate(self, network: nn.Module, history: TrainingHistory, test: Dataset) -> dict[str, bytes]:
        """Evaluate the network on the test set; return the learning curves by file name."""
        with self.progress.stage("evaluate") as write_result:
            result = evaluate_network(network, test)
            metric_text = f"{test.metric} {format_value(test.metric, result.metrics[test.metric])}"
            title = f"{self.recipe.name}: {metric_text} on {len(test)} test examples"
            plot_files = {"curves.png": learning_curves.draw_learning_curves(history, title)}
            self.run_folder.write_plots(plot_files)
            write_result(f"{metric_text} on the test set")
        return plot_files

    def write_sample(self, network: nn.Module, test: Dataset) -> None:
        """Record a text by the network if it is a language model, and the model itself for tools that write texts."""
        if not test.text:
            return
        with self.progress.stage("sample") as write_result:
            generated_text = sample_text(network, test.text.tokenizer, test.inputs[0])
            self.run_folder.write_sample(generated_text)
            if isinstance(self.recipe.model, DecoderOptions):
                origin = f"runs/{self.run_folder.run_name}"
                checkpoint = describe_trained_decoder(network, self.recipe.model, test.text.tokenizer, origin)
                self.run_folder.write_decoder(build_llama_files(checkpoint))
            write_result(generated_text)

    def export(self, network: nn.Module, train: Dataset, graph: Path) -> int:
        """Write the network as a graph; return the graph's opset."""
        with self.progress.stage("export") as write_result:
            opset = export_onnx(network, train, self.recipe.export, graph)
            write_result(f"opset {opset}, {graph.stat().st_size:,} bytes")
        return opset

    def check_parity(self, network: nn.Module, graph: Path, validation: Dataset) -> ExportParity:
        """Check that the graph answers as the network does."""
        with self.progress.stage("parity") as write_result:
            result = parity.check_parity(network, graph, validation.inputs, self.recipe.export.tolerance)
            batches = ", ".join(map(str, result.batches))
            write_result(f"within {result.max_abs:.2g} of the model at batches {batches}")
            if result.lengths:
                write_result(f"each at lengths {', '.join(map(str, result.lengths))}")
        return result

    def quantize(
        self, search: QuantizationSearch, num_calibration_examples: int, folder: Path
    ) -> tuple[tuple[QuantizationCandidate, ...], dict[Precision, Path]]:
        """Write the smaller variant; return all candidates and the variant's graph by its precision."""
        with self.progress.stage("quantize") as write_result:
            candidates = search.search(folder / "model.smaller.onnx")
            best = select_best_candidate(candidates)
            if best is None:
                write_result("; ".join(f"{one.plan} fell: {one.why}" for one in candidates))
                return candidates, {}
            precision = best.precision
            graph = (folder / "model.smaller.onnx").rename(folder / f"model.{precision}.onnx")
            write_result(f"{graph.stat().st_size:,} bytes, {num_calibration_examples} training examples to calibrate")
            write_result(f"{len(candidates)} tried")
        return candidates, {precision: graph}

    def compare(
        self,
        graphs: dict[Precision, Path],
        splits: Splits,
        budget: float,
        candidates: tuple[QuantizationCandidate, ...],
        plot_files: dict[str, bytes],
    ) -> tuple[quantization_report.QuantizationReport, dict[str, bytes]]:
        """Compare the variants on the test set; return the report, and all plots with those of its diagnosis."""
        with self.progress.stage("report") as write_result:
            baseline = quantization_report.load_recorded_baseline(self.recipe.data)
            comparison = quantization_report.compare_variants(
                graphs, splits.test, splits.calibration, budget, candidates, baseline
            )
            served_graph = graphs[comparison.serve]
            diagnosis_files = plots.draw_diagnosis_plots(comparison, served_graph, splits.test, self.recipe.name)
            self.run_folder.write_plots(plot_files | diagnosis_files)
            write_result(comparison.verdict)
        return comparison, plot_files | diagnosis_files

    def record_golden_requests(self, graph: Path, precision: Precision, test: Dataset) -> GoldenDocument:
        """Record golden requests of the served graph, and repeat them once."""
        with self.progress.stage("golden") as write_result:
            golden_requests = golden.record_test_requests(graph, precision, test)
            golden.verify_recorded_answers(encode_document(golden_requests), graph)
            write_result(f"{len(golden_requests.exchanges)} requests recorded and repeated")
        return golden_requests

    def publish(self, trained: TrainedModel, exported: ExportedModel) -> Manifest:
        """Publish the version."""
        with self.progress.stage("publish") as write_result:
            artifacts = build_artifacts(self.recipe, self.run_folder.run_name, trained, exported)
            manifest = publish_artifacts(artifacts, Registry(self.store))
            write_result(f"{manifest.name}:{manifest.version} in {self.store.url}")
        return manifest

    def create_checkpoint_policy(self, folder: str) -> CheckpointPolicy:
        """Create the policy for the checkpoints in a folder of the run."""
        return create_checkpoint_policy(
            self.run_folder, folder, self.recipe, self.progress, self.interruption, self.process_group
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


def create_checkpoint_policy(
    run_folder: RunFolder,
    folder: str,
    recipe: Recipe,
    progress: ProgressReporter,
    interruption: InterruptionMonitor,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> CheckpointPolicy:
    """Create the policy for the checkpoints in a folder of the run, which also shows each step."""

    def show_step(trainer: Trainer) -> None:
        progress.show_step(trainer, recipe.epochs)

    checkpoints = run_folder.open_checkpoints(folder)
    return CheckpointPolicy(
        checkpoints, recipe.checkpoint, interruption, progress.show, on_step=show_step, process_group=process_group
    )


def create_epoch_callback(
    recipe: Recipe, progress: ProgressReporter, run_folder: RunFolder | None = None
) -> Callable[[EpochMetrics], None]:
    """Return a function that shows an epoch and records it in the run's folder."""

    def watch(epoch: EpochMetrics) -> None:
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
        score = evaluate_network(build.restore_scale(network, parts.train), parts.test, (dataset.metric,))
        values.append(score.metrics[dataset.metric])
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
    on_epoch: Callable[[EpochMetrics], None],
    checkpoint_policy: CheckpointPolicy,
    folder: Path,
    process_group: ProcessGroup = SINGLE_PROCESS,
    on_message: Callable[[str], None] = lambda _: None,
) -> tuple[nn.Module, TrainingHistory]:
    """Build the recipe's model and train it, on a GPU where there is one; return it with the history of its epochs."""
    with seed_torch(recipe.seed):
        network = build.build_model(recipe.model, splits.train, folder)
    if note := describe_accumulation(recipe.accumulation, network):
        on_message(note)
    if process_group.size == 1:  # of several processes, each trains a copy
        network = network.to(get_process_device())
    history = train_model(network, splits, recipe, on_epoch, checkpoint_policy, process_group)
    return network.to(get_process_device()), history
