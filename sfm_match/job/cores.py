"""How many processors this process may use: on a cluster often fewer than the machine has."""

import math
import os
from pathlib import Path

VARIABLE = "SFM_MATCH_CORES"  # says it, whatever the machine has
_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of this process's control group, version 2, as a container sees it


def cores() -> int:
    """As many as `SFM_MATCH_CORES` says, or as this process's affinity and its control group's quota leave it."""
    said = os.environ.get(VARIABLE, "")
    if said.isdecimal() and int(said) >= 1:
        return int(said)
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(own, _quota() or own))


def _quota() -> int | None:
    """Processors' worth of time that the control group has; None where it has all."""
    try:
        most, period = _QUOTA.read_text(encoding="ascii").split()
        return math.ceil(int(most) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # none, another system, or "max"
        return None
