"""Dask's schedulers and workers: reached by name, and of the same version of hsfuse. No torch."""

from __future__ import annotations

import json
import logging
import pydoc
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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

    Workers that start here import the module `preload` before they are asked for anything.
    """
    try:
        import dask
        from dask.distributed import Client, LocalCluster
        from distributed.utils import silence_logging_cmgr
    except ImportError as error:
        raise SettingError("--dask needs the package distributed: pip install 'hsfuse[dask]'") from error
    address = check_scheduler(where)
    if not address:
        count = where.partition(":")[2]
        with dask.config.set(QUIET):
            cluster = LocalCluster(
                n_workers=int(count) if count else None,
                threads_per_worker=1,
                preload=preload or [],
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # else it warns where two are at work
            )
        client = Client(cluster, direct_to_workers=True)
        try:
            yield client
        finally:
            with silence_logging_cmgr(logging.ERROR):  # that a worker takes its time to end
                client.close()
                cluster.close()
        return
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise SettingError(f"no scheduler of Dask's answers at {where}: {_short(error)}") from error
    try:
        _check_workers(client, where)
        yield client
    finally:
        client.close()  # not `with client`, which ends only in the thread where it began


@contextmanager
def client_soon(where: str, preload: str) -> Iterator[Callable[[], Any]]:
    """`client_of` while other things are done: what comes is to be called for the client when that is needed."""
    with ExitStack() as stack, ThreadPoolExecutor(1, "dask") as pool:
        yield pool.submit(stack.enter_context, client_of(where, preload)).result


def _check_workers(client: Any, where: str) -> None:
    """SettingError where a worker's hsfuse is another one: states and options are for one version."""
    found = client.run(pydoc.locate, "hsfuse.core.package.__version__")  # of the standard library: any worker has it
    for worker, version in found.items():
        if version != __version__:
            has = f"hsfuse {version}" if version else "no hsfuse"
            raise SettingError(f"the worker {worker} of {where} has {has}; wanted {__version__}, as here")
    if not found:
        log.info("the scheduler at %s has no workers yet; the work begins with the first one", where)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())
