"""What all options share: types, aliases, and which command takes which."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sfm_match.errors import UsageError
from sfm_match.options.base import Options, Refused, aliases_of, fields_of, option, options_of


@dataclass(frozen=True)
class First(Options):
    title: ClassVar[str] = "First"

    count: int = option(1, "how many")
    share: float = option(0.5, "how much", aliases=("part",))
    exact: bool = option(True, "whether exactly", fingerprinted=False)
    kind: str = option("a", "which kind", choices=("a", "b", "c"), joined=True, refused=Refused(("run",), ("c",)))
    name: str | None = option(None, "what it is called")
    place: Path | None = option(None, "where it is", refused=Refused(("infer",)))


@dataclass(frozen=True)
class Second(Options):
    title: ClassVar[str] = "Second"

    least: float = option(0.1, "least of all", aliases=("part", "count", "smallest"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "big"}, "--count: expected int, found 'big'"),
        ({"count": 1.5}, "--count: expected int, found 1.5"),
        ({"count": True}, "--count: expected int, found True"),
        ({"count": None}, "--count: expected int, found None"),
        ({"share": "0.5"}, "--share: expected float, found '0.5'"),
        ({"exact": "no"}, "--exact: expected bool, found 'no'"),
        ({"exact": 0}, "--exact: expected bool, found 0"),
        ({"kind": 3}, "--kind: expected str, found 3"),
        ({"name": {"a": 1}}, r"--name: expected str, found \{'a': 1\}"),
        ({"name": True}, "--name: expected str, found True"),
        ({"place": [1]}, r"--place: expected Path, found \[1\]"),
        ({"kind": "d"}, "--kind d: accepted values are a, b, c, or several joined by +"),
        ({"kind": "a+d"}, r"--kind a\+d: accepted values are a, b, c"),
    ],
)
def test_wrong_types_and_values_are_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        First(**given)
    assert len(str(caught.value).splitlines()) == 1


def test_what_stands_for_a_type(tmp_path: Path) -> None:
    chosen = First(count=np.int64(3), share=1, kind="a+b", name=[1, 2.5], place=str(tmp_path))  # type: ignore[arg-type]
    assert chosen == First(3, 1.0, True, "a+b", "1,2.5", tmp_path)
    assert type(chosen.count) is int
    assert type(chosen.share) is float
    assert First(name=2021).name == "2021"  # type: ignore[arg-type]


def test_identity_is_what_changes_results(tmp_path: Path) -> None:
    chosen = First(exact=False, place=tmp_path / "a" / "..")
    assert chosen.inputs() == {"count": 1, "share": 0.5, "kind": "a", "name": None, "place": str(tmp_path)}


def test_an_alias_means_one_option() -> None:
    assert aliases_of(fields_of("first", [First])) == {"part": "share"}
    # `part` was two options, `count` is another
    assert aliases_of(fields_of("run", [First, Second])) == {"smallest": "least"}


def test_an_option_by_its_earlier_name() -> None:
    assert options_of("first", [First], {"part": 0.2, "count": 2}) == {"share": 0.2, "count": 2}
    assert options_of("first", [First], {"part": 0.2, "share": 0.2}) == {"share": 0.2}
    with pytest.raises(UsageError, match=r"--part 0.2, --share 0.3: two names of one option; give --share only"):
        options_of("first", [First], {"part": 0.2, "share": 0.3})


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"^run: unknown option 'shared' \(did you mean 'share'\?\)$"):
        options_of("run", [First, Second], {"shared": 0.2})
    with pytest.raises(UsageError, match="--place: not an option of `infer`"):
        options_of("infer", [First], {"place": "."})


def test_what_a_command_does_not_take(tmp_path: Path) -> None:
    assert "place" not in fields_of("infer", [First])
    assert "kind" in fields_of("run", [First])  # some of its values are not taken
    First(kind="a+c").check_for("first")
    with pytest.raises(UsageError, match=r"--kind a\+c: accepted values of `run` are a, b$"):
        First(kind="a+c").check_for("run")
    First(place=None).check_for("infer")
    with pytest.raises(UsageError, match="--place: not an option of `infer`"):
        First(place=tmp_path).check_for("infer")
