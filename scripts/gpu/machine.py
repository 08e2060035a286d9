"""The machine as it was: versions, and what nvidia-smi says before and after each task."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from functools import cache
from typing import Any

from gpu.plan import ROOT

_QUERY = {  # nvidia-smi's name -> ours
    "name": "gpu",
    "driver_version": "driver",
    "clocks.sm": "sm_mhz",
    "clocks.max.sm": "sm_mhz_most",
    "clocks.mem": "memory_mhz",
    "power.draw": "watts",
    "power.limit": "watts_most",
    "temperature.gpu": "celsius",
    "memory.used": "memory_mib",
    "utilization.gpu": "busy_percent",
    "clocks_throttle_reasons.active": "throttled",
}
_REASONS = {  # bits of NVML's reasons for lower clocks
    0x1: "idle",
    0x2: "clocks set by an application",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal, software",
    0x40: "thermal, hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
_WAIT = 10.0  # seconds for nvidia-smi


def state() -> dict[str, Any]:
    """Clocks, power and throttling now; of a machine without nvidia-smi the load alone."""
    found: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
    program = shutil.which("nvidia-smi")
    if program is None:
        return found
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_WAIT)
    except (OSError, subprocess.SubprocessError) as error:
        return found | {"nvidia-smi": f"{type(error).__name__}: {error}"[:200]}
    return found | parsed(done.stdout)


def parsed(line: str) -> dict[str, Any]:
    """A line of nvidia-smi: numbers as numbers, throttling in words."""
    found: dict[str, Any] = {}
    for name, text in zip(_QUERY.values(), line.strip().split("\n")[0].split(","), strict=False):
        found[name] = _value(text.strip())
    if isinstance(found.get("throttled"), str) and found["throttled"].startswith("0x"):
        bits = int(found["throttled"], 16)
        found["throttled"] = ", ".join(word for bit, word in _REASONS.items() if bits & bit) or "no"
    return found


def _value(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def versions() -> dict[str, str]:
    """Of what the figures depend on, without importing any of it."""

    def of(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    packages = ("torch", "numpy", "triton", "onnxruntime-gpu", "onnxruntime", "tensorrt-cu13", "cuda-bindings")
    found = {"python": platform.python_version(), "cores": str(os.cpu_count()), "commit": commit()}
    return found | {package: of(package) for package in packages}


@cache
def commit() -> str:
    """Of the sources: from git, or as the kit was made."""
    manifest = ROOT / "COMMIT"
    if manifest.is_file():
        return manifest.read_text(encoding="utf-8").strip()
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_WAIT).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
