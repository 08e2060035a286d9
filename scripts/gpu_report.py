"""Tables and a picture of what `scripts/gpu_check.py` found.

    python scripts/gpu_report.py RESULTS.jsonl ... [--out FOLDER]

Beside each file, or in the folder: NAME.md with the goals (reached or not), speeds beside both roofs, the proofs, and
everything that failed or was left out, with its reason; NAME.png where matplotlib is installed.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [folder for folder in (str(ROOT), str(ROOT / "scripts")) if folder not in sys.path]  # not installed

from gpu.report import draw, markdown  # noqa: E402
from gpu.rows import ResultsError, read_rows  # noqa: E402


def main() -> int:
    """Exit status 2 where a file cannot be read; the others are reported all the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="of gpu_check.py")
    parser.add_argument("--out", type=Path, help="folder; without: beside each file")
    options = parser.parse_args()
    status = 0
    for file in options.files:
        try:
            rows = read_rows(file)
        except (OSError, ResultsError) as error:
            print(f"gpu_report: {file}: {error}", file=sys.stderr)
            status = 2
            continue
        folder = options.out or file.parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{file.stem}.md").write_text(markdown(rows), encoding="utf-8")
        print(folder / f"{file.stem}.md")
        try:
            if draw(rows, folder / f"{file.stem}.png"):
                print(folder / f"{file.stem}.png")
        except ModuleNotFoundError as error:
            print(f"gpu_report: no picture, {error.name} is not installed", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
