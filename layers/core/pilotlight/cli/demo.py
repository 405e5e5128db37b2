"""`pilotlight demo`: the main job on this machine: train, publish, serve and predict over HTTP."""

import io
import subprocess
import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Group
from rich.progress import track
from rich.table import Table
from rich.text import Text

from pilotlight.cli import serve, train
from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, open_registry, print_json
from pilotlight.client.client import Client, Tensor
from pilotlight.contracts.manifest import Manifest
from pilotlight.contracts.names import ModelReference
from pilotlight.errors import UnavailableError
from pilotlight.registry.registry import version_path
from pilotlight.storage.object_store import ObjectStore

RECIPE = "digits"
SHOWN_DIGITS, DIGITS_PER_ROW, DIGIT_WIDTH = (
    8,
    4,
    8,
)  # digits in the picture, digits in one of its rows, pixels in a digit's
SHADES = " ░▒▓█"  # from paper to ink
MAX_INK = 16  # the darkest pixel of scikit-learn's scans

Pixels = np.ndarray[Any, Any]  # (8, 8), 0 to 16


@dataclass(frozen=True)
class DemoResult:
    """What the server predicted for the test set, one request per digit."""

    predictions: list[int]
    labels: list[int]
    latencies_ms: list[float]

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        return sum(a == b for a, b in zip(self.predictions, self.labels, strict=True)) / len(self.labels)


def demo(
    store: StoreOption = STORE,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")] = 0,
    json: JsonOption = False,
) -> None:
    """Train digits, publish, serve, and send every test digit through HTTP. Ends by itself."""
    print_step("Training", f"layers/core/pilotlight/recipes/builtin/{RECIPE}.yaml")
    model_registry = open_registry(store)
    reference = ModelReference.parse(train_and_publish(store))
    manifest = model_registry.load_manifest(reference.name, model_registry.resolve_reference(reference))
    images, labels = load_test_set(model_registry.store, manifest)
    print_step("Serving", f"{reference} from {store}, through template.yaml's gateway and AWS's own runtime client")
    with (
        serve.build_gateway(store, host="127.0.0.1", port=port, workers=1).serve_in_background() as url,
        Client(url) as client,
    ):
        result = send_test_images(client, manifest, images, labels)
    if json:
        print_json(build_demo_summary(manifest, result))
    else:
        RESULTS.print(draw_predictions(images, result), build_variants_table(manifest, result))
        typer.echo(format_next_steps(manifest, images[0]))
    check_served_accuracy(manifest, result)


def print_step(title: str, detail: str) -> None:
    """Announce a step on standard error."""
    ERRORS.print(f"\n[bold]{title}[/bold] {detail}", soft_wrap=True)


def train_and_publish(store: str) -> str:
    """Run the training job, and return the reference of the version that it has published."""
    job = subprocess.run(
        train.build_job_command(RECIPE, store, json=True),
        env=train.build_job_environment(),
        stdout=subprocess.PIPE,
        check=False,
    )
    if job.returncode:
        raise typer.Exit(job.returncode)  # the job has printed the reason
    return str(msgspec.json.decode(job.stdout.splitlines()[-1])["reference"])


def load_test_set(store: ObjectStore, manifest: Manifest) -> tuple[Pixels, list[int]]:
    """Load the test set that was published with the version: images (N, 1, 8, 8) as scanned, and their labels."""
    data = store.get(version_path(manifest.name, manifest.version, "evaluation.npz")).data
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return arrays["image"], arrays["label"].tolist()


def send_test_images(client: Client, manifest: Manifest, images: Pixels, labels: list[int]) -> DemoResult:
    """Send each digit in a request of its own, as a caller would."""
    answers, milliseconds = [], []
    quiet = not ERRORS.is_terminal
    for image in track(images, f"Sending {len(images)} digits", console=ERRORS, transient=True, disable=quiet):
        started = time.perf_counter()
        tensor = Tensor("image", "FP32", [1, *image.shape], image.ravel().tolist())
        answer = client.infer(manifest.name, [tensor], version=str(manifest.version))
        milliseconds.append(1000 * (time.perf_counter() - started))
        answers.append(int(np.argmax(answer.get_output("logits").data)))
    return DemoResult(answers, labels, milliseconds)


