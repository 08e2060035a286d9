"""Sends signals to commands in each of their stages, and prints how they took it: stage x signal x seconds.

    python scripts/signals.py --images shared/data/scenes/fountain-P11/images [--only map] [--signals TERM,INT]

Each command runs in a process of its own. When it comes to a certain function, the signal is sent; what is right: it
ends within 3 seconds with the signal's status, says in one line how to resume, leaves nothing unfinished, and the same
command then succeeds.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

SECONDS = 3.0  # in which a command has to end
LINE = "sfm-match: interrupted; run the same command again to resume"
SIGNALS = ("INT", "TERM", "HUP", "INT twice")
MARK = "<here>"
# Says that the function is reached, before it is called for the n-th time.
CALL = """
from sfm_match import signals
with signals.handled():  # before any library makes threads, as the command line does
    {patch}
    from sfm_match.__main__ import start
    start()
"""
PATCH = """
    import functools, os
    import {module} as module
    original, calls = module.{function}, []
    @functools.wraps(original)
    def reached(*arguments, **keywords):
        calls.append(1)
        if len(calls) == {nth}:
            os.write(2, b"<here>\\n")
        return original(*arguments, **keywords)
    module.{function} = reached
"""
# Of a file of weights: the second half comes late.
SERVER = """
    import http.server, threading, time
    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "200000")
            self.end_headers()
            self.wfile.write(bytes(100000))
            time.sleep(5)
            self.wfile.write(bytes(100000))
        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from sfm_match.models import zoo
    name = next(iter(zoo.LIGHTGLUE))
    file = zoo.WeightsFile("local.pth", f"http://127.0.0.1:{server.server_port}/local.pth", None)
    zoo.PUBLISHED[name] = (file,)
