"""Make a version of a model, except for its number: `python -m functions.train.convert PATH --into FOLDER`.

FOLDER gets `draft.json` and the files of the version. Exit codes: 0 done, 1 it failed, 2 the request is wrong; the
reason is one sentence on standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from functions.train.convert import evaluation_data, evaluation_table, model_card, source
from functions.train.convert.converted_model import ConvertedModel
from functions.train.convert.evaluation_data import ExampleSet
from functions.train.convert.variants import QuantizationSource, VariantChoice, choose_variants
from pilotlight.contracts import label_file
from pilotlight.contracts.codec import encode_document
from pilotlight.contracts.manifest import EvaluationSet, ManifestDraft, Variant
from pilotlight.contracts.processing import Preprocessing, TextPreprocessing
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.gate import sample_requests
from pilotlight.runtime import golden_recorder, onnx_header
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.model_cache import Assets
from pilotlight.runtime.session import Session, open_session

GOLDEN_EXAMPLES = 3  # requests of one example each that are recorded from the publisher's data


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = build_convert_parser().parse_args(arguments)
    try:
        build_version_files(options)
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2 if isinstance(exc, InvalidInputError) else 1
    return 0


def build_convert_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m functions.train.convert", description="Make a version of a model.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--task")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--quantize", choices=("auto", "int8", "int4", "none"), default="none")
    parser.add_argument("--evaluation", type=Path, metavar="FILE")
    parser.add_argument("--calibration", type=Path, metavar="FILE")
    parser.add_argument("--sample", type=Path, metavar="FILE")
    parser.add_argument("--steps", type=Path, metavar="FILE", help="JSON: how tables are prepared for the graph")
    parser.add_argument("--assets", type=Path, metavar="FOLDER", help="with the files that these steps need")
    return parser


def build_version_files(options: argparse.Namespace) -> None:
    """Convert, quantize, measure and record the model, and write all files."""
    folder: Path = options.into
    for file in filter(None, (options.evaluation, options.calibration)):
        table = evaluation_table.find_table_format(file) is not None
        (evaluation_table.read_table_columns if table else evaluation_data.read_npz_arrays)(
            file
        )  # what cannot be read is told before anything is converted
    model = source.convert_source(options.path, folder / "model.fp32.onnx", options.task)
    session = open_session(str(model.graph))
    labels = model.labels if options.labels is None else label_file.read_label_file(options.labels)
    evaluation, calibration = load_evaluation_and_calibration(options, session, model.preprocess, labels)
    samples = sample_requests.load_samples(options.sample, session.inputs) if options.sample else ()
    feeds = samples or choose_golden_feeds(model, session, evaluation or calibration)
    choice = choose_variants(QuantizationSource(model.graph, feeds, labels, evaluation, calibration), options.quantize)
    golden_requests = golden_recorder.record_golden_requests(choice.graphs[choice.serve], choice.serve, feeds)
    files = {
        "report.json": choice.report,
        "model-card.md": model_card.format_converted_card(options.name, model, choice, session).encode(),
    }
    if golden_requests is not None:
        files["golden.json"] = encode_document(golden_requests)
    if choice.test is not None:
        files["evaluation.npz"] = choice.test.npz
    files["draft.json"] = encode_document(
        build_converted_draft(options.name, model, choice, session, has_golden=golden_requests is not None)
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)


def load_evaluation_and_calibration(
    options: argparse.Namespace, session: Session, steps: Preprocessing | None, labels: Sequence[str]
) -> tuple[ExampleSet | None, ExampleSet | None]:
    """Load the publisher's examples for the evaluation and for the calibration, from arrays or from tables."""
    steps = read_steps(options.steps) if options.steps else steps

    def load(file: Path, *, with_targets: bool) -> ExampleSet:
        if evaluation_table.find_table_format(file) is None:
            return evaluation_data.load_examples(file, session, with_targets=with_targets)
        assets = read_assets(steps, options.assets)
        arrays = evaluation_table.convert_table(file, session, steps, assets, labels, with_targets=with_targets)
        return evaluation_data.load_examples(file, session, with_targets=with_targets, arrays=arrays)

    evaluation = load(options.evaluation, with_targets=True) if options.evaluation else None
    calibration = load(options.calibration, with_targets=False) if options.calibration else None
    return evaluation, calibration


def read_steps(file: Path) -> Preprocessing:
    """Read the steps that the publisher gives, as the version will have them."""
    try:
        steps: Preprocessing = msgspec.json.decode(file.read_bytes(), type=Preprocessing)
    except msgspec.MsgspecError as exc:
        raise InvalidInputError(f"The steps that prepare inputs cannot be taken: {exc}.") from exc
    return steps


def read_assets(steps: Preprocessing | None, folder: Path | None) -> Assets:
    """Read the files that the steps need from the folder of the model."""
    if not isinstance(steps, TextPreprocessing) or folder is None:
        return Assets()
    try:
        return Assets({steps.tokenizer: (folder / steps.tokenizer).read_bytes()})
    except OSError as exc:
        raise InvalidInputError(f"Cannot read {folder / steps.tokenizer}: {exc.strerror}.") from exc


def choose_golden_feeds(
    model: ConvertedModel, session: Session, publisher_examples: ExampleSet | None
) -> tuple[Feeds, ...]:
    """Choose the golden requests' inputs: the publisher's examples, the origin's, or generated ones."""
    if publisher_examples is None:
        return model.feeds or golden_recorder.generate_feeds(session)
    layout, arrays = publisher_examples.layout, publisher_examples.inputs
    some = range(min(GOLDEN_EXAMPLES, len(publisher_examples)))
    feeds = [layout.build_feed(arrays, [place]) for place in some]
    if layout.size is None:
        feeds.append(layout.build_feed(arrays, some))
    return tuple(feed for feed in feeds if golden_recorder.can_run(session, feed))


def build_converted_draft(
    name: str, model: ConvertedModel, choice: VariantChoice, session: Session, *, has_golden: bool
) -> ManifestDraft:
    """Build the model's part of the manifest."""
    test_examples = choice.test
    return ManifestDraft(
        name=name,
        task=model.task,
        inputs=session.inputs,
        outputs=session.outputs,
        preprocess=model.preprocess,
        postprocess=model.postprocess,
        labels=model.labels,
        variants={key: Variant(path.name, choice.metrics.get(key, {})) for key, path in choice.graphs.items()},
        serve=choice.serve,
        metric=choice.metric,
        budget=choice.budget,
        opset=onnx_header.read_onnx_header(next(iter(choice.graphs.values()))).opsets.get("", 0) or None,
        evaluation=EvaluationSet(test_examples.sha256, len(test_examples)) if test_examples else None,
        parity=model.parity,
        report="report.json",
        golden="golden.json" if has_golden else None,
    )


if __name__ == "__main__":
    sys.exit(main())
