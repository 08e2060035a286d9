"""End to end: a folder of JPEGs to features in HDF5 to tiles of matches, by the functions that users call."""

import itertools
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from gpu import bare, networks
from gpu.plan import Failed, Work

_PACKAGES = ("cv2", "h5py", "tqdm", "filelock", "threadpoolctl", "safetensors", "PIL")
_COUNT, _COUNT_SMALL = 256, 6  # photographs; on a CPU, and with --quick, the few


def jpegs(work: Work) -> None:
    """By each decoder that is here."""
    for decoder in ("pillow", "nvimgcodec") if work.cuda else ("pillow",):
        work.case(f"decoder {decoder}", partial(_jpegs, work, decoder))
        networks.clear()


def _jpegs(work: Work, decoder: str) -> Mapping[str, Any]:
    bare.require(*_PACKAGES)
    if decoder == "nvimgcodec":
        bare.require("nvidia", "nvidia.nvimgcodec")
    import sfm_match
    from sfm_match.models import BUILT_IN

    size = networks.side_of(work.model, work.settings.sizes[-1])
    chosen: dict[str, Any] = {
        "max_keypoints": work.settings.max_keypoints,
        "device": work.engine,
        "size": size,
        "decoder": decoder,
    }
    with tempfile.TemporaryDirectory() as folder:
        photographs, workspace = Path(folder) / "photographs", Path(folder) / "workspace"
        count = _write(photographs, size, _COUNT if work.cuda and not work.quick else _COUNT_SMALL)
        random = work.model not in BUILT_IN and not networks.checkpoints(work.model)

        def found(name: str, _: Any = None, *, half: bool = False) -> Any:
            return networks.model(name, work.engine, half=half)

        with mock.patch("sfm_match.features.dedode.find_model", found):  # networks that lie beside need no conversion
            done = sfm_match.extract(photographs, workspace, model=work.model, random_weights=random, **chosen)
        sfm_match.pairs(workspace, strategy="exhaustive")
        matched = sfm_match.match(workspace, device=work.engine)
    alone = _alone(work)
    images = done.done / max(done.seconds - done.spent.get("load", 0.0), 1e-9)
    pairs = matched.done / max(matched.seconds - matched.spent.get("load", 0.0), 1e-9)
    seen = {
        "images": done.done,
        "images_per_s": round(images, 2),
        "network_images_per_s": round(alone, 2),
        "share_of_network": round(images / alone, 4),
        "keypoints": done.facts["keypoints"],
        "pairs": matched.done,
        "pairs_per_s": round(pairs, 1),
        "matches": matched.facts["matches"],
        "spent": {
            f"{report.stage} {name}": round(s, 2) for report in (done, matched) for name, s in report.spent.items()
        },
        "detail": done.detail,
    }
    if done.done != count or matched.done != count * (count - 1) // 2:
        raise Failed("not all of it was done", **seen)
    return seen


def _write(folder: Path, size: int, count: int) -> int:
    """Photographs somewhat larger than the network sees them."""
    import cv2

    folder.mkdir()
    side = size * 5 // 4
    for number in range(count):
        (view,) = networks.images((side, side), 1, 1, number % 8).images
        turned = view if number < 8 else view[::-1] if number % 2 else view[:, ::-1]
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), turned[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return count


def _alone(work: Work) -> float:
    """Images a second of the network alone, from bytes in the host's memory to features there, at its usual batch."""
    from sfm_match.job.progress import Clock

    extractor = networks.usual(work)
    batch = min(extractor.batch, 8)
    stream = extractor.each(itertools.repeat(networks.square(work.model, work.settings.sizes[-1], batch)), Clock())
    warm_up = (5 if work.cuda else 1) * extractor.workers.count
    return networks.steady(stream, warm_up, work.settings.seconds) * batch
