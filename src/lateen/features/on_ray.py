"""Encoding on a Ray cluster: actors of Ray Data encode slices, which are merged to one store.

Ray places the actors, gives each slice to one that is free, and to another where one has died. The
slices are those of ``lateen encode --slice``, on a file system that all machines see; a shard is
the same whoever makes it, so that the store is that of one process, to the byte.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lateen.errors import LateenError, MissingExtraError, StoreError, UsageError, reason
from lateen.features.encode import EncodeInputs, encode_views
from lateen.features.manifest import MANIFEST, SLICE, StoredDtype
from lateen.features.shares import Share
from lateen.features.slices import Slice, encode_slice, merge
from lateen.features.store import Store
from lateen.files import make_folder, remove_folder
from lateen.objects import to_path
from lateen.progress import log

_WHOLE = -1  # in place of a slice: the whole store
SLICES_PER_ACTOR = 4  # slices: what a machine that is slow, or lost, leaves to the others


@dataclass(frozen=True)
class Cluster:
    """What Ray is asked for.

    Attributes:
        address: of a cluster (``auto``, ``ray://host:10001``); one on this machine if not given,
            or what ``RAY_ADDRESS`` says.
        actors: processes that encode, each with the encoder loaded once.
        gpus_per_actor: of each; may be a part of one.
        cpus_per_actor: of each; torch gets as many threads.
    """

    address: str | None = None
    actors: int = 2
    gpus_per_actor: float = 0
    cpus_per_actor: float = 1


def encode_on_ray(
    inputs: EncodeInputs,
    out: str | Path,
    cluster: Cluster,
    *,
    dtype: StoredDtype = "float16",
    batch_size: int | None = None,
    shard_items: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
) -> Store:
    """Encode a dataset on a cluster, into the store that one process makes.

    Called again after a kill of any of it, it encodes what is missing.

    Args:
        inputs: the data and the encoder, both by name; all machines must find them by it.
        out: the store's folder, in an object store or on a file system that all machines see.
        cluster: what Ray is asked for.
        dtype: of the features on disk.
        batch_size: as :func:`~lateen.encode` has it, like all that follow.
        shard_items: of a shard's file.
        workers: threads that decode and prepare, in each actor.
        overwrite: replace a store made differently.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: data or encoder are objects.
        StoreError: ``out`` holds something else.
        LateenError: what went wrong on the cluster first.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "--on ray")
    if not (isinstance(inputs.source, str | Path) and isinstance(inputs.encoder, str)):
        raise UsageError("machines of a cluster open data and encoder themselves",
                         "Give both by name.")  # fmt: skip
    target = to_path(out).resolve()
    place = target.with_name(f"{target.name}.slices")
    of = _slices_of(place) or cluster.actors * SLICES_PER_ACTOR
    arguments = {
        "inputs": inputs, "here": Path.cwd(), "out": target, "place": place, "of": of,
        "settings": {
            "dtype": dtype, "batch_size": batch_size, "shard_items": shard_items,
            "workers": workers, "overwrite": overwrite,
        },
    }  # fmt: skip
    # Whether a store that is there is the one asked for, only who has the encoder can tell.
    there = (target / MANIFEST).is_file() and not overwrite
    if not there:
        make_folder(place)
    if faults := _run(arguments, [_WHOLE] if there else list(range(of)), cluster):
        raise LateenError(*faults[0])
    if there:
        return Store.open(target)
    store = merge([place / str(index) for index in range(of)], target, overwrite=overwrite)
    remove_folder(place)
    return store


def _slices_of(place: Path) -> int | None:
    """How many slices an earlier call has begun; ``None`` if it has not."""
    begun = next(place.glob(f"*/{SLICE}"), None)
    return Slice.read(begun.parent).of if begun is not None else None


def _run(
    arguments: Mapping[str, Any], slices: Sequence[int], cluster: Cluster
) -> list[tuple[str, str]]:
    """Have slices encoded; returns what went wrong, with remedies."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    started = not ray.is_initialized()
    if started:
        _start(cluster.address)
    try:
        DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
        for name in ("ray", "ray.data"):  # each says many lines of its own doings
            logging.getLogger(name).setLevel(logging.ERROR)
        count = len(slices)
        log.info("encoding %d slices on Ray, by %d actors", count, cluster.actors)
        rows = (
            ray.data.from_items([{"index": each} for each in slices], override_num_blocks=count)
            .map_batches(
                _Encoding, fn_constructor_kwargs={"arguments": arguments}, batch_size=1,
                compute=ActorPoolStrategy(size=min(cluster.actors, count)),
                num_cpus=cluster.cpus_per_actor, num_gpus=cluster.gpus_per_actor,
            )
            .take_all()
        )  # fmt: skip
        return [(row["fault"], row["remedy"]) for row in rows if row["fault"]]
    except ray.exceptions.RayError as error:
        raise StoreError(
            f"Ray gave up: {str(error).strip().splitlines()[-1]}",
            "Run the same command again: it goes on. Where memory ran out, lower --batch-size or "
            "--actors.",
        ) from error
    finally:
        if started:
            ray.shutdown()


def _start(address: str | None) -> None:
    """Reach a cluster, or start one on this machine.

    Raises:
        StoreError: there is none at the address.
    """
    import ray

    # Modules that the driver finds, as an encoder of one's own beside the data, actors find, too.
    paths = os.pathsep.join(dict.fromkeys([str(Path.cwd()), *filter(None, sys.path)]))
    if address is None:  # what is told of a cluster that lasts as long as this process
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": paths}} if address is None else None,
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StoreError(
            f"there is no Ray cluster at {address} ({reason(error)})",
            "Start one (`ray start --head`), or leave --address out for one on this machine.",
        ) from error


class _Encoding:
    """An actor: opens data and encoder once, and encodes slices.

    Args:
        arguments: those of :func:`encode_on_ray`, and where the slices lie.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._ready: EncodeInputs | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        given, settings = self._arguments, self._arguments["settings"]
        [index] = map(int, batch["index"])
        fault, remedy = "", ""
        try:
            if self._ready is None:
                if given["here"].is_dir():  # so that names mean what they mean to the driver
                    os.chdir(given["here"])
                dataset, encoder = given["inputs"].open("auto")
                self._ready = replace(given["inputs"], source=dataset, encoder=encoder)
            if index == _WHOLE:
                dataset, encoder = self._ready.open("auto")
                column = self._ready.column
                encode_views(dataset, [encoder], [given["out"]], column=column, **settings)
            else:
                place, share = given["place"] / str(index), Share(index, given["of"])
                encode_slice(self._ready, place, share, **settings)
        except LateenError as error:
            fault, remedy = error.message, error.remedy
        return {"index": [index], "fault": [fault], "remedy": [remedy]}
