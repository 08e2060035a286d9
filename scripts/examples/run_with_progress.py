"""A whole job from Python: typed options, a callback for a progress bar of your own, the reports of the stages.

python scripts/examples/run_with_progress.py photos workspace
"""

import sys

import sfm_match
from sfm_match.errors import NothingDone
from sfm_match.job.progress import StageReport
from sfm_match.options.stages import ExtractOptions, ImportOptions


def show(stage: str, done: int, total: int) -> None:
    """Called often, and from any thread: be quick."""
    if done == total:
        print(f"  {stage}: {done} of {total}")


def say(report: StageReport) -> None:
    """Called as each stage ends; `report.facts` holds its numbers."""
    print(report.line())


def main(images: str, workspace: str, size: int = 1024, max_keypoints: int = 4096) -> None:
    """Reconstructs a folder of photographs. The same call again resumes, or finds everything up to date."""
    try:
        reports = sfm_match.run(
            images,
            workspace,
            extract=ExtractOptions(size=size, max_keypoints=max_keypoints),
            pairs="exhaustive",
            import_=ImportOptions(camera_mode="single"),
            on_progress=show,
            on_report=say,
        )
    except NothingDone as error:  # no readable image, or no model: the message says why
        sys.exit(str(error))
    facts = reports[-1].facts
    print(f"{facts['registered']} of {facts['total']} images registered")


if __name__ == "__main__":
    # workers of --devices are processes that import this file: nothing may run when they do
    main(sys.argv[1], sys.argv[2])
