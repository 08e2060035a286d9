"""The command line: parses, calls, prints.

Options come from the dataclasses of `config`, so that a command, `run`, its YAML and the Python function cannot differ.
"""

import dataclasses
import inspect
import json
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sfm_match.colmap import let_colmap_speak
from sfm_match.config import (
    GROUPS,
    ExtractOptions,
    ImportOptions,
    MatchOptions,
    Options,
    PairsOptions,
    ReconstructOptions,
    dashed,
    read_job,
    run_name,
)
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.progress import StageReport

SOME_FAILED, WRONG_USE, NOTHING, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="A folder of photographs becomes a COLMAP model, with DeDoDe features.",
    epilog="Exit status: 0 done, 1 some images failed (see failed.csv), 2 wrong use, 3 nothing could be done, "
    "130 interrupted.",
)

Images = Annotated[Path, typer.Option("--images", help="folder of photographs, searched with its subfolders")]
Place = Annotated[Path, typer.Option("--workspace", help="folder of the job's results")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace results that other options made")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object a stage on stdout")]
Verbose = Annotated[bool, typer.Option("--verbose", help="tracebacks, and COLMAP's own log")]
WORKSPACE = Path("workspace")


def _fields_as_parameters(group: type[Options], *, in_run: bool) -> list[inspect.Parameter]:
    parameters = []
    for f in dataclasses.fields(group):
        name = run_name(f) if in_run else f.name
        switch = f.type in (bool, bool | None)
        declaration = f"--{dashed(name)}/--no-{dashed(name)}" if switch else f"--{dashed(name)}"
        choices = f.metadata["choices"]
        text = f.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
        kind: Any = f.type
        annotation = Annotated[kind, typer.Option(declaration, help=text)]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=annotation)
        )
    return parameters


def with_options(*groups: type[Options], in_run: bool = False) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Gives a command the options of some groups, and turns errors into a line and an exit status.

    The command takes its own parameters and `**options`; it returns whether something failed on the way, or None.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., None]:
        own = inspect.signature(command).parameters.values()
        parameters = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for group in groups:
            parameters += _fields_as_parameters(group, in_run=in_run)
        verbose_option = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)

        def call(verbose: bool, **arguments: Any) -> None:
            if verbose:
                let_colmap_speak()
            try:
                failed = command(**arguments)
            except SfmMatchError as error:
                _complain(str(error), verbose)
                raise typer.Exit(error.exit_status) from None
            except (OSError, sqlite3.Error) as error:  # a full disk, a folder without permission
                _complain(f"{error}; what is done stands", verbose)
                raise typer.Exit(NOTHING) from None
            except Exception as error:  # noqa: BLE001 - a bug of ours; the user gets a line all the same
                _complain(f"internal error, please report it: {type(error).__name__}: {error}", verbose)
                raise typer.Exit(NOTHING) from None
            except KeyboardInterrupt:
                _complain("interrupted; what is done stands, the same command goes on from here", verbose)
                raise typer.Exit(INTERRUPTED) from None
            if failed:
                raise typer.Exit(SOME_FAILED)

        call.__name__, call.__doc__ = command.__name__, command.__doc__
        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*parameters, verbose_option)]
        call.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in keyword}
        return call

    return decorate


