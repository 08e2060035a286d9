"""Which engines are here; what they cost to build; which nodes of a network fall back to the CPU."""

import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gpu import bare
from gpu.plan import ENGINES, ON_CPU, LeftOut, Work


def engines(work: Work) -> None:
    """A row an engine: ok, or left out with the reason."""
    for name in ENGINES if work.cuda else (*ON_CPU, *ENGINES[1:]):
        work.case(name, partial(_present, work, name))


def _present(work: Work, name: str) -> Mapping[str, Any]:
    from sfm_match.runtime.devices import why_not
    from sfm_match.runtime.gpus import gpus

    if name == "torch":  # its own runtime needs nothing else
        import torch

        if work.cuda and not torch.cuda.is_available():
            raise LeftOut(f"torch {torch.__version__} finds no GPU")
        return {"version": torch.__version__, "cuda": torch.version.cuda}
    if not work.cuda and name != "cpu":
        raise LeftOut("--device cpu")
    if name != "tensorrt":
        bare.require("onnxruntime")
    if (reason := why_not(name)) is not None:
        raise LeftOut(reason)
    return {"gpus": ", ".join(gpu.name for gpu in gpus()) or "none"}


def builds(work: Work) -> None:
    """What it costs to have an engine at the first time, and at the next: seconds, and bytes on the disk."""
    work.case("first and again", partial(_builds, work))


def _builds(work: Work) -> Mapping[str, Any]:
    from gpu import networks
    from sfm_match.job.progress import Clock

    size, batch = work.settings.sizes[0], 2
    side = networks.side_of(work.model, size)
    loaded = networks.square(work.model, size, batch)
    buckets = Counter({(side, side): 1000})
    networks.model(work.model, work.engine, half=work.cuda)  # converted, where it must be
    if work.engine == "torch":
        networks.networks(work.model)
    found: dict[str, Any] = {"size": side, "batch": batch}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "again"):
            start = time.perf_counter()
            engine = networks.runtime(work.engine, work.settings, Path(folder))
            extractor = networks.extractor(
                work, work.model, half=work.cuda, batch=batch, buckets=buckets, engine=engine
            )
            networks.wait(work)
            found[f"{name}_seconds"] = round(time.perf_counter() - start, 2)
            start = time.perf_counter()
            extractor.features(loaded, Clock())
            found[f"{name}_run_seconds"] = round(time.perf_counter() - start, 2)
            files = {path: path.stat() for path in Path(folder).rglob("*") if path.is_file()}
            found[f"{name}_files"] = sorted((path.suffix, stat.st_size) for path, stat in files.items())
            if name == "first":
                kept = {path: stat.st_mtime_ns for path, stat in files.items() if path.suffix == ".engine"}
            del extractor, engine
            networks.clear()
        found["bytes"] = sum(stat.st_size for stat in files.values())
        found["reused"] = bool(kept) and all(files[path].st_mtime_ns == then for path, then in kept.items())
    return found


def nodes(work: Work) -> None:
    """Where ONNX Runtime runs each node of each network: those on the CPU, and the copies between."""
    for name in ("normalise", "detector", "select", "descriptor", "stored", "join", "match"):
        work.case(name, partial(_nodes, work, name))


def _nodes(work: Work, name: str) -> Mapping[str, Any]:
    import numpy as np
    import onnxruntime

    from gpu import networks
    from sfm_match.features import device_graphs as parts
    from sfm_match.features.dedode import selection
    from sfm_match.matching.on_device import MORE
    from sfm_match.options.stages import ExtractOptions
    from sfm_match.runtime.ort import OrtRuntime
    from sfm_match.runtime.planning import ranges

    model = networks.model(work.model, work.engine, half=work.cuda)
    side = networks.side_of(work.model, work.settings.sizes[0])
    how = selection(model, ExtractOptions(model=work.model, max_keypoints=work.settings.max_keypoints))
    capacity = parts.capacity_for(how.max_keypoints) or 0
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 3, side, side)).astype(np.float32)
    made = parts.on_device(model, how, capacity, ranges({(side, side): 1000}, 2))
    places = rng.uniform(-1, 1, (2, capacity, 2)).astype(np.float32)
    block = rng.normal(size=(3, 1024, model.spec.dimension + MORE)).astype(np.float16)
    part, feeds = {
        "normalise": (made.normalise, {"pixels": np.zeros((2, side, side, 3), np.uint8)}),
        "detector": (made.detector, {"image": image}),
        "select": (
            made.select,
            {
                "logits": image[:, :1],
                "ground": np.full((2, side, side), 2, np.uint8),
                "log_threshold": np.array([-1e30], np.float32),
                "least_contrast": np.zeros(1, np.float32),
            },
        ),
        "descriptor": (made.descriptor, {"image": image, "keypoints": places}),
        "stored": (
            made.stored,
            {
                "descriptors": rng.normal(size=(2, capacity, model.spec.dimension)).astype(np.float32),
                "counts": np.full(2, capacity),
            },
        ),
        "join": (parts.join_groups(3, 1024, model.spec.dimension + MORE), {"first": block, "second": block}),
        "match": (
            parts.match_block(3, 1024, model.spec.dimension + MORE, 2),
            {
                "descriptors": block,
                "pairs": np.array([[0, 1], [1, 2]]),
                "inverse_temperature": np.array([20.0], np.float32),
            },
        ),
    }[name]
    engine = networks.runtime(work.engine, work.settings)
    if not isinstance(engine, OrtRuntime):
        raise LeftOut("not of ONNX Runtime")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(part.path), options, providers=engine._providers(part))
        for _ in range(2):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _counted(events)


def _counted(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Nodes by provider, of ONNX Runtime's profile."""
    seen: dict[str, tuple[str, str]] = {}
    for event in events:
        facts = event.get("args", {})
        if event.get("cat") == "Node" and facts.get("provider"):
            seen[event["name"]] = facts["provider"], facts.get("op_name", "")
    providers = Counter(provider for provider, _ in seen.values())
    on_cpu = Counter(kind for provider, kind in seen.values() if provider == "CPUExecutionProvider")
    copies = sum(kind.startswith("Memcpy") for _, kind in seen.values())
    return {"nodes": dict(providers), "on_cpu": dict(on_cpu), "memcpy": copies}
