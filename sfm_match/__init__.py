"""A folder of photographs becomes a COLMAP database and reconstruction, with DeDoDe features.

Every command is a function here: `extract`, `pairs`, `match`, `import_`, `reconstruct`, `run`, `plan`, `infer`,
`bench`, `demo`, `doctor`. They are loaded when first used, so that importing this package loads neither an engine nor
pycolmap.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["bench", "demo", "doctor", "extract", "import_", "infer", "match", "pairs", "plan", "reconstruct", "run"]

_HOMES = {
    "bench": "sfm_match.commands.bench",
    "demo": "sfm_match.commands.demo",
    "doctor": "sfm_match.commands.doctor",
    "infer": "sfm_match.commands.infer",
    "plan": "sfm_match.commands.plan.job",
}

if TYPE_CHECKING:
    from sfm_match.api import extract, import_, match, pairs, reconstruct, run
    from sfm_match.commands.bench import bench
    from sfm_match.commands.demo import demo
    from sfm_match.commands.doctor import doctor
    from sfm_match.commands.infer import infer
    from sfm_match.commands.plan.job import plan


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sfm_match' has no attribute '{name}'")
    import importlib

    module = importlib.import_module(_HOMES.get(name, "sfm_match.api"))
    return getattr(module, name)
