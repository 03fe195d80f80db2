"""The processes that train together (``torchrun``), each on its share of every batch."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lateen.errors import TrainingError, UsageError

# How long processes wait for one that measures a checkpoint alone. NCCL's own 10 minutes are less
# than many an evaluation; one that dies is noticed by torchrun, whatever this is.
_PATIENCE = timedelta(hours=6)
# How gloo and NCCL say that they wait in vain.
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|remote process exited|peer closed|socket error"
    r"|gloo|NCCL", re.IGNORECASE,
)  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; every method is free for a lone one.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def counts(self, count: int, device: torch.device) -> list[int]:
        """Every process's ``count``, by rank."""
        if self.size == 1:
            return [count]
        counts = torch.zeros(self.size, dtype=torch.int64, device=device)
        counts[self.rank] = count
        return [int(c) for c in self.sum_(counts)]

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows ``[counts[rank], d]`` of all processes below each other, ``[sum, d]``."""
        if self.size == 1:
            return rows
        # Collectives want equal shapes: shorter shares are padded, and cut again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        shares = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(shares, padded)
        return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up the tensors of all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up the tensors of all processes, differentiably."""
        if self.size == 1:
            return tensor
        total: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
        return total

    def share(self, count: int) -> slice:
        """This process's rows of ``count``: shares differ by one at most."""
        small, larger = divmod(count, self.size)
        first = self.rank * small + min(self.rank, larger)
        return slice(first, first + small + (self.rank < larger))

    def agree(self, value: Any) -> list[Any]:
        """Every process's ``value`` (anything that can be pickled), by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def in_turn(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in every process, one after the other: what the first leaves on a
        shared disk the others find done."""
        result: list[T] = []
        for rank in range(self.size):
            if rank == self.rank:
                result.append(work())
            self.wait()
        return result[0]

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()
_PRESENT: ContextVar[Ranks] = ContextVar("ranks", default=ALONE)


def present() -> Ranks:
    """The processes that do together what is in this block of :func:`process_group`."""
    return _PRESENT.get()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Do what is in the block without the other processes, which may be elsewhere."""
    token = _PRESENT.set(ALONE)
    try:
        yield
    finally:
        _PRESENT.reset(token)


@contextlib.contextmanager
def process_group() -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, as its environment variables say; else alone.

    Raises:
        TrainingError: one of the others has ended, and all must.
    """
    if _started() == 1:
        yield ALONE
        return
    ours = not dist.is_initialized()
    if ours:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    token = _PRESENT.set(Ranks(dist.get_rank(), dist.get_world_size()))
    try:
        yield _PRESENT.get()
    except RuntimeError as error:
        if not _LOST.search(str(error)):
            raise
        raise TrainingError(
            f"process {dist.get_rank()} of {dist.get_world_size()} stops, as another one has ended",
            "See what that one said; run the same command again, and it goes on.",
        ) from error
    finally:
        _PRESENT.reset(token)
    if ours:  # not after an error: the others may be waiting in it, and torchrun ends them
        dist.destroy_process_group()


def refuse_several(command: str) -> None:
    """Stop a command that does not share its work.

    Raises:
        UsageError: ``torchrun`` started this process with others.
    """
    if _started() > 1:
        raise UsageError(
            f"lateen {command} cannot share its work among {_started()} processes",
            "Run it alone, or train on its stores with `torchrun … -m lateen train`.",
        )


def _started() -> int:
    """How many processes ``torchrun`` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total
