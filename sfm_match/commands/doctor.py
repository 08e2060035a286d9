"""`doctor`: what this machine has and lacks, what a workspace holds and needs next, and the command for each."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfm_match.commands.workspace_files import checks
from sfm_match.compiled import kernels
from sfm_match.errors import NothingDone
from sfm_match.images import decoders
from sfm_match.job.workspace import Workspace
from sfm_match.models import BUILT_IN, find_model, zoo
from sfm_match.options.arguments import checked
from sfm_match.options.devices import DEVICES
from sfm_match.options.stages import NVIMGCODEC
from sfm_match.runtime.devices import choose, version_of, why_not
from sfm_match.runtime.gpus import cuda_of_driver, gpus
from sfm_match.stages.base import STAGES
from sfm_match.store.shard import set_aside

PACKAGES = (
    "sfm-match",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt-cu13",
    "cuda-bindings",
    "nvidia-nvimgcodec-cu13",
    "torch",
    "pycolmap",
    "h5py",
)


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and whether somebody has to do something."""

    what: str
    state: str
    trouble: bool = False


@dataclass(frozen=True)
class Health:
    """Everything that was found."""

    findings: list[Finding]

    @property
    def trouble(self) -> bool:
        return any(finding.trouble for finding in self.findings)

    def lines(self) -> list[str]:
        width = max(len(finding.what) for finding in self.findings)
        return [f"{'!' if f.trouble else ' '} {f.what:{width}}  {f.state}" for f in self.findings]

    def as_json(self) -> dict[str, Any]:
        return {"trouble": self.trouble, "findings": [asdict(finding) for finding in self.findings]}


@checked
def doctor(workspace: str | Path | None = None, *, repair: bool = False) -> Health:
    """Looks at the machine, and at a workspace where one is named.

    Args:
        workspace: folder of a job.
        repair: move damaged files aside, so that the next run makes them again.

    Raises:
        NothingDone: no such workspace.
    """
    findings = [*_system(), *_gpu(), *_devices(), *_models()]
    if workspace is not None:
        findings += _workspace(Path(workspace), repair=repair)
    return Health(findings)


def _system() -> list[Finding]:
    versions = {package: version_of(package) for package in PACKAGES}
    found = [Finding("system", f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")]
    found += [Finding(package, version or "not installed") for package, version in versions.items()]
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        cure = "they are the same files; pip uninstall both, then pip install one of them"
        found.append(Finding("onnxruntime twice", cure, trouble=True))
    return found


def _gpu() -> list[Finding]:
    cuda = cuda_of_driver()
    if cuda is None:
        return [Finding("NVIDIA driver", "none found")]
    found = [Finding("NVIDIA driver", f"serves CUDA {cuda}")]
    for index, gpu in enumerate(gpus()):
        major, minor = gpu.compute_capability
        name = f"GPU {index}" if len(gpus()) > 1 else "GPU"  # as in --device cuda:1
        found.append(Finding(name, f"{gpu.name}, compute capability {major}.{minor}, {gpu.memory / 2**30:.0f} GiB"))
    return found


def _devices() -> list[Finding]:
    found = [Finding(f"--device {device}", why_not(device) or "available") for device in DEVICES if device != "auto"]
    found.append(Finding(f"--decoder {NVIMGCODEC}", decoders.why_not(NVIMGCODEC) or "available"))
    kernel = next(iter(kernels()), None)
    slower = "with numpy, in twice the time or more: nothing was compiled at installation, or not for this processor"
    found.append(Finding("matching and adjustment on the CPU", f"compiled, with {kernel}" if kernel else slower))
    choice = choose("auto")
    return [*found, Finding("--device auto", f"takes {choice.device} ({choice.reason})")]


def _models() -> list[Finding]:
    found = []
    for name in BUILT_IN:
        try:
            find_model(name)
            found.append(Finding(name, "built in"))
        except NothingDone as error:
            found.append(Finding(name, str(error), trouble=True))
    folder = zoo.weights_dir()
    for name, files in zoo.PUBLISHED.items():
        absent = [file.name for file in files if zoo.state(file, folder) != "present"]
        state = f"not downloaded; sfm-match models download {name}" if absent else f"in {folder}"
        found.append(Finding(name, state))
    return found


def _workspace(folder: Path, *, repair: bool) -> list[Finding]:
    """What the stages left. Without `repair` nothing is locked or written: a job may be running."""
    if not folder.is_dir():
        raise NothingDone(f"--workspace {folder}: no such folder")
    place = Workspace(folder)
    if not repair:
        return [*_results(place, repair=False), Finding("next", _next(place))]
    place.lock()
    try:
        return [*_results(place, repair=True), Finding("next", _next(place))]
    finally:
        place.unlock()


def _results(place: Workspace, *, repair: bool) -> list[Finding]:
    found = [Finding("workspace", str(place.folder))]
    for check in checks(place):
        mended = repair and check.ours and [set_aside(path).name for path in check.paths if os.path.lexists(path)]
        if mended:
            found.append(Finding("moved aside", f"{check.line}; now {', '.join(mended)}: the next run makes it again"))
        elif check.trouble:
            cure = "; --repair moves it aside, the next run makes it again" if check.ours and not repair else ""
            found.append(Finding("damaged" if check.ours else check.what, f"{check.line}{cure}", trouble=True))
        else:
            found.append(Finding(check.what, check.line))
    return found


def _next(place: Workspace) -> str:
    """The first stage without a result."""
    for stage in STAGES:
        if not stage.result(place).exists():
            images = " --images DIR" if stage.reads_images else ""
            return f"sfm-match {stage.name}{images} --workspace {place.folder}"
    return "every stage has a result; `sfm-match run` again adds what is new"
