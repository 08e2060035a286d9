"""The grammar of the command line: groups of options, earlier names, versions and help. Nothing is computed."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sfm_match
from sfm_match.cli.main import main
from sfm_match.commands.plan.job import Plan
from sfm_match.job.progress import StageReport

Said = tuple[int, str, str]  # status, stdout, stderr
Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process."""

    def run(*arguments: Any) -> Said:
        monkeypatch.setattr("sys.argv", ["sfm-match", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The keywords that commands give their functions, which do nothing."""
    given: dict[str, Any] = {}

    def stand_in(stage: str) -> Callable[..., Any]:
        def do(*places: Any, **keywords: Any) -> Any:
            how = ("on_report", "quiet")  # of the command line itself
            given.update({"places": places} | {name: keywords[name] for name in keywords if name not in how})
            report = StageReport(stage, "images", 1, facts={"too_few": False})
            return [report] if stage == "run" else report

        return do

    for stage in ("extract", "match", "run"):
        monkeypatch.setattr(f"sfm_match.api.{stage}", stand_in(stage))
    return given


def sections(text: str) -> dict[str, list[str]]:
    """Heading -> the long names of its options, of a help text."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if heading := re.fullmatch(r"(\w+):", line):
            found[heading[1]] = []
        elif option := re.match(r"  (?:-h, )?--([\w-]+)", line):
            found[list(found)[-1]].append(option[1])
    return found


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_of_a_whole_run_is_in_groups(command: str, call: Call) -> None:
    status, text, _ = call(command, "--help")
    assert status == 0
    groups = sections(text)
    assert list(groups) == ["General", "Extraction", "Pairs", "Matching", "Import", "Reconstruction"]
    assert groups["General"] == ["images", "workspace", "config", "report", "overwrite", "json", "verbose", "help"]
    assert groups["Extraction"][:4] == ["model", "quality", "size", "max-keypoints"]
    assert groups["Pairs"][:2] == ["strategy", "overlap"]
    # --device and --weights-dir are above
    matching = ["matcher", "matcher-weights", "match-threshold", "match-workers", "inverse-temperature"]
    assert groups["Matching"] == matching
    assert groups["Import"][0] == "camera-mode"
    assert groups["Reconstruction"][0] == "mapper"
    every = [name for names in groups.values() for name in names]
    assert len(every) == len(set(every))
    assert not {"pairs", "threshold", "dummy-network", "repair-pairs"} & set(every)
    text = " ".join(text.split())
    assert "--mapper incremental|global|none" in text
    assert "covisibility, list, or several joined by +" in text  # and no second rounds


@pytest.mark.parametrize(
    ("command", "group", "first", "absent"),
    [
        (["extract"], "Extraction", "model", ["threshold", "match-threshold"]),
        (["pairs"], "Pairs", "strategy", ["pairs"]),
        (["match"], "Matching", "matcher", ["threshold", "workers"]),
        (["import"], "Import", "camera-mode", []),
        (["reconstruct"], "Reconstruction", "mapper", []),
        (["infer"], "Matching", "match-threshold", ["masks", "matcher", "workers", "devices", "dummy-network"]),
        (["export", "engine"], "Extraction", "model", ["device", "masks", "border", "decoder", "workers"]),
    ],
)
def test_help_of_a_stage(command: list[str], group: str, first: str, absent: list[str], call: Call) -> None:
    status, text, _ = call(*command, "-h")
    assert status == 0
    groups = sections(text)
    assert groups[group][0] == first
    assert not {name for names in groups.values() for name in names} & set(absent)


def test_order_is_that_of_the_run(call: Call) -> None:
    whole, alone = (sections(call(command, "-h")[1])["Extraction"] for command in ("run", "extract"))
    assert [name for name in alone if name in whole] == whole


def test_choices_and_defaults(call: Call) -> None:
    text = " ".join(call("run", "-h")[1].split())
    for shown in (
        "smaller images are not enlarged [default: 1024]",
        "least probability of a match [default: the model's; 0.1 for LightGlue]",
        "folder of weights [default: SFM_MATCH_WEIGHTS, or the cache]",
        "--precision auto|fp32|fp16 number format of the network [default: auto]",
        "--subpixel / --no-subpixel refine keypoints by a soft-argmax over the detector's logits [default: on]",
        "folder of the job's results [default: workspace]",
    ):
        assert shown in text
    assert "--mapper incremental|global kind" in " ".join(call("reconstruct", "-h")[1].split())


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["extract", "--images", "photos", "--threshold", "0.2"], "detection_threshold", 0.2),
        (["extract", "--images", "photos", "--detection-threshold", "0.2"], "detection_threshold", 0.2),
        (["match", "--threshold", "0.2"], "match_threshold", 0.2),
        (["match", "--workers", "3"], "match_workers", 3),
        (["run", "--images", "photos", "--pairs", "sequential+spatial"], "strategy", "sequential+spatial"),
        (["run", "--images", "photos", "--workers", "3"], "workers", 3),  # of extract, as ever
        (["run", "--images", "photos", "--no-subpixel"], "subpixel", False),
    ],
)
def test_earlier_and_present_names(
    arguments: list[str], name: str, value: Any, call: Call, asked: dict[str, Any]
) -> None:
    status, _, error = call(*arguments)
    assert (status, error) == (0, "")
    assert asked[name] == value
    assert asked.keys() - {"report"} == {"places", "overwrite", name}  # what is not given is left to the dataclass


