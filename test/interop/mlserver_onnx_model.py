"""A runtime of MLServer that runs an ONNX file by Python's onnxruntime; MLServer itself brings none for ONNX."""
import asyncio
import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("SCRIM_INTRA_OP_THREADS", "0"))
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {entry.name: NumpyCodec.decode_input(entry) for entry in payload.inputs}
        wanted = [output.name for output in payload.outputs or []] or [value.name for value in self.session.get_outputs()]
        values = await asyncio.to_thread(self.session.run, wanted, feeds)
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(name, value) for name, value in zip(wanted, values)],
        )
