"""A user's own `pairs` or `exports` in the way of sfm-match's: one line that names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = "import sys\nfrom sfm_match.cli.main import main\nsys.exit(main())\n"  # as pip writes it


def run(*command: str | Path, cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


def put(folder: Path, name: str) -> Path:
    """A module or a package of the user's; returns what an error is to name."""
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    return place.parent if place.stem == "__init__" else place


@pytest.mark.parametrize("name", ["pairs.py", "exports.py", "pairs/__init__.py", "exports/__init__.py"])
@pytest.mark.parametrize("before", ["", "import pairs, exports\n"], ids=["first", "imported already"])
def test_a_script_beside_a_file_of_that_name(tmp_path: Path, name: str, before: str) -> None:
    place = put(tmp_path, name)
    script = tmp_path / "mine.py"
    script.write_text(f"{before}import sfm_match\n")
    done = run(script, cwd=tmp_path, path=[ROOT])
    assert done.returncode == 1
    what = f"ImportError: {place}: in the way of sfm-match's own package '{name[:-3].removesuffix('/__init__')}'"
    assert what in done.stderr.splitlines()[-1]
    assert "rename it" in done.stderr


@pytest.mark.parametrize("name", ["pairs.py", "exports/__init__.py"])
def test_the_command_line_says_it_in_one_line(tmp_path: Path, name: str) -> None:
    place = put(tmp_path / "own", name)
    program = tmp_path / "bin" / "sfm-match"
    program.parent.mkdir()
    program.write_text(COMMAND)
    done = run(program, "models", "list", cwd=tmp_path, path=[tmp_path / "own", ROOT])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"sfm-match: {place}: in the way")
    assert done.stderr.count("\n") == 1
    again = run("-m", "sfm_match", "models", "list", cwd=tmp_path / "own", path=[ROOT])
    assert (again.returncode, again.stderr) == (2, done.stderr)


def test_what_is_not_in_the_way(tmp_path: Path) -> None:
    """A folder of that name without code, a link to the checkout, `pairs` imported before."""
    (tmp_path / "pairs").mkdir()
    (tmp_path / "link").symlink_to(ROOT)
    script = tmp_path / "mine.py"
    script.write_text("import pairs, sfm_match\nprint(sfm_match.__file__, pairs.__file__)\n")
    for root in (ROOT, tmp_path / "link"):
        done = run(script, cwd=tmp_path, path=[root])
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(root / name / "__init__.py") for name in ("sfm_match", "pairs")]


def test_a_part_that_is_missing(tmp_path: Path) -> None:
    for name in ("sfm_match", "pairs"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = run("-S", "-c", "import sfm_match", cwd=tmp_path, path=[tmp_path])
    assert done.stderr.splitlines()[-1] == f"ImportError: {tmp_path / 'exports'}: missing; install sfm-match again"
