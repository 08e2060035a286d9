"""What is in `sparse/` before `reconstruct` writes there: its own models, damaged ones, or somebody else's work."""

from pathlib import Path
from typing import Any

from sfm_match.colmap.model_check import DamagedModel, check_structure
from sfm_match.errors import UsageError
from sfm_match.job.log import LOGGER
from sfm_match.job.workspace import Workspace
from sfm_match.store.model_record import changed, files_below, read_model_record
from sfm_match.store.records import DamagedRecord
from sfm_match.store.shard import set_aside


def refuse_foreign_models(workspace: Workspace, *, overwrite: bool) -> None:
    """Raises UsageError where `sparse/` holds what sfm-match did not write: it would be replaced as a whole."""
    sparse = workspace.sparse
    if overwrite or not sparse.exists() or _damage(workspace) is not None:
        return
    recorded = read_summary(sparse).get("files", {})
    edited = {sparse / name for name in changed(sparse, recorded) if (sparse / name).exists()}
    strange = [sparse / name for name in files_below(sparse) if name not in recorded or sparse / name in edited]
    if strange:
        raise UsageError(
            f"{strange[0]}: not written by sfm-match, and {sparse} is replaced as a whole; "
            "move it, choose another --workspace, or add --overwrite"
        )


def _damage(workspace: Workspace) -> str | None:
    """What is wrong with models that `reconstruct` wrote; None where nothing is, or somebody changed them with care."""
    sparse = workspace.sparse
    try:
        record = read_model_record(sparse)
        models = {name.partition("/")[0] for name in changed(sparse, record.get("files", {}))}
        for folder in sorted(models & {str(number) for number in range(len(record.get("models", [])))}):
            check_structure(sparse / folder)
    except DamagedRecord as error:
        return error.reason if "reconstruct" in workspace.read_record() else None
    except DamagedModel as error:
        return str(error)
    return None


def move_aside_if_damaged(workspace: Workspace) -> None:
    """So that they are made again."""
    reason = _damage(workspace)
    if reason is not None:
        aside = set_aside(workspace.sparse)
        LOGGER.warning("%s; %s moved to %s and mapped again", reason, workspace.sparse, aside.name)


def read_summary(sparse: Path) -> dict[str, Any]:
    """The content of sparse/sfm-match.json; nothing where it cannot be read."""
    try:
        return read_model_record(sparse)
    except DamagedRecord:
        return {}
