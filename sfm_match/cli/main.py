"""The command line: parses, calls, prints.

Options come from the dataclasses of `options`: a command, `run`, its YAML and the Python function cannot differ.
"""

import json
import re
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfm_match import __version__, signals
from sfm_match.cli import networks as cli_networks
from sfm_match.cli.base import (
    INTERRUPTED,
    SOME_FAILED,
    WRONG_USE,
    AsJson,
    GroupedCommand,
    with_bare_values,
    with_options,
)
from sfm_match.cli.config import Config
from sfm_match.cli.lines import after_run, after_stage, fitted
from sfm_match.cli.streams import output_lost, prepare_streams
from sfm_match.errors import NothingDone, UsageError, printable, quoted
from sfm_match.formats import FORMATS, SOURCES
from sfm_match.job.log import asked_for_all
from sfm_match.options.localize import LocalizeOptions
from sfm_match.options.pairs import PairsOptions
from sfm_match.options.stages import (
    GROUPS,
    ExtractOptions,
    ImportOptions,
    MatchOptions,
    ReconstructOptions,
)

if TYPE_CHECKING:
    from sfm_match.job.progress import StageReport  # its progress bar is not needed for a help text

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="A folder of photographs becomes a COLMAP model, with DeDoDe features.",
    epilog="Exit status: 0 done, 1 some images failed (failed.csv) or too few are "
    "registered (--min-registered), or some queries are not localized, 2 wrong use, 3 nothing could be done, "
    "130 interrupted (143 by SIGTERM, 129 by SIGHUP).",
)

