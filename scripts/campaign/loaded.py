"""What the server of processes loads before it forks: the libraries, none of which starts a thread by this."""

import contextlib
import gc

import one_thread  # noqa: F401 - before a library starts its threads

import sfm_match
from sfm_match.stages.base import STAGES

for _stage in STAGES:
    _stage.load()
for _name in ("cv2", "h5py", "onnxruntime", "PIL.Image", "poselib", "pycolmap", "yaml"):
    with contextlib.suppress(ImportError):
        __import__(_name)
for _plugin in ("localize", "convert", "doctor", "infer", "demo", "cubemap"):
    with contextlib.suppress(ImportError):
        __import__(f"sfm_match.commands.{_plugin}")
assert sfm_match.__version__
gc.collect()
gc.freeze()  # or the collector of each child would copy all that is loaded