def draw_predictions(images: Pixels, result: DemoResult) -> Group:
    """Draw the first test digits, four to a row, each with the server's answer below."""
    rows: list[Text] = []
    for start in range(0, SHOWN_DIGITS, DIGITS_PER_ROW):
        several = slice(start, start + DIGITS_PER_ROW)
        rows += [
            Text("  ".join(line)) for line in zip(*(draw_digit(image[0]) for image in images[several]), strict=True)
        ]
        rows += [format_caption(result.predictions[several], result.labels[several]), Text()]
    return Group(Text(), *rows)


def format_caption(answers: list[int], labels: list[int]) -> Text:
    """Format the answers under a row of digits, wrong ones with the right label."""
    line = Text()
    for answer, label in zip(answers, labels, strict=True):
        text, style = (f"{answer}", "bold green") if answer == label else (f"{answer}, is {label}", "bold red")
        line.append(text.center(2 * DIGIT_WIDTH), style).append("  ")
    return line


def draw_digit(image: Pixels) -> list[str]:
    """Draw a digit as eight lines of sixteen characters, darker for more ink; two characters make a square pixel."""
    steps = (image * (len(SHADES) - 1) / MAX_INK).round().astype(int)
    return ["".join(2 * SHADES[step] for step in row) for row in steps]


def build_variants_table(manifest: Manifest, result: DemoResult) -> Table:
    """Build a table of size, accuracy and latency of the variants in the process, and of the served one over HTTP."""
    table = Table(title=f"{manifest.name}:{manifest.version}, {len(result.labels)} test digits", title_justify="left")
    table.add_column("")
    for column in ("accuracy", "size", "median latency"):
        table.add_column(column, justify="right")
    for precision, variant in manifest.variants.items():
        size = manifest.get_file(variant.graph).bytes
        metrics = variant.metrics
        table.add_row(
            precision, f"{metrics['accuracy']:.2%}", format_kilobytes(size), f"{metrics['latency_ms']:.3f} ms"
        )
    latency = f"{median(result.latencies_ms[1:]):.2f} ms, first {result.latencies_ms[0]:.0f} ms"
    table.add_row(
        f"{manifest.serve} over HTTP", f"{result.accuracy:.2%}", format_kilobytes(manifest.served_bytes), latency
    )
    return table


def format_kilobytes(size: int) -> str:
    """Format a size in kB of 1,000 bytes."""
    return f"{size / 1000:,.1f} kB"


def format_next_steps(manifest: Manifest, image: Pixels) -> str:
    """Format the commands to try next."""
    pixels = ",".join(f"{value:g}" for value in image.ravel())
    shape = ",".join(map(str, (1, *image.shape)))
    body = f'{{"inputs":[{{"name":"image","shape":[{shape}],"datatype":"FP32","data":[{pixels}]}}]}}'
    where = f"localhost:8080/v2/models/{manifest.name}/versions/{manifest.version}/infer"
    return f"\nTry it: make serve, and in another terminal\n\ncurl -s {where} -d '{body}'\n"


def build_demo_summary(manifest: Manifest, result: DemoResult) -> dict[str, object]:
    """Build the same numbers for scripts."""
    return {
        "reference": f"{manifest.name}:{manifest.version}",
        "served": manifest.serve,
        "examples": len(result.labels),
        "accuracy": result.accuracy,
        "metrics": {precision: variant.metrics for precision, variant in manifest.variants.items()},
        "bytes": {
            precision: manifest.get_file(variant.graph).bytes for precision, variant in manifest.variants.items()
        },
        "first_ms": result.latencies_ms[0],
        "median_ms": median(result.latencies_ms[1:]),
    }


def check_served_accuracy(manifest: Manifest, result: DemoResult) -> None:
    """Fail if the accuracy over HTTP is not that measured in training."""
    measured = manifest.variants[manifest.serve].metrics["accuracy"]
    if abs(result.accuracy - measured) > 1 / len(result.labels):
        raise UnavailableError(f"Served {result.accuracy:.2%} of the test set right, but {measured:.2%} were measured.")
