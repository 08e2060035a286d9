"""Compiles the large kernels of `runtime.fused_softmax` for a GPU that need not be there; prints what they need.

python compile_fused.py CAPABILITY TILE, for example 90 0. A program of its own, because Triton interprets or compiles
by what the environment says when it is imported.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from exports.graphs import LEAST
from sfm_match.runtime import fused_softmax
from sfm_match.runtime.fused_softmax import HALF_TILES, channels

COLUMNS = 264  # 256 channels and what tells padding
TYPES = {"block": "*fp16", "pairs": "*i64", "places": "*i32", "part_rows": "*i32", "N": "i32"}  # *fp32 are the others
INSTRUCTIONS = ("wgmma.mma_async", "mma.sync", "cp.async")


def compiled(name: str, capability: int, tile: int) -> dict[str, Any]:
    kernel, cut = getattr(fused_softmax, name), HALF_TILES[tile]
    main, rest = channels(COLUMNS)
    every = {"COLUMNS": COLUMNS, "MAIN": main, "REST": rest, "ROWS_A": cut.rows, "COLUMNS_A": cut.columns}
    known = {name: value for name, value in {**every, "LEAST": LEAST}.items() if name in kernel.arg_names}
    types = {name: "constexpr" if name in known else TYPES.get(name, "*fp32") for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    aligned = {places[name]: [["tt.divisibility", 16]] for name in types if name not in known}
    source = ASTSource(kernel, types, {places[name]: value for name, value in known.items()}, aligned)
    options = {"num_warps": cut.warps, "num_stages": cut.stages, "enable_fp_fusion": True}
    found = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    text = found.asm["ptx"]
    return {
        "kernel": name,
        "shared": found.metadata.shared,
        "instructions": [instruction for instruction in INSTRUCTIONS if instruction in text],
    }


if __name__ == "__main__":
    print(json.dumps([compiled(name, int(sys.argv[1]), int(sys.argv[2])) for name in ("_sums", "_best")]))
