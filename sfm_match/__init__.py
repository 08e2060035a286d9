"""A folder of photographs becomes a COLMAP database and reconstruction, with DeDoDe features.

Every command is a function here: `extract`, `pairs`, `match`, `import_`, `reconstruct`, `report`, `run`, `plan`,
`infer`, `bench`, `demo`, `doctor`, `convert`, `cubemap`, `localize`; `convert --from hloc` is `from_hloc`; `open` reads
what a job left. They are loaded when first used, so that importing this package loads neither an engine nor pycolmap.

Raises:
    ImportError: another `pairs` or `exports` than those of sfm-match would be imported.
"""

from typing import TYPE_CHECKING, Any

from sfm_match._siblings import check_siblings

__version__ = "0.1.0"
__all__ = [
    "bench",
    "convert",
    "cubemap",
    "demo",
    "doctor",
    "extract",
    "from_hloc",
    "import_",
    "infer",
    "localize",
    "match",
    "open",
    "pairs",
    "plan",
    "reconstruct",
    "report",
    "run",
]

check_siblings()

_HOMES = {
    "bench": "sfm_match.commands.bench:bench",
    "convert": "sfm_match.commands.convert:convert",
    "cubemap": "sfm_match.commands.cubemap:cubemap",
    "demo": "sfm_match.commands.demo:demo",
    "doctor": "sfm_match.commands.doctor:doctor",
    "from_hloc": "sfm_match.commands.convert:from_hloc",
    "infer": "sfm_match.commands.infer:infer",
    "localize": "sfm_match.commands.localize:localize",
    "open": "sfm_match.results:open_workspace",
    "plan": "sfm_match.commands.plan.job:plan",
}

if TYPE_CHECKING:
    from sfm_match.api import extract, import_, match, pairs, reconstruct, report, run
    from sfm_match.commands.bench import bench
    from sfm_match.commands.convert import convert, from_hloc
    from sfm_match.commands.demo import demo
    from sfm_match.commands.doctor import doctor
    from sfm_match.commands.infer import infer
    from sfm_match.commands.localize import localize
    from sfm_match.commands.plan.job import plan
    from sfm_match.results import open_workspace as open


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sfm_match' has no attribute '{name}'")
    import importlib

    module, _, attribute = _HOMES.get(name, f"sfm_match.api:{name}").partition(":")
    return getattr(importlib.import_module(module), attribute)
