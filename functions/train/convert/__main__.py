"""`python -m functions.train.convert PATH --into FOLDER`: make a version of a model, all but its number.

FOLDER gets `draft.json` and the files of the version. Exit codes: 0 done, 1 it could not be done, 2 what was asked is
wrong; the reason stands on standard error in one sentence.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from functions.train.convert import examples, model_card, source
from functions.train.convert.converted_model import Model
from functions.train.convert.examples import Examples
from functions.train.convert.variants import Choice, Material, choose
from pilotlight.contracts.manifest import Draft, Evaluation, Variant, encode
from pilotlight.errors import InvalidInputError, PilotlightError
from pilotlight.runtime import golden_recorder, onnx_header
from pilotlight.runtime.golden_recorder import Feeds
from pilotlight.runtime.session import Session, open_session

GOLDEN = 3  # requests of one example each that are recorded from the publisher's data


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    options = parser().parse_args(arguments)
    try:
        take_in(options)
    except PilotlightError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2 if isinstance(exc, InvalidInputError) else 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    words = argparse.ArgumentParser(prog="python -m functions.train.convert", description="Make a version of a model.")
    words.add_argument("path", type=Path)
    words.add_argument("--name", required=True)
    words.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    words.add_argument("--task")
    words.add_argument("--labels", type=Path)
    words.add_argument("--quantize", choices=("auto", "int8", "int4", "none"), default="none")
    words.add_argument("--evaluation", type=Path, metavar="FILE")
    words.add_argument("--calibration", type=Path, metavar="FILE")
    return words


def take_in(options: argparse.Namespace) -> None:
    """Convert, quantize, measure, record; write everything."""
    folder: Path = options.into
    model = source.read(options.path, folder / "model.fp32.onnx", options.task)
    session = open_session(str(model.graph))
    evaluation, calibration = data(options, session)
    feeds = requests(model, session, evaluation or calibration)
    labels = model.labels if options.labels is None else lines(options.labels)
    choice = choose(Material(model.graph, feeds, labels, evaluation, calibration), options.quantize)
    recorded = golden_recorder.record(choice.graphs[choice.serve], choice.serve, feeds)
    files = {
        "report.json": choice.report,
        "model-card.md": model_card.write(options.name, model, choice, session).encode(),
    }
    if recorded is not None:
        files["golden.json"] = encode(recorded)
    if choice.test is not None:
        files["evaluation.npz"] = choice.test.npz
    files["draft.json"] = encode(draft(options.name, model, choice, session, repeats=recorded is not None))
    for name, content in files.items():
        (folder / name).write_bytes(content)


def lines(file: Path) -> tuple[str, ...]:
    """The publisher's labels."""
    try:
        return tuple(file.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInputError(f"{file} cannot be read as text: {exc}.") from exc


def data(options: argparse.Namespace, session: Session) -> tuple[Examples | None, Examples | None]:
    """The publisher's examples to judge by, and those to calibrate on."""
    evaluation = examples.load(options.evaluation, session, judged=True) if options.evaluation else None
    return evaluation, examples.load(options.calibration, session, judged=False) if options.calibration else None


def requests(model: Model, session: Session, given: Examples | None) -> tuple[Feeds, ...]:
    """What the graph is asked for the golden requests: the publisher's examples, the origin's, or made up ones."""
    if given is None:
        return model.feeds or golden_recorder.made_up(session)
    alone = [given.take(slice(place, place + 1)).inputs for place in range(min(GOLDEN, len(given)))]
    feeds = [*alone, given.take(slice(0, GOLDEN)).inputs]
    return tuple(feed for feed in feeds if golden_recorder.answered(session, feed))


def draft(name: str, model: Model, choice: Choice, session: Session, *, repeats: bool) -> Draft:
    """What the manifest says of the model."""
    measured = choice.test
    return Draft(
        name=name,
        task=model.task,
        inputs=session.inputs,
        outputs=session.outputs,
        prepare=model.prepare,
        finish=model.finish,
        labels=model.labels,
        variants={key: Variant(path.name, choice.metrics.get(key, {})) for key, path in choice.graphs.items()},
        serve=choice.serve,
        metric=choice.metric,
        budget=choice.budget,
        opset=onnx_header.read(model.graph).opsets.get("", 0) or None,
        evaluation=Evaluation(measured.sha256, len(measured)) if measured else None,
        parity=model.parity,
        report="report.json",
        golden="golden.json" if repeats else None,
    )


if __name__ == "__main__":
    sys.exit(main())
