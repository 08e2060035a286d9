"""Downloads against a server on this machine: whole, cut, wrong, absent."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jobs import sfm_match as command

from exports.registry import FAMILY, LIGHTGLUE, WeightsFile
from sfm_match.errors import NothingDone, SfmMatchError, UsageError
from sfm_match.models import BUILT_IN, zoo
from sfm_match.models.zoo import download, state

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/huge.pth": (200, {"Content-Length": str(3 << 30)}, b""),
    "/no-number.pth": (200, {"Content-Length": "many"}, b"x"),
    "/negative.pth": (200, {"Content-Length": "-5"}, b"x"),
    "/short.pth": (200, {"Content-Length": "5000"}, b"x"),
    "/endless.pth": (200, {}, b"x" * 2_000_000),
    "/elsewhere.pth": (302, {"Location": "http://example.invalid/w.pth"}, b""),
    "/file.pth": (302, {"Location": "file:///etc/passwd"}, b""),
    "/round.pth": (302, {"Location": "/round.pth"}, b""),
    "/whole.pth": (416, {"Content-Range": f"bytes */{len(CONTENT)}"}, b""),
    "/longer.pth": (416, {"Content-Range": "bytes */10"}, b""),
    "/another.pth": (206, {"Content-Range": "bytes 7-9/10", "Content-Length": "3"}, b"abc"),
}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; /cut breaks off once, /ranged/ honours ranges, the rest does not."""

    asked: list[str | None]

    def do_GET(self) -> None:
        begin = 0
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        if self.path in ANSWERS:
            status, headers, content = ANSWERS[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            return
        if self.path == "/absent.pth":
            self.send_error(404)
            return
        if wanted and self.path != "/plain.pth":
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        end = 2_000_000 if self.path in ("/cut.pth", "/plain.pth") and len(self.asked) == 1 else len(CONTENT)
        self.wfile.write(CONTENT[begin:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_whole_and_then_from_disk(server: str, tmp_path: Path) -> None:
    file = WeightsFile("w.pth", f"{server}/w.pth", SHA256)
    assert state(file, tmp_path) == "absent"
    assert download(file, tmp_path, quiet=True).read_bytes() == CONTENT
    assert state(file, tmp_path) == "present"
    download(file, tmp_path, quiet=True)
    assert len(Server.asked) == 1


@pytest.mark.parametrize("name", ["cut", "plain"])  # a server that knows ranges, and one that does not
def test_a_cut_connection_is_gone_on_with(name: str, server: str, tmp_path: Path) -> None:
    file = WeightsFile("w.pth", f"{server}/{name}.pth", SHA256)
    with pytest.raises(NothingDone, match="run again to go on"):
        download(file, tmp_path, quiet=True)
    came = (tmp_path / "w.pth.part").stat().st_size
    assert 1_900_000 < came <= 2_000_000
    assert not (tmp_path / "w.pth").exists()
    assert download(file, tmp_path, quiet=True).read_bytes() == CONTENT
    assert Server.asked == [None, f"bytes={came}-"]
    assert not (tmp_path / "w.pth.part").exists()


def test_another_content_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(SfmMatchError, match="another sha256"):
        download(WeightsFile("w.pth", f"{server}/w.pth", "0" * 64), tmp_path, quiet=True)
    assert not (tmp_path / "w.pth").exists()


def test_absent_and_unreachable_say_what_to_put_where(server: str, tmp_path: Path) -> None:
    with pytest.raises(NothingDone, match=r"404.*fetch http.*absent.pth elsewhere and put it at .*w.pth"):
        download(WeightsFile("w.pth", f"{server}/absent.pth", SHA256), tmp_path, quiet=True)
    with pytest.raises(NothingDone, match=r"no connection .*put it at .*w.pth"):
        download(WeightsFile("w.pth", "http://127.0.0.1:9/w.pth", SHA256), tmp_path, quiet=True)


def test_first_download_sets_the_hash(server: str, tmp_path: Path) -> None:
    file = WeightsFile("w.pth", f"{server}/w.pth")
    with pytest.raises(UsageError, match=r"nobody published its sha256.*add --trust-unknown"):
        download(file, tmp_path, quiet=True)
    assert Server.asked == []
    download(file, tmp_path, trust_unknown=True, quiet=True)
    (tmp_path / "w.pth").write_bytes(b"other")
    assert state(file, tmp_path) == "damaged"
    with pytest.raises(SfmMatchError, match="delete it and download again"):
        download(file, tmp_path, quiet=True)


def test_every_model_is_either_in_the_package_or_downloaded() -> None:
    assert BUILT_IN.keys() | zoo.PUBLISHED.keys() == FAMILY.keys() | LIGHTGLUE.keys()
    assert {spec.lightglue for spec in FAMILY.values()} == {"", *LIGHTGLUE}
    assert all((folder / "manifest.json").is_file() for folder in BUILT_IN.values())


def test_unknown_models() -> None:
    with pytest.raises(UsageError, match="nothing to download"):
        zoo.files_of("dedode-nano")
    with pytest.raises(UsageError, match="did you mean 'dedode-l-b'"):
        zoo.files_of("dedode-lb")
    with pytest.raises(UsageError, match="in the project's history only"):
        zoo.files_of("dedode-nano-v3")


def test_commands(tmp_path: Path) -> None:
    listed = command("models", "list", "--weights-dir", tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "dedode-nano: built in" in listed.stdout
    assert "dedode_detector_L_v2.pth absent" in listed.stdout
    assert command("models", "verify", "dedode-nano").returncode == 0
    assert command("models", "verify", "dedode-l-b", "--weights-dir", tmp_path).returncode == 1
    place = command("models", "path", "dedode-l-g", "--weights-dir", tmp_path).stdout.splitlines()
    assert place[2] == str(tmp_path / "dinov2_vitl14_pretrain.pth")
    missing = command("export", "onnx", "--model", "dedode-l-b", "--weights-dir", tmp_path)
    assert missing.returncode == 3
    assert "sfm-match models download dedode-l-b" in missing.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("huge", r"3,221,225,472 bytes, at most 2,147,483,648 are taken"),
        ("no-number", "its server tells a length of many"),
        ("negative", "its server tells a length of -5"),
        ("short", "no connection"),
        ("endless", r"more than the 1,000,000 bytes"),
        ("elsewhere", "http://example.invalid/w.pth: not https"),
        ("file", "file:///etc/passwd: not https"),
        ("round", "no connection .TooManyRedirects"),
    ],
)
def test_answers_that_are_none(
    name: str, said: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "endless":
        monkeypatch.setattr(zoo, "LARGEST", 1_000_000)
    with pytest.raises(NothingDone, match=said) as error:
        download(WeightsFile("w.pth", f"{server}/{name}.pth", SHA256), tmp_path, quiet=True)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "w.pth").exists()


def test_a_part_that_is_whole_is_taken_and_one_that_is_none_deleted(server: str, tmp_path: Path) -> None:
    part = tmp_path / "w.pth.part"
    part.write_bytes(CONTENT)
    assert download(WeightsFile("w.pth", f"{server}/whole.pth", SHA256), tmp_path, quiet=True).read_bytes() == CONTENT
    for name, said in (("longer", "were deleted; run again"), ("another", "another part than it was asked for")):
        part.write_bytes(b"0" * 50)
        (tmp_path / "w.pth").unlink(missing_ok=True)
        with pytest.raises(NothingDone, match=said):
            download(WeightsFile("w.pth", f"{server}/{name}.pth", SHA256), tmp_path, quiet=True)
        assert not part.exists()


def test_addresses_that_others_could_change_are_not_asked(tmp_path: Path) -> None:
    for url in ("http://example.invalid/w.pth", "ftp://example.invalid/w", "file:///etc/passwd"):
        with pytest.raises(NothingDone, match="not https"):
            download(WeightsFile("w.pth", url, SHA256), tmp_path / "new", quiet=True)
    every = [file for files in zoo.PUBLISHED.values() for file in files]
    assert every and all(file.url.startswith("https://") for file in every)