Images = Annotated[
    Path, typer.Option("--images", help="folder of photographs or videos, searched with its subfolders, or a video")
]
Place = Annotated[Path, typer.Option("--workspace", help="folder of the job's results")]
WithReport = Annotated[bool, typer.Option("--report/--no-report", help="end with report.html")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace results that other options made")]
WORKSPACE = Path("workspace")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"sfm-match {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    cli_networks.help_without_command(context)


def _show(report: "StageReport", as_json: bool) -> None:
    print(json.dumps(report.as_json()) if as_json else fitted(report.lines(verbose=asked_for_all())), flush=True)


def _end(report: "StageReport", workspace: Path, as_json: bool, *, whole: bool = True) -> None:
    """Of a stage that ran alone: its lines, and, where it is whole, what comes next."""
    _show(report, as_json)
    if whole and not as_json:
        print(after_stage(report, workspace), flush=True)


@app.command(cls=GroupedCommand)
@with_options(ExtractOptions)
def extract(
    images: Images,
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> bool:
    """Features of every image."""
    from sfm_match import api

    report = api.extract(images, workspace, overwrite=overwrite, quiet=False, **options)
    _end(report, workspace, as_json, whole=not (options.get("part") or options.get("dummy_network")))
    return report.failed > 0


@app.command(cls=GroupedCommand)
@with_options(PairsOptions)
def pairs(
    workspace: Place = WORKSPACE,
    images: Annotated[Path | None, typer.Option("--images", help="scan this folder for new images first")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Which images to match: writes pairs.txt."""
    from sfm_match import api

    _end(api.pairs(workspace, images, overwrite=overwrite, quiet=False, **options), workspace, as_json)


@app.command(cls=GroupedCommand)
@with_options(MatchOptions)
def match(
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Matches of every pair of pairs.txt."""
    from sfm_match import api

    report = api.match(workspace, overwrite=overwrite, quiet=False, **options)
    _end(report, workspace, as_json, whole=not options.get("part"))


@app.command(name="import", cls=GroupedCommand)
@with_options(ImportOptions)
def import_(
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Builds database.db and verifies the geometry of every pair."""
    from sfm_match import api

    _end(api.import_(workspace, overwrite=overwrite, quiet=False, **options), workspace, as_json)


@app.command(cls=GroupedCommand)
@with_options(ReconstructOptions)
def reconstruct(
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> bool:
    """Builds sparse/0 ... with COLMAP's mappers."""
    from sfm_match import api

    report = api.reconstruct(workspace, overwrite=overwrite, quiet=False, **options)
    _end(report, workspace, as_json)
    return bool(report.facts["too_few"])


@app.command(cls=GroupedCommand)
@with_options()
def report(
    workspace: Place = WORKSPACE,
    open_page: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option("--pair", metavar="A B", help="draw these two images and their matches, instead of the page"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="with --pair: picture to write, .png or .jpg  [default: pair.png]")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", help="draw the model from above and from the side to this file, instead of the page"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that are there")] = False,
    as_json: AsJson = False,
) -> None:
    """Writes report.html: how the job went, to look at. Of any workspace, unfinished or broken ones, too."""
    from sfm_match import api

    made = api.report(workspace, pair=pair, out=out, png=png, overwrite=overwrite)
    if "pictures" in made.facts and not as_json:
        print("\n".join(made.facts["pictures"]))
    else:
        _show(made, as_json)
    if open_page:
        signals.receive_blocked()  # or the browser would not
        webbrowser.open(Path(made.facts["path"]).resolve().as_uri())


@app.command(cls=GroupedCommand)
@with_options(*GROUPS)
def run(
    images: Images,
    workspace: Place = WORKSPACE,
    config: Config = None,  # noqa: ARG001 - `with_options` reads it
    report: WithReport = True,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> bool:
    """All stages: extract, pairs, match, import, reconstruct, report. Resumes where an earlier run stopped."""
    from sfm_match import api

    reports = api.run(
        images,
        workspace,
        report=report,
        overwrite=overwrite,
        quiet=False,
        on_report=lambda one: _show(one, as_json),
        **options,
    )
    if not as_json:
        *cures, last = after_run(reports, workspace)
        for cure in cures:
            print(fitted([cure]))
        print(last, flush=True)
    return reports[0].failed > 0 or reports[-1].facts.get("too_few", False)


@app.command(cls=GroupedCommand)
@with_options(*GROUPS)
def plan(
    images: Images,
    workspace: Place = WORKSPACE,
    config: Config = None,  # noqa: ARG001 - `with_options` reads it
    report: WithReport = True,  # noqa: ARG001 - as `run` takes it
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """What `run` would do with these options: images, pairs, disk, memory, time. Starts nothing, writes nothing."""
    from sfm_match.commands.plan.job import plan as make_plan

    found = make_plan(images, workspace, overwrite=overwrite, **options)
    print(json.dumps(found.as_json()) if as_json else "\n".join(found.lines()), flush=True)
    if found.refusal is not None:
        raise UsageError(found.refusal)


@app.command(cls=GroupedCommand)
@with_options()
def demo(
    workspace: Place = Path("demo"),
    views: Annotated[int, typer.Option("--views", help="number of cameras")] = 16,
) -> None:
    """Renders a scene with known cameras, reconstructs it, and prints how far the cameras are from the truth."""
    from sfm_match.commands.demo import demo as run_demo

    result = run_demo(workspace, views, quiet=False, on_report=lambda report: _show(report, False))
    print(result.line())


@app.command(cls=GroupedCommand)
@with_options()
def doctor(
    workspace: Annotated[Path | None, typer.Option("--workspace", help="check this job, too")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="move damaged files aside")] = False,
    as_json: AsJson = False,
) -> bool:
    """What this machine has and lacks, and what a workspace needs next."""
    from sfm_match.commands.doctor import doctor as check

    health = check(workspace, repair=repair)
    print(json.dumps(health.as_json()) if as_json else "\n".join(health.lines()))
    return health.trouble


@app.command(cls=GroupedCommand)
@with_options()
def convert(
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="|".join(FORMATS),
            help="; ".join(f"{name}: {line.leaves}" for name, line in FORMATS.items()),
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="with --to: folder to write to")] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="|".join(SOURCES), help="bring this program's features and matches in"),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="with --from: folder of photographs")] = None,
    features: Annotated[Path | None, typer.Option("--features", help="with --from: hloc's features, .h5")] = None,
    matches: Annotated[Path | None, typer.Option("--matches", help="with --from: hloc's matches, .h5")] = None,
    pairs: Annotated[Path | None, typer.Option("--pairs", help="with --from: list of pairs, two names a line")] = None,
    size: Annotated[
        int, typer.Option("--size", help="with --from: long side of the images that features are of, pixels")
    ] = ExtractOptions.size,
    workspace: Place = WORKSPACE,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="with --from: replace results of other origin; with --to: replace files"),
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """Writes what a workspace holds in the files of another program, or brings another program's files in."""
    from sfm_match.commands.convert import convert as write
    from sfm_match.commands.convert import from_hloc

    if (to is None) == (from_ is None):
        raise UsageError("convert: takes --to or --from, one of them")
    if to is not None:
        if out is None:
            raise UsageError(f"--to {to}: needs --out, the folder to write to")
        files = write(workspace, to=to, out=out, overwrite=overwrite)
        print(json.dumps([str(path) for path in files]) if as_json else "\n".join(map(str, files)))
        return False
    if from_ not in SOURCES:
        raise UsageError(f"--from {from_}: accepted values are {', '.join(SOURCES)}")
    if images is None or features is None or matches is None or pairs is None:
        raise UsageError(f"--from {from_}: needs --images, --features, --matches and --pairs")
    reports = from_hloc(
        images, workspace, features=features, matches=matches, pairs=pairs, size=size, overwrite=overwrite
    )
    for report in reports:
        _show(report, as_json)
    return reports[0].failed > 0


