import json
from pathlib import Path

import pytest
from fake_gpu import GPU
from jobs import sfm_match as command

import sfm_match
from sfm_match import doctor
from sfm_match.errors import NothingDone
from sfm_match.runtime.gpus import gpus


def states(health) -> dict[str, str]:
    return {finding.what: finding.state for finding in health.findings}


@pytest.mark.skipif(bool(gpus()), reason="a GPU is here")
def test_this_machine() -> None:
    found = states(doctor())
    assert found["NVIDIA driver"] == "none found"
    assert found["--device cpu"] == "available"
    assert found["--device cuda"] == "no NVIDIA GPU with a driver"
    assert found["--device auto"] == "takes cpu (no NVIDIA GPU with a driver)"
    assert found["dedode-nano"] == "built in"
    assert found["pycolmap"].startswith("4.")


@pytest.mark.usefixtures("fake_gpu")
def test_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.commands.doctor.gpus", lambda: (GPU,))
    monkeypatch.setattr("sfm_match.commands.doctor.cuda_of_driver", lambda: "13.0")
    found = states(doctor())
    assert found["GPU"] == "Fake GPU, compute capability 9.0, 80 GiB"
    assert found["--device tensorrt"] == "available"
    assert "pip install 'sfm-match[cuda]'" in found["--device cuda"]
    assert found["--device auto"] == "takes tensorrt (the fastest that is here)"
    monkeypatch.setattr("sfm_match.commands.doctor.gpus", lambda: (GPU, GPU))
    assert {"GPU 0", "GPU 1"} <= states(doctor()).keys()


def test_both_onnxruntimes_are_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfm_match.commands.doctor.version_of", lambda _: "1.31.1")
    health = doctor()
    assert health.trouble
    assert "! onnxruntime twice" in "\n".join(health.lines())


def test_a_workspace(rendered: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    sfm_match.extract(rendered, work, size=256, max_keypoints=100)
    assert states(doctor(work))["next"] == f"sfm-match pairs --workspace {work}"
    (shard,) = (work / "features").glob("*.h5")
    shard.write_bytes(shard.read_bytes()[:2000])
    health = doctor(work)
    assert health.trouble
    assert states(health)["damaged"].startswith(f"{shard}: it has 2,000 bytes, and was written with ")
    assert states(health)["damaged"].endswith("; run again with --repair; the next run makes it again")
    assert command("doctor", "--workspace", work).returncode == 1
    done = command("doctor", "--workspace", work, "--repair", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trouble"] is False
    assert not shard.exists()
    assert shard.with_name("00000.h5.damaged").stat().st_size == 2000
    with pytest.raises(NothingDone, match="no such folder"):
        doctor(tmp_path / "absent")
    assert sfm_match.extract(rendered, work, size=256, max_keypoints=100).done == 6
