"""A model of Triton's Python backend that runs model.onnx, which lies beside it, by Python's onnxruntime.

The wheel of nvidia-pytriton brings a tritonserver with the Python backend alone; this stands in for its ONNX backend.
SCRIM_INTRA_OP_THREADS sets the threads of one run (default: onnxruntime's own choice).
"""
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("SCRIM_INTRA_OP_THREADS", "0"))
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def execute(self, requests):
        """Runs the requests that Triton gathered as one batch where their shapes allow it, else one by one."""
        feeds = [
            {name: backend.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        first = {name: value.shape[1:] for name, value in feeds[0].items()}
        if len(feeds) > 1 and all({name: value.shape[1:] for name, value in feed.items()} == first for feed in feeds):
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
            ends = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])[:-1]
            parts = [np.split(value, ends) for value in self.session.run(self.outputs, joined)]
            answers = list(zip(*parts))
        else:
            answers = [self.session.run(self.outputs, feed) for feed in feeds]
        return [
            backend.InferenceResponse([backend.Tensor(name, value) for name, value in zip(self.outputs, answer)])
            for answer in answers
        ]
