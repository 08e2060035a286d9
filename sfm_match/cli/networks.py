"""The commands about networks and not about jobs: two images, weights, exports, latencies."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sfm_match.cli.base import WRONG_USE, AsJson, GroupedCommand, with_options
from sfm_match.errors import UsageError
from sfm_match.options.stages import ExtractOptions, MatchOptions

WeightsDir = Annotated[
    Path | None,
    typer.Option("--weights-dir", help="folder of weights  [default: SFM_MATCH_WEIGHTS, or the cache]"),
]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="a model")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace files that are there")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="seeded weights that match nothing, for shape checks")
]


def help_without_command(context: typer.Context) -> None:
    """What a group of commands does when none is named."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(WRONG_USE)


@with_options(ExtractOptions, MatchOptions)
def infer(
    image_a: Annotated[Path, typer.Argument(metavar="A", help="an image")],
    image_b: Annotated[Path, typer.Argument(metavar="B", help="another")],
    viz: Annotated[Path | None, typer.Option("--viz", help="picture of the matches to write")] = None,
    end2end: Annotated[
        bool, typer.Option("--end2end", help="through one network from images to matches, both images in A's shape")
    ] = False,
    adjust_keypoints: Annotated[
        bool,
        typer.Option(
            help="move B's points to where the image patches around the matches align; not with --end2end  "
            "[default: on]",
            show_default=False,
        ),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the picture of --viz")] = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Matches two images; with --viz a picture, with --json coordinates and scores."""
    from sfm_match.commands.infer import infer as run_infer

    result = run_infer(
        image_a,
        image_b,
        viz,
        end2end=end2end,
        adjust_keypoints=adjust_keypoints,
        overwrite=overwrite,
        **options,
    )
    print(json.dumps(result.as_json()) if as_json else result.line())


models = typer.Typer(rich_markup_mode=None, help="The models and their weights.")
models.callback(invoke_without_command=True)(help_without_command)


@models.command(name="list", cls=GroupedCommand)
@with_options()
def list_models(weights_dir: WeightsDir = None) -> None:
    """Every model, and which of its files are here."""
    from sfm_match.models import BUILT_IN, zoo

    folder = zoo.weights_dir(weights_dir)
    for name in BUILT_IN:
        print(f"{name}: built in")
    for name, files in zoo.PUBLISHED.items():
        print(f"{name}: " + ", ".join(f"{file.name} {zoo.state(file, folder)}" for file in files))


@models.command(cls=GroupedCommand)
@with_options()
def download(name: ModelName, weights_dir: WeightsDir = None) -> None:
    """Fetches a model's weights; resumes where an earlier attempt stopped."""
    from sfm_match.models import zoo

    folder = zoo.weights_dir(weights_dir)
    for file in zoo.files_of(name):
        print(zoo.download(file, folder))


@models.command(cls=GroupedCommand)
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


@models.command(cls=GroupedCommand)
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


export = typer.Typer(rich_markup_mode=None, help="Networks to files that run without torch.")
export.callback(invoke_without_command=True)(help_without_command)


@export.command(name="onnx", cls=GroupedCommand)
@with_options()
def export_onnx(
    model: Annotated[str, typer.Option("--model", help="see `sfm-match models list`")] = "dedode-l-b",
    out: Annotated[Path, typer.Option("--out", help="folder of the files")] = Path("weights"),
    img_size: Annotated[tuple[int, int], typer.Option("--img-size", help="height and width, pixels")] = (512, 512),
    batch: Annotated[int, typer.Option("--batch", help="images, or pairs with --end2end")] = 1,
    dynamic_img_size: Annotated[bool, typer.Option("--dynamic-img-size", help="files for any image size")] = False,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="files for any batch")] = False,
    num_keypoints: Annotated[int, typer.Option("--num-keypoints", help="keypoints of an image")] = 1024,
    fp16: Annotated[bool, typer.Option("--fp16", help="half-precision weights")] = False,
    end2end: Annotated[bool, typer.Option("--end2end", help="one file from images to matches")] = False,
    weights: Annotated[
        list[Path] | None, typer.Option("--weights", help="checkpoint; once a network  [default: the downloaded ones]")
    ] = None,
    weights_dir: WeightsDir = None,
    random_weights: RandomWeights = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> bool:
    """A model's networks to ONNX, each compared with torch."""
    try:
        from exports.command import END_TO_END, SEPARATE
        from exports.command import export_onnx as run_export
        from exports.onnx_export import Shapes
    except ImportError as error:
        raise UsageError(
            f"export needs torch and onnx ({error}); install them with: pip install 'sfm-match[export]'"
        ) from None
    from sfm_match.models import check_name
    from sfm_match.models.prepared import checkpoints, say_random

    check_name(model)
    shapes = Shapes(img_size, batch, dynamic_img_size, dynamic_batch, num_keypoints)
    failed = False
    if not weights and not random_weights:
        weights = checkpoints(model, weights_dir)
    if random_weights:
        say_random()
    try:
        made = run_export(
            model,
            out,
            shapes,
            parts=END_TO_END if end2end else SEPARATE,
            half=fp16,
            weights=weights,
            random_weights=random_weights,
            overwrite=overwrite,
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


@export.command(name="engine", cls=GroupedCommand)
@with_options(ExtractOptions)
def export_engine(
    images: Annotated[Path | None, typer.Option("--images", help="folder whose images' shapes are taken")] = None,
    shapes: Annotated[str | None, typer.Option("--shapes", help="of padded images, WxH[,WxH ...], pixels")] = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Builds the TensorRT engines of a job on this GPU, so that its first run need not."""
    from sfm_match.commands.engines import build_engines

    try:
        wanted = [(int(w), int(h)) for w, h in (one.lower().split("x") for one in (shapes or "").split(",") if one)]
    except ValueError:
        raise UsageError(f"--shapes {shapes}: must be WxH, separated by commas, as 1024x768,768x1024") from None
    for served in build_engines(images, wanted, ExtractOptions(**options)):
        facts = dataclasses.asdict(served)
        print(json.dumps(facts) if as_json else f"(images, height, width) {served.least} to {served.largest}: ready")


@with_options()
def bench(
    images: Annotated[
        Path | None,
        typer.Option("--images", help="folder of image pairs, two by two by name  [default: rendered ones]"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for bench.json, bench.md and bench.png")] = None,
    model: Annotated[str, typer.Option("--model", help="see `sfm-match models list`")] = "dedode-nano",
    num_keypoints: Annotated[str, typer.Option("--num-keypoints", help="columns")] = "1024,2048,4096,8192",
    backends: Annotated[str, typer.Option("--backends", help="rows")] = "torch,ort,tensorrt",
    img_size: Annotated[tuple[int, int], typer.Option("--img-size", help="height and width, pixels")] = (512, 512),
    repeats: Annotated[int, typer.Option("--repeats", help="measured runs of a figure, at most")] = 20,
    weights: Annotated[str | None, typer.Option("--weights", help="checkpoints of the network, FILE[,FILE]")] = None,
    weights_dir: WeightsDir = None,
    random_weights: RandomWeights = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Latency of a model on this machine: by backend and number of keypoints, per pair, per image and per match."""
    from sfm_match.commands.bench import bench as run_bench
    from sfm_match.commands.bench import draw
    from sfm_match.job.outputs import check_output
    from sfm_match.models import Weights
    from sfm_match.store.shard import write_text

    try:
        counts = [int(count) for count in num_keypoints.split(",")]
    except ValueError:
        raise UsageError(f"--num-keypoints {num_keypoints}: must be whole numbers separated by commas") from None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("bench.json", "bench.md", "bench.png"):
            check_output(out / name, "--out", overwrite=overwrite)
    result = run_bench(
        images,
        model=model,
        num_keypoints=counts,
        backends=backends.split(","),
        size=img_size,
        repeats=repeats,
        weights=Weights.named(weights, weights_dir, random_weights),
        progress=lambda what: print(f"bench {what}", file=sys.stderr),
    )
    text = json.dumps(result.as_json(), indent=1) + "\n"
    print(text if as_json else result.markdown(), end="")
    if out is not None:
        write_text(out / "bench.json", text)
        write_text(out / "bench.md", result.markdown())
        draw(result, out / "bench.png")
