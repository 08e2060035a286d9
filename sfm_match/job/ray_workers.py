"""Workers that are actors of a Ray cluster: one on each GPU, or on each processor of a cluster that has none.

sfm-match is installed on every machine of the cluster, and the folders of photographs and of the job are there under
the same paths. Ray holds neither features nor matches: an actor writes its units' files and returns receipts.
"""

import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from sfm_match.errors import SfmMatchError, UsageError
from sfm_match.job.cores import VARIABLE
from sfm_match.job.log import LOGGER
from sfm_match.job.worker_processes import serve

KNOWN = "auto"  # as an address: the cluster that Ray knows of (RAY_ADDRESS), or a new one on this machine
_CORES = 1  # of an actor
_PATIENCE = 10.0  # seconds after which an actor that has nothing to say says so
_SILENCE = 30.0  # seconds without a word of any actor: none runs


class _Actor:
    """Lives in a process of Ray's. Its methods are called at the same time as one another."""

    def __init__(self, work: Any, device: str) -> None:
        os.environ[VARIABLE] = str(_CORES)
        self._given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=serve, args=(work, device, self._say, self._given.get), daemon=True).start()

    def _say(self, kind: str, value: Any) -> None:
        self._said.put((kind, value))

    def give(self, unit: Any) -> None:
        self._given.put(unit)

    def said(self) -> tuple[str, Any] | None:
        """What it has to say next; None: nothing so far."""
        try:
            return self._said.get(timeout=_PATIENCE)
        except queue.Empty:
            return None


class RayWorker:
    """An actor, and the units that it was given and has not done."""

    pid: int | None = None  # wherever it is

    def __init__(self, work: Any, device: str, deaths: int, *, gpus: int) -> None:
        import ray

        self.device, self.deaths = device, deaths
        self.holding: deque[Any] = deque()
        self.cause = "its process or its machine is gone"
        # restarts are the coordinator's: it knows which units are done
        actor = ray.remote(_Actor).options(num_cpus=_CORES, num_gpus=gpus, max_concurrency=2, max_restarts=0)
        self._actor = actor.remote(work, device)
        self.next = self._actor.said.remote()

    def give(self, unit: Any) -> None:
        self._actor.give.remote(unit)

    def hear(self) -> tuple[str, Any] | None:
        """What it has said; None: it is lost."""
        import ray

        try:
            said: tuple[str, Any] | None = ray.get(self.next)
        except ray.exceptions.RayActorError as error:
            self.cause = " ".join(str(error).split())[:200]
            return None
        self.next = self._actor.said.remote()
        return said or ("advance", (0,))

    def end(self) -> None:
        import ray

        ray.kill(self._actor)


class RayPool:
    """Starts actors and hears them (an `executor.Pool`)."""

    option = "--ray"

    def __init__(self, address: str, engine: str | None) -> None:
        """
        Args:
            address: of a cluster's head, `ray://HOST:PORT` or `HOST:PORT`, or `KNOWN`.
            engine: `cpu`, or one that takes a GPU; None: `cpu`, for what no GPU does.

        Raises:
            UsageError: Ray is not installed, the cluster cannot be reached, or has no GPU where one is wanted.
        """
        ray = _ray(address)
        slots = ray.cluster_resources()
        self._gpus = int(engine not in ("cpu", None))
        count = int(slots.get("GPU" if self._gpus else "CPU", 0))
        if self._gpus and not count:
            raise UsageError(f"--ray {address}: the cluster has no GPU, and --device {engine} needs one")
        if engine == "cpu" and slots.get("GPU", 0):
            LOGGER.warning("--ray: the cluster has GPUs; they are used with --device cuda, from a machine that has one")
        self.devices = [engine or "cpu"] * max(1, count)
        self._waiting = f"--ray {address}: the cluster has no free {'GPU' if self._gpus else 'processor'}; waiting"
        self._silent = False  # and it was said so

    def start(self, work: Any, device: str, deaths: int) -> RayWorker:
        return RayWorker(work, device, deaths, gpus=self._gpus)

    def hear(self, workers: Sequence[RayWorker]) -> Iterator[tuple[RayWorker, tuple[str, Any] | None]]:
        import ray

        try:
            ready, _ = ray.wait([worker.next for worker in workers], num_returns=1, timeout=_SILENCE)
            if not ready and not any(node["Alive"] for node in ray.nodes()):
                raise _lost("none of its machines is left")
            if not ready and not self._silent:  # other jobs hold it
                LOGGER.warning("%s", self._waiting)
            self._silent = not ready
            for worker in [worker for worker in workers if worker.next in ready]:
                yield worker, worker.hear()
        except ray.exceptions.RayError as error:  # but RayActorError, which is one worker's
            raise _lost(" ".join(str(error).split())[:200]) from error


def _lost(why: str) -> SfmMatchError:
    return SfmMatchError(f"--ray: the cluster is lost ({why}); completed work is kept, the same command resumes")


def _ray(address: str) -> Any:
    """The module, connected to a cluster."""
    try:
        import ray
    except ImportError:
        raise UsageError("--ray: Ray is not installed; pip install 'sfm-match[ray]'") from None
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless the user wants it
    where = {} if address == KNOWN else {"address": address}
    _check_reachable(address)
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"--ray {address}: {' '.join(str(error).split())[:200]}") from error
    return ray


def _check_reachable(address: str) -> None:
    """Raises UsageError where nobody listens: Ray tries for more than seven minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:  # a name of Ray's own: auto, local
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"--ray {address}: no cluster answers there ({error})") from error
