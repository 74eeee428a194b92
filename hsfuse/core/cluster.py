"""Dask's schedulers and workers: reached by name, and of the same version of hsfuse. No torch."""

from __future__ import annotations

import json
import logging
import pydoc
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hsfuse.core.errors import SettingError
from hsfuse.core.package import __version__

log = logging.getLogger(__name__)

#: How long a scheduler may take to answer.
PATIENCE = "20s"
#: What Dask's processes that start here leave out: they look at themselves a hundred times a second, which takes a
#: twentieth of the processor time.
QUIET = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}
#: What of its warnings Python's tracker of resources leaves out.
QUIET_TRACKER = "ignore:resource_tracker:UserWarning"
#: Seconds between kills of workers that aren't needed any more.
KILL_S = 0.05
#: How long its host may take to be reached, in seconds.
REACH_S = 5.0


def check_scheduler(where: str) -> str:
    """The address in `local[:N]`, a scheduler's address, or its file; SettingError at once where nobody listens there.

    Of `local` it is "".
    """
    if re.fullmatch(r"local(:[1-9]\d*)?", where):
        return ""
    address = where
    if where.endswith(".json"):
        try:
            address = str(json.loads(Path(where).read_text(encoding="utf-8"))["address"])
        except OSError as error:
            raise SettingError(f"no scheduler of Dask's answers at {where}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SettingError(
                f"{where} is no file of a Dask scheduler (--scheduler-file): it has no address"
            ) from error
    elif "://" not in where:
        raise SettingError(f"--dask is {where!r}; wanted local, local:N, an address such as tcp://..., or a .json file")
    try:
        place = urlsplit(address)
        if place.scheme in ("tcp", "tls"):
            socket.create_connection((place.hostname or "", place.port or 8786), REACH_S).close()
    except (OSError, ValueError) as error:
        raise SettingError(f"no scheduler of Dask's answers at {where}: {_short(error)}") from error
    return address


def check_workers(where: str) -> None:
    """`check_scheduler`, and SettingError where a worker that is there has another hsfuse."""
    if check_scheduler(where):
        with client_of(where):
            pass


@contextmanager
def client_of(where: str, preload: str | None = None) -> Iterator[Any]:
    """A client of Dask's: of `local[:N]` workers, of a scheduler's address, or of its file; else SettingError.

    Workers that start here import the module `preload` before they are asked for anything, and leave Ctrl-C to who
    started them. What Dask says meanwhile is among the details of hsfuse's log.
    """
    with client_soon(where, preload) as client:
        yield client()


@contextmanager
def client_soon(where: str, preload: str | None) -> Iterator[Callable[[], Any]]:
    """`client_of` while other things are done: what comes is to be called for the client when that is needed.

    Where it is left by an error workers that start here are killed: they have nothing to lose, and would be waited for.
    """
    others = set(active_children())
    with ExitStack() as stack, ThreadPoolExecutor(1, "dask") as pool:
        soon = pool.submit(stack.enter_context, _client(where, preload))
        try:
            yield soon.result
        except BaseException:
            starts = True
            while starts:  # Dask starts another one where one ends
                starts = not wait([soon], KILL_S).done
                for worker in set(active_children()) - others:
                    worker.kill()
            raise


@contextmanager
def _client(where: str, preload: str | None) -> Iterator[Any]:
    """In a thread of its own, of which workers inherit that Ctrl-C doesn't come to them."""
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise SettingError("--dask needs the package distributed: pip install 'hsfuse[dask]'") from error
    address = check_scheduler(where)
    with ExitStack() as made:
        made.enter_context(_told_among_details())
        if address:
            try:
                client = Client(address, timeout=PATIENCE)
            except (OSError, ValueError) as error:
                raise SettingError(f"no scheduler of Dask's answers at {where}: {_short(error)}") from error
            made.callback(client.close)  # not `with client`, which ends only in the thread where it began
            _check_workers(client, where)
        else:
            try:
                cluster = _local_cluster(where.partition(":")[2], preload)
                made.callback(cluster.close)
                client = Client(cluster, direct_to_workers=True)
                made.callback(client.close)
            except Exception as error:  # whatever Dask raises of a worker that ends before it is one
                told = f"a worker ended before it was ready ({_short(_root(error))})"
                raise SettingError(
                    f"--dask {where}: {told}; start it again, with fewer of them (local:N) where memory is short"
                ) from error
        yield client


def _local_cluster(count: str, preload: str | None) -> Any:
    import dask
    from dask.distributed import LocalCluster

    if hasattr(signal, "pthread_sigmask"):
        _quiet_tracker()  # which lets it through again where it starts
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    shown = [one for one in logging.getLogger("hsfuse").handlers if not isinstance(one, logging.FileHandler)]
    quiet = all(one.level > logging.DEBUG for one in shown)
    with dask.config.set(QUIET):
        return LocalCluster(
            n_workers=int(count) if count else None,
            threads_per_worker=1,
            preload=[*([__name__] if quiet else []), *([preload] if preload else [])],
            dashboard_address=None,
            silence_logs=logging.CRITICAL if quiet else logging.WARNING,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # else it warns where two are at work
        )


def _quiet_tracker() -> None:
    """Start what removes the semaphores of workers whose process is killed, without a warning of each time."""
    sys.warnoptions.append(QUIET_TRACKER)  # which new interpreters are given
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(QUIET_TRACKER)


def dask_setup(worker: object) -> None:
    """What a worker that starts here does: of its own log only what it has to say of memory comes to stderr.

    Errors of tasks come to who asked for them, and lost workers are told there.
    """
    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.WARNING)
        handler.addFilter(logging.Filter("distributed.worker.memory"))
        handler.setFormatter(logging.Formatter("hsfuse: warning: Dask: %(message)s"))


class _Details(logging.Handler):
    """Dask's lines as details of hsfuse's log; what it has to say of memory, as warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        level = logging.WARNING if record.name.endswith(".memory") else logging.DEBUG
        log.log(level, "Dask: %s", record.getMessage(), exc_info=record.exc_info)


@contextmanager
def _told_among_details() -> Iterator[None]:
    """In place of the lines on stderr that Dask's loggers write where nobody has said where they go."""
    loggers = map(logging.getLogger, ("distributed", "distributed.client", "tornado.application"))
    before = [(one, one.handlers) for one in loggers if one.handlers]
    for one, _ in before:
        one.handlers = [_Details(logging.WARNING)]
    try:
        yield
    finally:
        for one, handlers in before:
            one.handlers = handlers


def _check_workers(client: Any, where: str) -> None:
    """SettingError where a worker's hsfuse is another one: states and options are for one version."""
    found = client.run(pydoc.locate, "hsfuse.core.package.__version__")  # of the standard library: any worker has it
    for worker, version in found.items():
        if version != __version__:
            has = f"hsfuse {version}" if version else "no hsfuse"
            raise SettingError(f"the worker {worker} of {where} has {has}; wanted {__version__}, as here")
    if not found:
        log.info("the scheduler at %s has no workers yet; the work begins with the first one", where)


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())