def _complain(message: str, verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
    print(f"sfm-match: {' '.join(message.split())}", file=sys.stderr)


def _show(report: StageReport, as_json: bool) -> None:
    print(json.dumps(report.as_json()) if as_json else report.line(), flush=True)


@app.command()
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
    _show(report, as_json)
    return report.failed > 0


@app.command()
@with_options(PairsOptions)
def pairs(
    workspace: Place = WORKSPACE,
    images: Annotated[Path | None, typer.Option("--images", help="look at this folder first")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Which images to match: writes pairs.txt."""
    from sfm_match import api

    _show(api.pairs(workspace, images, overwrite=overwrite, **options), as_json)


@app.command()
@with_options(MatchOptions)
def match(
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Matches of every pair of pairs.txt."""
    from sfm_match import api

    _show(api.match(workspace, overwrite=overwrite, quiet=False, **options), as_json)


@app.command(name="import")
@with_options(ImportOptions)
def import_(
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Builds database.db and verifies the geometry of every pair."""
    from sfm_match import api

    _show(api.import_(workspace, overwrite=overwrite, quiet=False, **options), as_json)


@app.command()
@with_options(ReconstructOptions)
def reconstruct(
    workspace: Place = WORKSPACE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Builds sparse/0 ... with COLMAP's mappers."""
    from sfm_match import api

    _show(api.reconstruct(workspace, overwrite=overwrite, **options), as_json)


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """The file's values become the defaults, so that the command line wins over them."""
    if path is not None:
        try:
            job = read_job(path)
            context.default_map = {"as_json" if key == "json" else key: value for key, value in job.items()}
        except SfmMatchError as error:
            print(f"sfm-match: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_status) from None
    return path


@app.command()
@with_options(*GROUPS, in_run=True)
def run(
    images: Images,
    workspace: Place = WORKSPACE,
    _config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML with any of these options", callback=_read_config, is_eager=True),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    **options: Any,
) -> bool:
    """All stages: extract, pairs, match, import, reconstruct. Goes on where an earlier run stopped."""
    from sfm_match import api

    reports = api.run(
        images,
        workspace,
        overwrite=overwrite,
        quiet=False,
        on_report=lambda report: _show(report, as_json),
        **options,
    )
    if not as_json:
        computed = any(report.done for report in reports)
        seconds = sum(report.seconds for report in reports)
        print(
            f"done in {seconds:.1f} s: {workspace}"
            if computed
            else f"everything stands, nothing recomputed: {workspace}"
        )
    return reports[0].failed > 0


@app.command()
@with_options()
def demo(
    workspace: Place = Path("demo"),
    views: Annotated[int, typer.Option("--views", help="number of cameras")] = 16,
) -> None:
    """Renders a scene with known cameras, reconstructs it, and prints how far the cameras are from the truth."""
    from sfm_match.demo_job import demo as run_demo

    result = run_demo(workspace, views, quiet=False, on_report=lambda report: _show(report, False))
    print(result.line())


@app.command()
@with_options(ExtractOptions, MatchOptions, in_run=True)
def infer(
    image_a: Annotated[Path, typer.Argument(metavar="A", help="an image")],
    image_b: Annotated[Path, typer.Argument(metavar="B", help="another")],
    viz: Annotated[Path | None, typer.Option("--viz", help="picture of the matches to write")] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Matches two images; with --viz a picture, with --json coordinates and scores."""
    from sfm_match.pair import infer as run_infer

    result = run_infer(image_a, image_b, viz, **options)
    print(json.dumps(result.as_json()) if as_json else result.line())


models = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The models and their weights.")
app.add_typer(models, name="models")
WeightsDir = Annotated[
    Path | None,
    typer.Option("--weights-dir", help="folder of weights; without: SFM_MATCH_WEIGHTS, or the cache"),
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="a model")]


@models.command(name="list")
@with_options()
def list_models(weights_dir: WeightsDir = None) -> None:
    """Every model, and what of it is here."""
    from sfm_match.models import BUILT_IN, zoo

    folder = zoo.weights_dir(weights_dir)
    for name in BUILT_IN:
        print(f"{name}: built in")
    for name, files in zoo.PUBLISHED.items():
        print(f"{name}: " + ", ".join(f"{file.name} {zoo.state(file, folder)}" for file in files))


@models.command()
@with_options()
def download(name: ModelName, weights_dir: WeightsDir = None) -> None:
    """Fetches a model's weights; goes on where an earlier attempt stopped."""
    from sfm_match.models import zoo

    folder = zoo.weights_dir(weights_dir)
    for file in zoo.files_of(name):
        print(zoo.download(file, folder))


@models.command()
@with_options()
def verify(name: ModelName, weights_dir: WeightsDir = None) -> bool:
    """Checks a model's files against their sha256."""
    from sfm_match.models import BUILT_IN, find_model, zoo

    if name in BUILT_IN:
        find_model(name)
        print(f"{name}: built in, present")
        return False
    folder = zoo.weights_dir(weights_dir)
    states = {file.name: zoo.state(file, folder) for file in zoo.files_of(name)}
    for file, found in states.items():
        print(f"{folder / file}: {found}")
    return any(found != "present" for found in states.values())


@models.command()
@with_options()
def path(name: ModelName, weights_dir: WeightsDir = None) -> None:
    """Prints where a model's files are, or belong."""
    from sfm_match.models import BUILT_IN, find_model, zoo

    if name in BUILT_IN:
        model = find_model(name)
        print(model.detector, model.descriptor, sep="\n")
        return
    for file in zoo.files_of(name):
        print(zoo.weights_dir(weights_dir) / file.name)


export = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Networks to files that run without torch.")
app.add_typer(export, name="export")


@export.command(name="onnx")
@with_options()
def export_onnx(
    model: Annotated[str, typer.Option("--model", help="dedode-nano, dedode-l-b or dedode-l-g")] = "dedode-l-b",
    out: Annotated[Path, typer.Option("--out", help="folder of the files")] = Path("weights"),
    img_size: Annotated[tuple[int, int], typer.Option("--img-size", help="height and width, pixels")] = (512, 512),
    batch: Annotated[int, typer.Option("--batch", help="images, or pairs with --end2end")] = 1,
    dynamic_img_size: Annotated[bool, typer.Option("--dynamic-img-size", help="files for any image size")] = False,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="files for any batch")] = False,
    num_keypoints: Annotated[int, typer.Option("--num-keypoints", help="keypoints of an image")] = 1024,
    fp16: Annotated[bool, typer.Option("--fp16", help="half-precision weights")] = False,
    end2end: Annotated[bool, typer.Option("--end2end", help="one file from images to matches")] = False,
    weights: Annotated[
        list[Path] | None, typer.Option("--weights", help="checkpoint; once a network; without: the downloaded ones")
    ] = None,
    weights_dir: WeightsDir = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="seeded weights that match nothing, for shape checks")
    ] = False,
    as_json: AsJson = False,
) -> bool:
    """A model's networks to ONNX, each with a record of how near it comes to torch."""
    try:
        from exports.command import export_onnx as run_export
        from exports.onnx_export import Shapes
    except ImportError as error:
        raise UsageError(
            f"export needs torch and onnx ({error}); install them with: pip install 'sfm-match[export]'"
        ) from None
    from sfm_match.models import zoo

    shapes = Shapes(img_size, batch, dynamic_img_size, dynamic_batch, num_keypoints)
    failed = False
    if not weights and not random_weights and model in zoo.PUBLISHED:
        weights = [zoo.weights_dir(weights_dir) / file.name for file in zoo.files_of(model)]
        absent = [file for file in weights if not file.is_file()]
        if absent:
            message = f"{absent[0]}: not there; run `sfm-match models download {model}`, or give --weights"
            raise NothingDone(message)
    if random_weights:
        print("sfm-match: RANDOM WEIGHTS: these files are for checks of shapes; they match nothing", file=sys.stderr)
    try:
        made = run_export(
            model, out, shapes, half=fp16, end_to_end=end2end, weights=weights, random_weights=random_weights
        )
        for file in made:
            parity = file.parity
            failed |= parity is not None and not parity.passed
            if as_json:
                print(json.dumps({"file": str(file.path), "parity": dataclasses.asdict(parity) if parity else None}))
                continue
            text = f"{file.path}, {file.path.stat().st_size / 1e6:.1f} MB"
            if parity is not None:
                share = parity.keypoint_overlap if parity.keypoint_overlap is not None else parity.descriptor_cosine
                what = "keypoints equal to torch" if parity.keypoint_overlap is not None else "least cosine to torch"
                text += f", {what} {share:.4f}, {'passed' if parity.passed else 'FAILED, and refused by the runtime'}"
            print(text, flush=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return failed


def main() -> None:
    """Errors of the command line's grammar, too, are one line."""
    usage_error: Any = typer.BadParameter.__bases__[0]  # typer carries its own click, under no public name
    try:
        status = app(prog_name="sfm-match", standalone_mode=False)
    except usage_error as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "sfm-match"
        if len(sys.argv) == 1 and context is not None:
            print(context.get_help())
        else:
            print(f"{where}: {' '.join(error.format_message().split())} (see {where} --help)", file=sys.stderr)
        sys.exit(WRONG_USE)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)
