"""Trains dedode-nano from photographs alone: no labels, no poses, no other network.

    python scripts/train_nano.py --images DIR [DIR ...] --out runs/nano --steps 1600

    python scripts/train_nano.py --images DIR [DIR ...] --out runs/nano4 --steps 2400 --teacher FOLDER ...

The second trains the detector alone, to say at once what earlier weights say on average over mirrored and
shifted pictures. Both resume from `OUT/checkpoint.pt` when that stands; `OUT/log.jsonl` holds one line every --every
steps. Then `python scripts/export_nano.py runs/nano/checkpoint.pt --version N` writes the ONNX files of the package.
"""

import argparse
import copy
import dataclasses
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import safetensors.torch
import torch
from nano import losses, views
from nano.distillation import Teacher
from nano.tasks import Agreement, Distillation, Task
from nano.validation import validate
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from exports.architectures import DESCRIPTOR_NANO, DETECTOR_NANO
from exports.networks import ConvRefiner, DeDoDe

AVERAGE_DECAY = 0.998  # of the weights that ship: an average over the last 500 steps or so
TEACHER_DECAY = 0.996  # with a teacher; it is a shorter training


def prefetch(make: Callable[[int], views.Views], steps: range, depth: int = 6) -> Iterator[views.Views]:
    """The batches of the steps, in order, made ahead by one thread."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[views.Views]] = deque()
        for step in steps:
            pending.append(pool.submit(make, step))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear over 100 steps, then a cosine down to 2 % of the peak."""
    return peak * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def start_from(nets: nn.Module, path: Path) -> int:
    """Takes over the tensors that fit; returns how many."""
    own = nets.state_dict()
    theirs = torch.load(path, weights_only=True)["nets"]
    fitting = {key: value for key, value in theirs.items() if key in own and own[key].shape == value.shape}
    nets.load_state_dict(fitting, strict=False)
    return len(fitting)


def make_task(nets: nn.ModuleDict, options: argparse.Namespace) -> Task:
    """What is trained, and how. With a teacher, the networks start as it is, its temperature in their weights."""
    if options.teacher is None:
        return Agreement(nets, options.seed, options.localise)
    for part, network in nets.items():
        safetensors.torch.load_model(network, str(options.teacher / f"{part}.safetensors"))
    detector = cast(DeDoDe, nets["detector"])
    teacher = Teacher(copy.deepcopy(detector).eval())
    with torch.no_grad():
        for layer in detector.decoder.layers.values():
            last = cast(ConvRefiner, layer).out_conv
            # of the logits, not of what goes on to the next level
            for values in (last.weight, cast(torch.Tensor, last.bias)):
                values[: DETECTOR_NANO.prototypes] *= teacher.temperature
    return Distillation(nn.ModuleDict({"detector": detector}), teacher, options.seed)


def save(path: Path, state: dict) -> None:
    partial = path.with_suffix(f".tmp-{os.getpid()}")
    torch.save(state, partial)
    os.replace(partial, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the log")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--stop", type=int, help="stop here, to go on later; the schedule is that of --steps")
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--size", type=int, default=256, help="side of a view, pixels")
    parser.add_argument("--init", type=Path, help="checkpoint to start from, where names and shapes agree")
    parser.add_argument("--teacher", type=Path, help="folder of weights as in the package, to learn their mean from")
    parser.add_argument("--scales", help="weights of the smaller pictures, as 0.5,0.25; default: as shipped")
    parser.add_argument("--localise", type=float, default=1.0, help="weight of the localisation loss")
    parser.add_argument("--hard-from", type=int, default=2500, help="step from which views differ more")
    parser.add_argument("--peak", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=25, help="steps between log lines")
    parser.add_argument("--validate", type=Path, help="folder of planar sequences, to score the averaged weights on")
    parser.add_argument("--validate-every", type=int, default=500, help="steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    photographs = views.find_photographs(options.images)
    print(f"{len(photographs)} photographs", flush=True)

    config = DETECTOR_NANO
    if options.scales:
        weights = map(float, options.scales.split(","))
        smaller = tuple((scale, weight) for (scale, _), weight in zip(config.smaller, weights, strict=True))
        config = dataclasses.replace(config, smaller=smaller)
    nets = nn.ModuleDict({"detector": DeDoDe(config), "descriptor": DeDoDe(DESCRIPTOR_NANO)})
    cast(Any, nets).to(memory_format=torch.channels_last)  # twice as fast on a CPU; torch's stubs lack it
    task = make_task(nets, options)
    optimiser = torch.optim.AdamW(task.trained.parameters(), lr=options.peak, weight_decay=1e-4)
    decay = TEACHER_DECAY if options.teacher else AVERAGE_DECAY
    average = AveragedModel(nets, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    checkpoint, step = options.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        nets.load_state_dict(state["nets"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        print(f"resumed at step {step}", flush=True)
    elif options.init:
        print(f"{start_from(nets, options.init)} of {len(nets.state_dict())} tensors from {options.init}", flush=True)

    photos = views.Photographs(photographs)
    make = partial(views.make_batch, photos, options.size, options.batch, options.seed, options.hard_from)
    end = min(options.steps, options.stop or options.steps)
    started, first, running = time.time(), step, dict[str, float]()
    for batch in prefetch(make, range(step, end)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.peak)
        seen = losses.overlap(batch)
        asked = task(step, batch, seen)
        optimiser.zero_grad()
        asked.loss.backward()
        for net in task.trained.values():
            nn.utils.clip_grad_norm_(net.parameters(), 5)
        optimiser.step()
        average.update_parameters(nets)
        step += 1

        values = dict(asked.values)
        if step % options.every == 0:
            values["repeat_1px"], values["repeat_3px"] = losses.repeatability(asked.logits, seen)
        for key, value in values.items():
            running[key] = value if key not in running else 0.97 * running[key] + 0.03 * value
        if step % options.every == 0:
            seconds = time.time() - started
            line = {"step": step, "seconds": round(seconds), **{k: round(v, 4) for k, v in running.items()}}
            line["pairs_per_s"] = round((step - first) * options.batch / seconds, 2)
            if options.validate and step % options.validate_every == 0:
                line |= validate(cast(nn.ModuleDict, average.module), options.validate)
            print(json.dumps(line), flush=True)
            with (options.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if step % 100 == 0 or step == end:
            state = {"nets": nets.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
            save(checkpoint, {**state, "step": step})


if __name__ == "__main__":
    main()
