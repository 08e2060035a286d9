"""Engines on disk: each under a name made of all that it depends on, written whole and then renamed."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from sfm_match.job.log import LOGGER
from sfm_match.runtime.protocol import EngineError, Shapes
from sfm_match.store.shard import fingerprint, replacing

FORM = 1  # raise it when equal inputs come to give other engines
E = TypeVar("E")


@dataclass(frozen=True)
class EngineInputs:
    """What an engine depends on."""

    model: str  # sha256 of the ONNX file
    tensorrt: str  # version
    gpu: str  # name
    compute_capability: tuple[int, int]
    shapes: Shapes  # the profile
    exact: bool  # without TF32
    level: int  # of the builder's optimisation

    def key(self) -> str:
        return fingerprint([asdict(self), FORM])

    def timing_key(self) -> str:
        """What a timing cache depends on."""
        return fingerprint([self.tensorrt, self.gpu, self.compute_capability])


class EngineStore:
    """A folder of engines and timing caches."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str, inputs: EngineInputs) -> Path:
        return self._folder / f"{name}-{inputs.key()}.engine"

    def load(
        self,
        name: str,
        inputs: EngineInputs,
        make: Callable[[bytes], tuple[bytes, bytes]],
        open_engine: Callable[[bytes], E | None],
    ) -> E:
        """The engine of these inputs: the one that is there, or one that is built now and then kept.

        Args:
            name: of the network, for people.
            inputs: what the engine depends on.
            make: builds it, from a timing cache; returns the engine and the timing cache.
            open_engine: the engine in memory, None where it is refused.

        Raises:
            EngineError: a fresh engine, too, is refused.
        """
        path = self.path(name, inputs)
        plan = self._read(path)
        if plan is not None and (engine := open_engine(plan)) is not None:
            return engine
        with self._building(path):
            made = self._read(path)  # by another process, meanwhile
            if made is not None and made != plan and (engine := open_engine(made)) is not None:
                return engine
            return self._built(name, path, inputs, make, open_engine)

    @contextlib.contextmanager
    def _building(self, path: Path) -> Iterator[None]:
        """One process builds an engine; the others of this host wait, and then find it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            lock.acquire()
        except (OSError, NotImplementedError):  # not writable, or without locks: nothing is shared there
            yield
            return
        try:
            yield
        finally:
            lock.release()

    def _built(
        self,
        name: str,
        path: Path,
        inputs: EngineInputs,
        make: Callable[[bytes], tuple[bytes, bytes]],
        open_engine: Callable[[bytes], E | None],
    ) -> E:
        reason = "the one that is there is damaged" if path.exists() else "once for this GPU and these shapes"
        LOGGER.info("building a TensorRT engine of %s, %s: %s", name, reason, path)
        timing_path = self._folder / f"timing-{inputs.timing_key()}.cache"
        plan, timing = make(timing_path.read_bytes() if timing_path.exists() else b"")
        engine = open_engine(plan)
        if engine is None:
            raise EngineError(f"{name}: TensorRT refuses the engine that it built")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if timing:
                self._write(timing_path, timing)
            head = json.dumps({"sha256": hashlib.sha256(plan).hexdigest(), **asdict(inputs)})
            self._write(path, head.encode() + b"\n" + plan)
        except OSError as error:  # the engine is in hand
            LOGGER.warning("%s: not kept for the next run (%s)", path, error.strerror)
        return engine

    @staticmethod
    def _read(path: Path) -> bytes | None:
        """An engine that is as it was written: TensorRT itself may crash on a damaged one."""
        try:
            head, _, plan = path.read_bytes().partition(b"\n")
            written = json.loads(head)["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return plan if hashlib.sha256(plan).hexdigest() == written else None

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
