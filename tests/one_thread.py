"""One thread for each library of this process, and of those that it starts: tests run side by side, one on each core.

Threads of ONNX Runtime and of OpenMP wait by spinning, so that more threads than cores cost far more than they save.
"""

import os

import onnxruntime
from threadpoolctl import threadpool_limits

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # of libraries that are loaded from now on
threadpool_limits(1)  # of those that are loaded


class _OneThread(onnxruntime.SessionOptions):
    """ONNX Runtime reads no environment variable."""

    def __init__(self) -> None:
        super().__init__()
        self.intra_op_num_threads = self.inter_op_num_threads = 1


onnxruntime.SessionOptions = _OneThread
