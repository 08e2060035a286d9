"""Writes the package's weightless graphs: normalisation, selection of keypoints, matching of a block.

python scripts/export_graphs.py
"""

import argparse
from pathlib import Path

from exports.graphs import export_graphs

PACKAGE = Path(__file__).parents[1] / "sfm_match" / "runtime" / "graphs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PACKAGE)
    export_graphs(parser.parse_args().out)


if __name__ == "__main__":
    main()
