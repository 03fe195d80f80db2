"""Encoding on several devices: a process for each, and in the end the one store that one makes.

Every process encodes a run of whole shards into a folder beside the store. They are then moved into
it, and what is missing is encoded as ever.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from lateen.errors import LateenError, StoreError
from lateen.hardware import Hardware, hardware, use_hardware
from lateen.progress import bar, log


@dataclass(frozen=True)
class Share:
    """Which of several processes this is: ``index``, from 0, of so many."""

    index: int
    of: int

    def items(self, total: int, shard_items: int) -> range:
        """The items that it encodes, whole shards of ``shard_items``; perhaps none."""
        shards = -(-total // shard_items)
        each = -(-shards // self.of)
        ends = (min(total, at * each * shard_items) for at in (self.index, self.index + 1))
        return range(*ends)


def encode_shares(
    encode_share: Callable[[str, Path, Share], None], devices: Sequence[str], out: Path
) -> list[Path]:
    """Encode on several devices at once.

    Args:
        encode_share: encodes one process's share on a device, into a folder; it can be pickled.
        devices: of each process; one may stand several times.
        out: the store's folder.

    Returns:
        The folders that its shards are in. A killed process's whole shards are there, too.

    Raises:
        LateenError: what went wrong in one of them first.
    """
    folders = [out.with_name(f"{out.name}.device-{index}") for index in range(len(devices))]
    log.info("encoding on %s: a process for each", ", ".join(devices))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(devices), spawn) as pool, bar(
        len(devices), "encoding on several devices", "process", stage=False
    ) as progress:  # fmt: skip
        waiting = [
            pool.submit(
                _in_process, encode_share, device, hardware(), folder, Share(index, len(devices))
            )
            for index, (device, folder) in enumerate(zip(devices, folders, strict=True))
        ]  # fmt: skip
        for device, each in zip(devices, waiting, strict=True):
            try:
                fault = each.result()
            except BrokenProcessPool as error:
                raise StoreError(
                    f"the process that encoded on {device} has ended, out of memory most likely",
                    "Lower --batch-size, and run the same command again: it goes on.",
                ) from error
            if fault is not None:
                raise LateenError(f"on {device}: {fault[0]}", fault[1])
            progress.update()
    return folders


def _in_process(
    encode_share: Callable[[str, Path, Share], None], device: str, around: Hardware, folder: Path,
    share: Share,
) -> tuple[str, str] | None:  # fmt: skip
    """Encode a share in this process; returns what went wrong, with its remedy."""
    try:
        with use_hardware(device, around.batch_size, around.workers, around.precision):
            encode_share(device, folder, share)
    except LateenError as error:
        return error.message, error.remedy
    return None
