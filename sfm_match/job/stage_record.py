"""`stages.json`: what each stage did when it last computed something, and why one could not. The report shows it."""

import json
import time
from dataclasses import asdict
from typing import Any

from sfm_match.errors import NothingDone
from sfm_match.job.progress import StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.store.shard import write_text

ERROR = "error"  # key of a stage that could not do its work: its message
_LEFT_OUT = ("facts", "stage")  # results are recorded where they are


def read_stages(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Stage -> the fields of its `StageReport` (`seconds`, `spent`, `done`, ...) and `at`, a time; or `error`.

    Empty where nothing was recorded, or where it cannot be read.
    """
    try:
        stored = json.loads(workspace.stages.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {stage: one for stage, one in stored.items() if _whole(one)} if isinstance(stored, dict) else {}


def record_stage(workspace: Workspace, report: StageReport) -> None:
    """Records what a stage did. Of one that computed nothing, the earlier times stay."""
    before = read_stages(workspace)
    known = before.get(report.stage)
    if known is not None and not report.done and ERROR not in known:
        return
    fields = {name: value for name, value in asdict(report).items() if name not in _LEFT_OUT}
    _write(workspace, {**before, report.stage: {**fields, "at": _now()}})


def record_failure(workspace: Workspace, stage: str, error: NothingDone) -> None:
    """Records why a stage could do nothing."""
    _write(workspace, {**read_stages(workspace), stage: {ERROR: str(error), "at": _now()}})


def _whole(one: Any) -> bool:
    """Whether it has what readers rely on."""
    return isinstance(one, dict) and (ERROR in one or {"seconds", "spent", "unit", "done"} <= one.keys())


def _write(workspace: Workspace, stages: dict[str, dict[str, Any]]) -> None:
    write_text(workspace.stages, json.dumps(stages, indent=1) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
