"""`stages.json`: what each stage did when it last computed something, and why one could not. The report shows it."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from sfm_match.errors import NothingDone
from sfm_match.job.log import LOGGER
from sfm_match.job.progress import StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.store.records import DamagedRecord, read_json, sealed
from sfm_match.store.shard import write_text

ERROR = "error"  # key of a stage that could not do its work: its message
_LEFT_OUT = ("facts", "told", "stage")  # results are recorded where they are


@dataclass(frozen=True)
class _Done:
    """What readers rely on."""

    seconds: float
    spent: dict[str, float]
    unit: str
    done: int
    cached: int = 0
    failed: int = 0
    detail: str = ""
    at: str = ""


@dataclass(frozen=True)
class _Failed:
    error: str
    at: str = ""


def read_stages(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Stage -> the fields of its `StageReport` (`seconds`, `spent`, `done`, ...) and `at`, a time; or `error`.

    Empty where nothing was recorded, or where it cannot be read.
    """
    try:
        stored = stages_on_record(workspace)
    except DamagedRecord as error:
        LOGGER.warning("%s", error)
        return {}
    return {stage: one for stage, one in stored.items() if _whole(one)}


def stages_on_record(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """As `read_stages`, whatever the fields are. Raises DamagedRecord."""
    try:
        return read_json(workspace.stages, dict[str, dict[str, Any]], "the times of earlier stages are not known")
    except FileNotFoundError:
        return {}


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


def _whole(one: dict[str, Any]) -> bool:
    """Whether it has what readers rely on."""
    try:
        msgspec.convert(one, _Failed if ERROR in one else _Done)
    except msgspec.ValidationError:
        return False
    return True


def _write(workspace: Workspace, stages: dict[str, dict[str, Any]]) -> None:
    write_text(workspace.stages, json.dumps(sealed(stages), indent=1) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
