"""The file behind MLServer, as a custom runtime: `parameters.uri` of its model-settings.json is the ONNX file."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):  # type: ignore[misc]  # it is not in this environment
    """The model of one parallel worker."""

    async def load(self) -> bool:
        """Open the model with one thread, as a Lambda function of one vCPU has."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = self.settings.parameters.uri
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request."""
        feeds = {given.name: NumpyCodec.decode_input(given) for given in payload.inputs}
        (found,) = self._session.run(None, feeds)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output", found)])