"""
HALF = re.compile(r".*\.tmp-.*|\.view.*|database\.db-.*")
RUN = ["run", "--images", "{images}", "--workspace", "{work}"]
OF_JOB = ["--workspace", "{work}"]


@dataclass(frozen=True)
class Place:
    """Where a command is interrupted."""

    command: Sequence[str]
    module: str
    function: str
    nth: int = 1  # call of it
    again: bool = True  # whether the command is run again
    before: str = ""  # lines of Python that it needs


RECONSTRUCT = ["reconstruct", *OF_JOB, "--overwrite"]
PLACES = {
    "start": Place(RUN, "importlib._bootstrap_external", "SourceFileLoader.exec_module", 60),
    "extract": Place(RUN, "sfm_match.runtime.ort", "OrtSession.run"),
    "pairs": Place([*RUN, "--pairs", "retrieval"], "sfm_match.stages.image_summaries", "_describe"),
    "match": Place(RUN, "sfm_match.stages.match_blocks", "write_block"),
    "import, write": Place(RUN, "sfm_match.stages.import_", "write_images"),
    "import, verify": Place(RUN, "sfm_match.colmap.verification", "estimate_two_view", 5),
    "import, adjust": Place(RUN, "sfm_match.refine.align_units", "_align", 2),
    "reconstruct, map": Place(RUN, "pycolmap", "incremental_mapping"),
    "reconstruct, global": Place([*RUN, "--mapper", "global"], "pycolmap", "global_mapping"),
    "reconstruct, refine": Place(RUN, "sfm_match.colmap.mapper", "refine_robustly"),
    "reconstruct, colours": Place(RUN, "sfm_match.stages.reconstruct", "colour_points"),
    "reconstruct, write": Place(RUN, "sfm_match.stages.reconstruct", "_write"),
    "report": Place(RUN, "sfm_match.stages.report", "write_report"),
    "import alone": Place(["import", *OF_JOB, "--overwrite"], "sfm_match.colmap.verification", "estimate_two_view", 5),
    "reconstruct alone": Place(RECONSTRUCT, "pycolmap", "incremental_mapping"),
    "report alone": Place(["report", *OF_JOB], "sfm_match.stages.report", "write_report"),
    "localize": Place(["localize", "{images}", *OF_JOB], "sfm_match.commands.localize", "_localization"),
    "infer": Place(["infer", "{first}", "{second}"], "sfm_match.runtime.ort", "OrtSession.run"),
    "infer --viz": Place(
        ["infer", "{first}", "{second}", "--viz", "{work}-out/a.png"], "pycolmap", "Bitmap.from_array"
    ),
    "cubemap": Place(["cubemap", "--images", "{panoramas}", "--out", "{work}-cube"], "cv2", "imencode", 3),
    "download": Place(
        ["models", "download", "lightglue-dedode-b", "--weights-dir", "{work}-weights", "--trust-unknown"],
        "requests.models",
        "Response.iter_content",
        before=SERVER,
    ),
    "bench": Place(["bench"], "sfm_match.runtime.ort", "OrtSession.run", again=False),  # it takes minutes
    "demo": Place(["demo", "--workspace", "{work}-demo", "--views", "5"], "cv2", "imwrite", 2),
    "plan": Place(["plan", "--images", "{images}", "--workspace", "{work}-none"], "pycolmap", "Database.open"),
    "convert": Place(
        ["convert", *OF_JOB, "--to", "nerfstudio", "--out", "{work}-out"],
        "sfm_match.formats.nerfstudio",
        "copy_photograph",
    ),
}
FRESH = {name for name, place in PLACES.items() if "run" in place.command}


@dataclass(frozen=True)
class Taken:
    """How a command took a signal."""

    seconds: float
    wrong: list[str]


def interrupt(place: Place, sent: str, images: Path, work: Path) -> Taken:
    """Runs the command up to the place, sends a signal, and looks at what comes of it."""
    first, second = sorted(images.iterdir())[:2]
    panoramas = _panoramas(work.with_name("panoramas"))
    names = {"images": images, "work": work, "first": first, "second": second, "panoramas": panoramas}
    command = [part.format(**names) for part in place.command]
    for end in ("demo", "out", "cube", "weights"):
        shutil.rmtree(f"{work}-{end}", ignore_errors=True)
    Path(f"{work}-out").mkdir()
    patch = PATCH.format(module=place.module, function=place.function, nth=place.nth)
    temporary = work.parent / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-c", CALL.format(patch=place.before + patch), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=_heed_signals,
    )
    lines, line = [], ""
    errors = process.stderr
    while errors and (line := errors.readline().decode()) and line.strip() != MARK:
        lines.append(line)
    if line.strip() != MARK:
        return Taken(0.0, ["did not come there", *lines])
    number = getattr(signal, f"SIG{sent.split()[0]}")
    time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(number)
    if sent.endswith("twice"):
        time.sleep(0.1)
        process.send_signal(number)
    _, rest = process.communicate()
    seconds = time.monotonic() - began
    said = [line for line in rest.decode().splitlines() if line.strip()]
    wrong = [] if seconds <= SECONDS else [f"{seconds:.1f} s"]
    if process.returncode != 128 + number:
        wrong.append(f"status {process.returncode}")
    if said.count(LINE) != 1 or any("Traceback" in line or "***" in line or "Exception" in line for line in said):
        wrong.append(f"said {said}")
    half = [str(path) for folder in work.parent.glob(f"{work.name}*") for path in _half(folder)]
    half += map(str, temporary.glob("sfm-match-*"))
    if half:
        wrong.append(f"left {half}")
    if place.again:
        again = subprocess.run(
            [sys.executable, "-c", CALL.format(patch=place.before), *command],
            capture_output=True,
            text=True,
            check=False,
        )
        if again.returncode:
            wrong.append(f"then status {again.returncode}: {again.stderr.strip()}")
    return Taken(seconds, wrong)


def _panoramas(folder: Path) -> Path:
    """Two of noise."""
    if not folder.exists():
        folder.mkdir()
        for name in ("a.jpg", "b.jpg"):
            cv2.imwrite(str(folder / name), np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), np.uint8))
    return folder


def _heed_signals() -> None:
    """Whoever starts this in the background may have them ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


def _half(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if HALF.fullmatch(path.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--only", default="", help="places whose name holds this")
    parser.add_argument("--signals", default=",".join(SIGNALS))
    options = parser.parse_args()
    signals = options.signals.split(",")
    bad: list[str] = []
    told = 0
    with tempfile.TemporaryDirectory(prefix="signals-") as folder:
        whole = Path(folder) / "whole"
        command = [part.format(images=options.images, work=whole) for part in RUN]
        subprocess.run([sys.executable, "-m", "sfm_match", *command], check=True, stdout=subprocess.DEVNULL)
        print(f"{'place':24}" + "".join(f"{name:>11}" for name in signals), flush=True)
        for name, place in PLACES.items():
            if options.only not in name:
                continue
            row = []
            for number, sent in enumerate(signals):
                work = Path(folder) / f"{number}"
                shutil.rmtree(work, ignore_errors=True)
                if name not in FRESH:
                    shutil.copytree(whole, work)
                taken = interrupt(place, sent, options.images.resolve(), work)
                row.append(f"{taken.seconds:10.2f}{'!' if taken.wrong else ' '}")
                bad += [f"{name}, {sent}: {what}" for what in taken.wrong]
            print(f"{name:24}" + "".join(row), flush=True)
            print("".join(f"    {what}\n" for what in bad[told:]), end="", flush=True)
            told = len(bad)
    print("all as it should be" if not bad else f"{len(bad)} are not as they should be")
    sys.exit(bool(bad))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    main()