@app.command(cls=GroupedCommand)
@with_options()
def cubemap(
    images: Annotated[Path, typer.Option("--images", help="folder of equirectangular panoramas")],
    out: Annotated[Path, typer.Option("--out", help="folder for the pictures and rig.json")],
) -> bool:
    """Cuts 360-degree panoramas into pinhole pictures on a rig, for `run --rig-config`."""
    from sfm_match.commands.cubemap import cubemap as cut

    found = cut(images, out, quiet=False)
    print(found.line())
    return bool(found.failed)


@app.command(cls=GroupedCommand)
@with_options(LocalizeOptions)
def localize(
    queries: Annotated[list[Path], typer.Argument(metavar="QUERY", help="photographs, or folders of them")],
    workspace: Place = WORKSPACE,
    out: Annotated[
        Path | None, typer.Option("--out", help="file for the poses: .json, or .txt for hloc's lines")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file of --out")] = False,
    as_json: AsJson = False,
    **options: Any,
) -> bool:
    """Poses of photographs in the largest model of a workspace, which stays as it is."""
    from sfm_match.commands.localize import localize as find_poses

    found = find_poses(
        queries,
        workspace,
        out,
        overwrite=overwrite,
        quiet=False,
        on_result=lambda one: print(json.dumps(one.as_json()) if as_json else one.line(), flush=True),
        **options,
    )
    localized = sum(one.localized for one in found)
    if not localized:
        raise NothingDone(f"{workspace}: no query is localized, of {len(found):,}")
    return localized < len(found)


app.command(cls=GroupedCommand)(cli_networks.infer)
app.command(cls=GroupedCommand)(cli_networks.bench)
app.add_typer(cli_networks.models, name="models")
app.add_typer(cli_networks.export, name="export")


def main() -> None:
    """The command line, with errors of its grammar in one line, too. A signal ends the process here (`signals`)."""
    with signals.handled():
        prepare_streams()
        try:
            status = app(with_bare_values(sys.argv[1:], GROUPS), prog_name="sfm-match", standalone_mode=False)
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            where = context.command_path if context is not None else "sfm-match"
            message = re.sub(r"'[^']{80,}'", lambda long: quoted(long.group()), error.format_message())
            print(f"{where}: {printable(' '.join(message.split()))} (see {where} --help)", file=sys.stderr)
            sys.exit(WRONG_USE)
        except (typer.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        status = status if isinstance(status, int) else 0
        sys.exit(status or (SOME_FAILED if output_lost() else 0))
