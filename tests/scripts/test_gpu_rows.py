"""The results file of gpu_check: whole rows, each once, whatever ended the run."""

import json
from pathlib import Path

import pytest
from gpu.rows import Results, ResultsError, read_rows


def row(case: str, **more: object) -> dict[str, object]:
    return {"part": "speed", "engine": "torch", "model": "", "case": case, "status": "ok", **more}


def test_rows_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    results = Results(path)
    assert results.add(row("a", rate=1.5))
    assert results.add(row("b"))
    assert not results.add(row("a", rate=2.5))
    results.close()
    again = Results(path)
    assert [one["case"] for one in again.rows] == ["a", "b"]
    assert not again.add(row("b"))
    assert again.add(row("c"))
    again.close()
    assert [one.get("rate") for one in read_rows(path)] == [1.5, None, None]


@pytest.mark.parametrize("torn", [b'{"part": "sp', b'{"part": "speed"}', b"\0\0\0\0\n", b"{broken}\n"])
def test_a_half_written_end_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "r.jsonl"
    whole = json.dumps(row("a")).encode() + b"\n"
    path.write_bytes(whole + torn)
    assert [one["case"] for one in read_rows(path)] == ["a"]
    results = Results(path)
    assert path.read_bytes() == whole
    results.add(row("b"))
    results.close()
    assert [one["case"] for one in read_rows(path)] == ["a", "b"]


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    content = b"{broken}\n" + json.dumps(row("a")).encode() + b"\n"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="byte 0"):
        Results(path)
    assert path.read_bytes() == content


def test_one_process_writes(tmp_path: Path) -> None:
    first = Results(tmp_path / "r.jsonl")
    with pytest.raises(ResultsError, match="another gpu_check"):
        Results(tmp_path / "r.jsonl")
    first.close()
    Results(tmp_path / "r.jsonl").close()
