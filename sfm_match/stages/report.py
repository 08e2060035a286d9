"""`report.html`: how the job went, to look at. Made at the end of a run, and of any workspace, finished or not."""

from sfm_match.job.log import LOGGER
from sfm_match.job.progress import Clock, StageReport
from sfm_match.job.workspace import Workspace
from sfm_match.reporting.page import made_here, refuse_foreign, up_to_date, write_report
from sfm_match.stages.base import Job

LAST = "reconstruct"  # the stage that comes before the report


def check(job: Job) -> None:
    """Raises UsageError where `report.html` is somebody else's."""
    if not job.overwrite:
        refuse_foreign(job.workspace)


def status(job: Job) -> int:
    """Images of a report that is up to date."""
    return len(job.collection.records) if up_to_date(job.workspace) else 0


def run(job: Job) -> StageReport:
    """Writes the report, unless the workspace is as it was when it was made."""
    if not job.overwrite and up_to_date(job.workspace):
        return StageReport("report", "images", 0, status(job), facts={"path": str(job.workspace.report)})
    return make(job.workspace, replace=job.overwrite)


def refresh(job: Job, stage: str) -> None:
    """After a single stage: a page that shows what was before is made again, or, where more stages are to come, named.

    Args:
        job: the stage's.
        stage: that ran.
    """
    path = job.workspace.report
    if not made_here(path) or up_to_date(job.workspace):
        return
    if stage == LAST:
        make(job.workspace)
    else:
        LOGGER.info("%s shows what was before; `sfm-match report` makes it again", path)


def make(workspace: Workspace, *, replace: bool = False) -> StageReport:
    """Writes the report in any case.

    Args:
        workspace: it need not be open, nor whole.
        replace: a `report.html` that sfm-match did not make.

    Raises:
        NothingDone: there is no workspace.
        UsageError: there is such a file.
    """
    clock = Clock()
    with clock.on("collect"):
        written = write_report(workspace, replace=replace)
    facts = {
        "path": str(written.path),
        "bytes": written.bytes,
        "registered": written.registered,
        "level": written.level,
    }
    detail = f"{written.path}, {written.bytes / 1e6:.1f} MB: {written.title}"
    return StageReport("report", "images", written.images, 0, 0, clock.seconds, clock.spent, detail, facts)