def test_two_names_of_one_option(call: Call, asked: dict[str, Any]) -> None:
    status, _, error = call("run", "--images", "photos", "--pairs", "spatial", "--strategy", "sequential")
    assert status == 2
    assert error == (
        "sfm-match: --pairs spatial, --strategy sequential: two names of one option; give --strategy only\n"
    )
    assert not asked
    assert call("run", "--images", "photos", "--pairs", "spatial", "--strategy", "spatial")[0] == 0
    assert asked["strategy"] == "spatial"


def test_the_command_line_wins_over_the_file_by_either_name(call: Call, asked: dict[str, Any], tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("images: photos\npairs: spatial\nrefine_focal_length: null\nsize: 512\noverwrite: true\n")
    assert call("run", "--config", job)[0] == 0
    assert asked.pop("places") == (Path("photos"), Path("workspace"))
    given = {"overwrite": True, "strategy": "spatial", "refine_focal_length": None, "size": 512}
    assert asked == {"report": True, **given}
    for name in ("--pairs", "--strategy"):
        assert call("run", "--config", job, "--images", "others", name, "exhaustive", "--size", "256")[0] == 0
        assert (asked["strategy"], asked["size"], asked["places"][0]) == ("exhaustive", 256, Path("others"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extract", "--images", "photos", "--match-threshold", "0.2"], "No such option: --match-threshold"),
        (["run", "--images", "photos", "--threshold", "0.2"], "No such option: --threshold"),  # of which stage?
        (["run", "--images", "photos", "--dummy-network"], "No such option: --dummy-network"),
        (["infer", "a.jpg", "b.jpg", "--masks", "m"], "No such option: --masks"),
        (["run", "--images", "photos", "--size", "big"], "Invalid value for '--size'"),
        (["run"], "Missing option '--images'"),
        (["rum"], "No such command 'rum'. Did you mean 'run'?"),
    ],
)
def test_errors_of_the_grammar_are_one_line(arguments: list[str], message: str, call: Call) -> None:
    status, out, error = call(*arguments)
    assert (status, out) == (2, "")
    assert message in error
    assert re.fullmatch(r"sfm-match.*: .* \(see sfm-match.* --help\)\n", error)


def test_version_and_help(call: Call) -> None:
    assert call("--version") == (0, f"sfm-match {sfm_match.__version__}\n", "")
    status, text, _ = call()
    assert status == 2  # nothing was asked for
    assert call("-h") == call("--help") == (0, text, "")
    assert "--install-completion" in text
    assert "Exit status: 0 done" in text
    for group in ("models", "export"):
        status, text, error = call(group)
        assert (status, error) == (2, "")
        assert text == call(group, "-h")[1]


def test_python_m(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(sfm_match.__file__).parents[1])}
    command = [sys.executable, "-m", "sfm_match", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert done.stdout == f"sfm-match {sfm_match.__version__}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sfm-match re", ["reconstruct", "report"]),
        ("sfm-match run --det", ["--detection-threshold"]),
        ("sfm-match run --mapper ", ["incremental", "global", "none"]),
        ("sfm-match reconstruct --mapper ", ["incremental", "global"]),
        ("sfm-match pairs --strategy re", ["retrieval", "repair"]),
        ("sfm-match run --pair", []),  # an earlier name works, unlisted
    ],
)
def test_shells_complete(line: str, expected: list[str], call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SFM_MATCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
    status, text, _ = call()
    assert status == 0
    assert text.split() == expected


def test_a_plan_takes_the_options_of_a_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def make(*_: Any, **keywords: Any) -> Plan:
        seen.update(keywords)
        raise sfm_match.errors.NothingDone("no photographs")

    monkeypatch.setattr("sfm_match.commands.plan.job.plan", make)
    assert call("plan", "--images", "photos", "--pairs", "spatial", "--match-workers", "2")[0] == 3
    assert seen == {"overwrite": False, "strategy": "spatial", "match_workers": 2}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "sfm-match: not enough memory (no more there): give this process more"),
        (RuntimeError("can't start new thread"), "sfm-match: not enough memory (can't start new thread): give"),
        (ImportError("x.so: failed to map segment from shared object"), "sfm-match: not enough memory (x.so: "),
        (ValueError("a\x1b[31m\nb"), "sfm-match: internal error, please report it: ValueError: a\\x1b[31m b"),
    ],
)
def test_errors_of_libraries(call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("sfm_match.api.extract", fail)
    status, _, errors = call("extract", "--images", "x")
    assert (status, len(errors.splitlines())) == (3, 1)
    assert errors.startswith(said)


def test_long_values_are_cut_in_errors_of_the_grammar(call: Call) -> None:
    status, _, errors = call("extract", "--images", "x", "--size", "y" * 5000)
    assert status == 2 and "'--size'" in errors and len(errors) < 300
