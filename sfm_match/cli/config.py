"""`--config`: the YAML of a job, below what the command line says."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sfm_match.errors import SfmMatchError, printable
from sfm_match.options.job_file import OF_RUN, read_job


def _read_config(context: typer.Context, path: Path | None) -> dict[str, Any]:
    """The options of the stages. The file's other values become defaults here: the command line wins over them."""
    if path is None:
        return {}
    try:
        job = read_job(path)
    except SfmMatchError as error:
        print(f"sfm-match: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        raise typer.Exit(error.exit_status) from None
    context.default_map = {"as_json" if key == "json" else key: job.pop(key) for key in OF_RUN.keys() & job.keys()}
    return job


Config = Annotated[
    Path | None, typer.Option("--config", help="YAML with any of these options", callback=_read_config, is_eager=True)
]
