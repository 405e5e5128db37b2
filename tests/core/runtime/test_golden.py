import pytest

from pilotlight.contracts.codec import decode_document
from pilotlight.contracts.manifest import Datatype
from pilotlight.errors import ModelRefusedError
from pilotlight.runtime.golden import (
    GoldenDocument,
    GoldenExchange,
    GoldenRequest,
    GoldenResponse,
    GoldenTensor,
    replay_exchanges,
)
from pilotlight.runtime.session import open_session
from tests import fakes


def golden(given: GoldenTensor, answer: GoldenTensor, tolerance: float = 0.0) -> GoldenDocument:
    return GoldenDocument(
        variant="fp32",
        tolerance=tolerance,
        exchanges=(GoldenExchange(GoldenRequest((given,)), GoldenResponse((answer,))),),
    )


@pytest.mark.parametrize(
    ("name", "datatype", "data"),
    [("echo-fp32", "FP32", (1.5, 2)), ("echo-int64", "INT64", (1, 2**40)), ("echo-bytes", "BYTES", ("a", "é"))],
)
def test_every_kind_of_value_is_compared(name: str, datatype: Datatype, data: tuple[float | str, ...]) -> None:
    session = open_session(str(fakes.MODELS / f"{name}.onnx"))
    given, answer = (GoldenTensor(tensor, (1, 2), datatype, data) for tensor in "xy")
    replay_exchanges(golden(given, answer), session)
    other = GoldenTensor("y", (1, 2), datatype, (data[1], data[1]))
    with pytest.raises(ModelRefusedError, match="Golden request 1 is answered"):
        replay_exchanges(golden(given, other), session)


def test_the_kept_models_golden_requests_hold() -> None:
    folder = fakes.MODELS / "digits"
    document = decode_document((folder / "golden.json").read_bytes(), GoldenDocument, "golden.json")
    replay_exchanges(document, open_session(str(folder / "model.int8.onnx")))
