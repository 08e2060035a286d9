"""Writes sfm_match/options/keywords.py: the options of each command as keywords that editors and type checkers show.

python scripts/generate_keywords.py    # after a change of options; a test compares the file
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sfm_match.options.base import fields_of  # noqa: E402
from sfm_match.options.localize import LocalizeOptions  # noqa: E402
from sfm_match.options.pairs import PairsOptions  # noqa: E402
from sfm_match.options.stages import (  # noqa: E402
    GROUPS,
    ExtractOptions,
    ImportOptions,
    MatchOptions,
    ReconstructOptions,
)

TARGET = ROOT / "sfm_match" / "options" / "keywords.py"
CLASSES = {
    "ExtractKeywords": ("extract", (ExtractOptions,)),
    "PairsKeywords": ("pairs", (PairsOptions,)),
    "MatchKeywords": ("match", (MatchOptions,)),
    "ImportKeywords": ("import", (ImportOptions,)),
    "ReconstructKeywords": ("reconstruct", (ReconstructOptions,)),
    "RunKeywords": ("run", GROUPS),
    "InferKeywords": ("infer", (ExtractOptions, MatchOptions)),
    "LocalizeKeywords": ("localize", (LocalizeOptions,)),
}
_WIDER = {
    "batch": "str | int",
    "camera_params": "str | Sequence[float] | None",
}  # what is taken beside the field's type
_HEAD = '''"""The options of each command as keywords: made by scripts/generate_keywords.py, not by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict
'''


def generated() -> str:
    """The file's text."""
    parts = [_HEAD]
    for name, (command, groups) in CLASSES.items():
        fields = fields_of(command, groups)
        lines = "".join(f"    {field}: {_type(f)}\n" for field, f in fields.items())
        head = (
            f'class {name}(TypedDict, total=False):\n    """Of `{command}`; the option groups say what they mean."""\n'
        )
        parts.append(f"{head}\n{lines}")
    return "\n\n".join(parts)


def _type(f: "dataclasses.Field[Any]") -> str:
    if f.name in _WIDER:
        return _WIDER[f.name]
    kinds: tuple[Any, ...] = getattr(f.type, "__args__", (f.type,))  # Path | None -> (Path, NoneType)
    names = {Path: "str | Path", type(None): "None"}
    return " | ".join(names.get(kind, kind.__name__) for kind in kinds)


if __name__ == "__main__":
    TARGET.write_text(generated(), encoding="utf-8")
