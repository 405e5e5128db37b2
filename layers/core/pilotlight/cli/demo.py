"""`pilotlight demo`: the main job from start to end: train, publish, serve, predict, over HTTP, on this machine."""

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
from pilotlight.cli.console import ERRORS, RESULTS, STORE, JsonOption, StoreOption, print_json, registry
from pilotlight.client.client import Client, Tensor
from pilotlight.contracts.manifest import Manifest, Reference
from pilotlight.errors import UnavailableError
from pilotlight.registry.registry import version_path
from pilotlight.storage.object_store import ObjectStore

RECIPE = "digits"
DRAWN, ABREAST, WIDTH = 8, 4, 8  # digits in the picture, digits in one of its rows, pixels in a digit's
SHADES = " ░▒▓█"  # from paper to ink
INK = 16  # the darkest pixel of scikit-learn's scans

Pixels = np.ndarray[Any, Any]  # (8, 8), 0 to 16


@dataclass(frozen=True)
class Served:
    """What the test set got over HTTP, one request per digit."""

    answers: list[int]
    labels: list[int]
    milliseconds: list[float]

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        return sum(a == b for a, b in zip(self.answers, self.labels, strict=True)) / len(self.labels)


def demo(
    store: StoreOption = STORE,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")] = 0,
    json: JsonOption = False,
) -> None:
    """Train digits, publish, serve, and send every test digit through HTTP. Ends by itself."""
    say("Training", f"layers/core/pilotlight/recipes/builtin/{RECIPE}.yaml")
    found = registry(store)
    reference = Reference.parse(trained(store))
    manifest = found.manifest(reference.name, found.resolve(reference))
    images, labels = evaluation(found.store, manifest)
    say("Serving", f"{reference} from {store}, through template.yaml's gateway and AWS's own runtime client")
    with serve.gateway(store, host="127.0.0.1", port=port, workers=1).background() as url, Client(url) as client:
        served = send(client, manifest, images, labels)
    if json:
        print_json(summary(manifest, served))
    else:
        RESULTS.print(picture(images, served), table(manifest, served))
        typer.echo(next_steps(manifest, images[0]))
    check(manifest, served)


def say(what: str, more: str) -> None:
    """Announce a step, for people."""
    ERRORS.print(f"\n[bold]{what}[/bold] {more}", soft_wrap=True)


def trained(store: str) -> str:
    """The reference of a version that the training job has just published."""
    job = subprocess.run(
        train.command(RECIPE, store, json=True), env=train.environment(), stdout=subprocess.PIPE, check=False
    )
    if job.returncode:
        raise typer.Exit(job.returncode)  # the job has said why
    return str(msgspec.json.decode(job.stdout.splitlines()[-1])["reference"])


def evaluation(store: ObjectStore, manifest: Manifest) -> tuple[Pixels, list[int]]:
    """The test set that was published with the version: images (N, 1, 8, 8) as scanned, and their labels."""
    data = store.get(version_path(manifest.name, manifest.version, "evaluation.npz")).data
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return arrays["image"], arrays["label"].tolist()


def send(client: Client, manifest: Manifest, images: Pixels, labels: list[int]) -> Served:
    """Ask for each digit by itself, as a caller would."""
    answers, milliseconds = [], []
    quiet = not ERRORS.is_terminal
    for image in track(images, f"Sending {len(images)} digits", console=ERRORS, transient=True, disable=quiet):
        started = time.perf_counter()
        tensor = Tensor("image", "FP32", [1, *image.shape], image.ravel().tolist())
        answer = client.infer(manifest.name, [tensor], version=str(manifest.version))
        milliseconds.append(1000 * (time.perf_counter() - started))
        answers.append(int(np.argmax(answer.output("logits").data)))
    return Served(answers, labels, milliseconds)


def picture(images: Pixels, served: Served) -> Group:
    """The first test digits, four to a row, and under each what the server says it is."""
    rows: list[Text] = []
    for start in range(0, DRAWN, ABREAST):
        several = slice(start, start + ABREAST)
        rows += [Text("  ".join(line)) for line in zip(*(drawn(image[0]) for image in images[several]), strict=True)]
        rows += [caption(served.answers[several], served.labels[several]), Text()]
    return Group(Text(), *rows)


def caption(answers: list[int], labels: list[int]) -> Text:
    """The answers under a row of digits, wrong ones with what was right."""
    line = Text()
    for answer, label in zip(answers, labels, strict=True):
        said, style = (f"{answer}", "bold green") if answer == label else (f"{answer}, is {label}", "bold red")
        line.append(said.center(2 * WIDTH), style).append("  ")
    return line


def drawn(image: Pixels) -> list[str]:
    """Eight lines of sixteen characters, darker where there is more ink; two to a pixel, since they are narrow."""
    steps = (image * (len(SHADES) - 1) / INK).round().astype(int)
    return ["".join(2 * SHADES[step] for step in row) for row in steps]


def table(manifest: Manifest, served: Served) -> Table:
    """Sizes, accuracy and latency of the variants in the process, and of the served one over HTTP."""
    shown = Table(title=f"{manifest.name}:{manifest.version}, {len(served.labels)} test digits", title_justify="left")
    shown.add_column("")
    for column in ("accuracy", "size", "median latency"):
        shown.add_column(column, justify="right")
    for precision, variant in manifest.variants.items():
        size = manifest.file(variant.graph).bytes
        metrics = variant.metrics
        shown.add_row(precision, f"{metrics['accuracy']:.2%}", kilobytes(size), f"{metrics['latency_ms']:.3f} ms")
    latency = f"{median(served.milliseconds[1:]):.2f} ms, first {served.milliseconds[0]:.0f} ms"
    shown.add_row(f"{manifest.serve} over HTTP", f"{served.accuracy:.2%}", kilobytes(manifest.bytes), latency)
    return shown


def kilobytes(size: int) -> str:
    """A size in kB of 1,000 bytes."""
    return f"{size / 1000:,.1f} kB"


def next_steps(manifest: Manifest, image: Pixels) -> str:
    """The commands to try by hand."""
    pixels = ",".join(f"{value:g}" for value in image.ravel())
    shape = ",".join(map(str, (1, *image.shape)))
    body = f'{{"inputs":[{{"name":"image","shape":[{shape}],"datatype":"FP32","data":[{pixels}]}}]}}'
    where = f"localhost:8080/v2/models/{manifest.name}/versions/{manifest.version}/infer"
    return f"\nTry it: make serve, and in another terminal\n\ncurl -s {where} -d '{body}'\n"


def summary(manifest: Manifest, served: Served) -> dict[str, object]:
    """The same numbers for scripts."""
    return {
        "reference": f"{manifest.name}:{manifest.version}",
        "served": manifest.serve,
        "examples": len(served.labels),
        "accuracy": served.accuracy,
        "metrics": {precision: variant.metrics for precision, variant in manifest.variants.items()},
        "bytes": {precision: manifest.file(variant.graph).bytes for precision, variant in manifest.variants.items()},
        "first_ms": served.milliseconds[0],
        "median_ms": median(served.milliseconds[1:]),
    }


def check(manifest: Manifest, served: Served) -> None:
    """Fail when the version answers over HTTP otherwise than it was measured: that must never go unseen."""
    measured = manifest.variants[manifest.serve].metrics["accuracy"]
    if abs(served.accuracy - measured) > 1 / len(served.labels):
        raise UnavailableError(f"Served {served.accuracy:.2%} of the test set right, but {measured:.2%} were measured.")
