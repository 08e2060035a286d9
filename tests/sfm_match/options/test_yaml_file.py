"""YAML that is damaged, hostile or unclear has one line."""

import os
from pathlib import Path

import pytest

from sfm_match.errors import UsageError
from sfm_match.options.yaml_file import LARGEST, read_yaml

BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{c}: &{c} [*{b}, *{b}, *{b}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "line 1: anchors and aliases are not accepted"),
        (b"a: " + b"[" * 5000, "line 1: more than 20 levels"),
        (b"a:\n" + b"".join(b" " * k + b"- \n" for k in range(200)), "more than 20 levels|line"),
        (b"size: 1\nsize: 2", "line 2: 'size' is there twice"),
        (b"size: \xff", "not UTF-8 text"),
        (b"size: \x00", "."),
        (b"a: 2020-13-45", "month must be in 1..12"),
        (b"a: " + b"9" * 5000, "."),
        (b"? [a, b]\n: 1", "line 1"),
        (b"!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"#" * (LARGEST + 1), "larger than 1,048,576 bytes"),
        (b"a: &x 1", "anchors"),
        (b"{a: 1", "line 1"),
        (b"a: b: c", "line 1: mapping values are not allowed here"),
    ],
)
def test_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"^--config F: .*({message})") as error:
        read_yaml(path, "--config F")
    assert len(str(error.value)) < 200 and str(error.value).isprintable()


def test_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("\ufeffsize: 5\nnested: {a: [1, 2.5, x], b: null, c: true}\n", encoding="utf-8")
    assert read_yaml(path, "") == {"size": 5, "nested": {"a": [1, 2.5, "x"], "b": None, "c": True}}


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--config F: (Is a directory|not a regular file)"):
        read_yaml(tmp_path, "--config F")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"^--config F: (Is a directory|not a regular file)"):
        read_yaml(tmp_path / "pipe", "--config F")
