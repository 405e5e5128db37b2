"""The file behind LitServe: `python lit.py MODEL PORT WORKERS`; the body is V2's, the path its own, /predict."""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime as ort

DTYPES = {"FP32": np.float32, "INT64": np.int64}


class Onnx(litserve.LitAPI):  # type: ignore[misc]  # it is not in this environment
    """One request at a time, in each worker."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def setup(self, device: str) -> None:
        """Open the model with one thread, as a Lambda function of one vCPU has."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """The feeds."""
        return {
            given["name"]: np.array(given["data"], DTYPES[given["datatype"]]).reshape(given["shape"])
            for given in request["inputs"]
        }

    def predict(self, feeds: dict[str, Any]) -> Any:  # noqa: ANN401 - an array
        """The first output."""
        return self._session.run(None, feeds)[0]

    def encode_response(self, output: Any) -> dict[str, Any]:  # noqa: ANN401 - an array
        """As V2 has it."""
        return {"outputs": [{"shape": list(output.shape), "datatype": "FP32", "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    model, port, workers = sys.argv[1:]
    server = litserve.LitServer(Onnx(model), accelerator="cpu", workers_per_device=int(workers))
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
