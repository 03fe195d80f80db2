"""How long workers that fail now and then take for work that is cut into slices: a formula.

Scheduling calls the time until the last slice has ended the *makespan*. `benchmarks/cluster.py`
holds the formula against a simulation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from lateen.features.pipeline import PART_SECONDS
from lateen.features.shares import Share

_CELLS = 8  # of a restart, or of a piece, on the grid of delays
_MOST_CELLS = 2**18
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Work:
    """What workers do, each at the same speed.

    Attributes:
        seconds: of one worker that does all, without a failure.
        slices: how many there are; a worker that is free takes the next.
        longest: seconds of a slice; the last may be shorter.
        workers: at once; not more than there are slices.
        piece: seconds between two files on disk, as a failure meets them: of a worker that fails
            half of it is lost.
    """

    seconds: float
    slices: int
    longest: float
    workers: int
    piece: float

    @classmethod
    def encoding(
        cls, items: int, rate: float, shard_items: int, workers: int, per_worker: int
    ) -> Self:
        """The encoding of a store in slices, as :func:`~lateen.features.encode_slice` does it.

        Args:
            items: of the store.
            rate: items per second of a worker.
            shard_items: of a shard. Slices are whole shards; a shard that takes longer than a
                minute is on disk in parts of a minute.
            workers: at once.
            per_worker: slices, for each of them.
        """
        of = workers * per_worker
        lengths = [len(Share(index, of).items(items, shard_items)) for index in range(of)]
        filled = [length for length in lengths if length]
        # A failure meets long pieces more often than short ones: Σ piece² / Σ piece is their mean.
        shard = min(shard_items, items) / rate
        parts, rest = divmod(shard, PART_SECONDS)
        piece = (parts * PART_SECONDS**2 + rest**2) / shard
        return cls(items / rate, len(filled), filled[0] / rate, min(workers, len(filled)), piece)


@dataclass(frozen=True)
class Outcome:
    """What is to be expected.

    Attributes:
        makespan: seconds until the last slice has ended.
        busy: seconds that all workers together need, each until its own last slice has ended.
        failures: of all workers.
        lost: of ``busy``, what failures cost: work done again, and restarts.
    """

    makespan: float
    busy: float
    failures: float
    lost: float


def expect(work: Work, failure: float | None, restart: float) -> Outcome:
    """What work takes on workers that fail.

    A worker fails after a time that is exponential with rate λ = 1 / failure, whatever it does, and
    is back R = ``restart`` seconds later, if it does not fail again before that; its first start
    takes R, too. A failure loses what was done since the last file, on average half a piece. Pieces
    take τ = ``work.piece`` seconds.

    * A start or restart takes Z, of mean (e^{λR} − 1) / λ: the time until R seconds pass without a
      failure.
    * While a piece is worked on there are e^{λτ} − 1 failures on average, as each try succeeds with
      probability e^{−λτ}. With their restarts it takes e^{λR} (e^{λτ} − 1) / λ, to first order
      τ + λτ (R + τ / 2).
    * So n workers are busy for n (e^{λR} − 1) / λ + W e^{λR} (e^{λτ} − 1) / (λτ), of W seconds of
      work. A Poisson process has λ failures a second: as many are expected as λ times that.
    * The makespan is longer than busy / n: slices are fixed shares and the unluckiest worker ends
      last. See :func:`_last_end`.

    Args:
        work: what there is to do.
        failure: mean seconds until a worker fails; ``None`` if none ever does.
        restart: seconds from a failure until a worker is at work again.
    """
    if failure is None:
        idle = work.workers * restart
        rounds = work.seconds if work.workers == 1 else _rounds(work) * work.longest
        return Outcome(restart + rounds, work.seconds + idle, 0.0, 0.0)
    rate = 1 / failure
    start = math.expm1(rate * restart) / rate
    slowed = math.exp(rate * restart) * math.expm1(rate * work.piece) / (rate * work.piece)
    busy = work.workers * start + slowed * work.seconds
    makespan = busy if work.workers == 1 else _last_end(work, failure, restart)
    makespan = max(makespan, busy / work.workers)  # as it is; of two or three it may come out less
    lost = busy - work.seconds - work.workers * restart
    return Outcome(makespan, busy, rate * busy, lost)


def _rounds(work: Work) -> int:
    return -(-work.slices // work.workers)


def _last_end(work: Work, failure: float, restart: float) -> float:
    """When the last slice ends, on average, of several workers.

    The time at which a worker has done j slices of s seconds is S_j = Z + j s + the sum over its
    failures, in number Poisson, of (lost work + Z). Its distribution follows by Fourier transforms.

    * The last slice is begun at t, when all workers together have done all slices but one each. As
      if this sum were always its mean: n · Σ_j P(S_j ≤ t) = slices − n. With a slice for each
      worker t is 0.
    * A worker that has then done j ends its next one by x with probability
      Σ_j P(S_j ≤ t < S_{j+1} ≤ x) = F(x). The last of n ends at t + ∫ (1 − F(x)^n) dx.
    """
    delays = _Delays.of(work, failure, restart)
    begun = _last_begin(work, delays, restart)
    ends, chances = (np.concatenate(each) for each in zip(*_ends(work, delays, begun), strict=True))
    order = np.argsort(ends, kind="stable")
    ends, below = ends[order], np.cumsum(chances[order])
    last = (below / below[-1]) ** work.workers  # the chance that all have ended
    return float(ends[0] + (np.diff(ends) * (1 - last[:-1])).sum())


@dataclass(frozen=True)
class _Delays:
    """Distributions of how much later than without failures a worker is, on a grid.

    Attributes:
        at: ``[cells]``, the delays in seconds, from 0 on.
        start: transform of the first start.
        slice: transform of the delay in one slice.
    """

    at: Array
    start: Array
    slice: Array

    @classmethod
    def of(cls, work: Work, failure: float, restart: float) -> Self:
        rate, lost = 1 / failure, work.piece / 2
        start = math.expm1(rate * restart) / rate
        failures = work.longest * math.expm1(rate * work.piece) / work.piece
        # Long enough for several times the mean, and some restarts.
        mean = start + (_rounds(work) + 1) * failures * (lost + start)
        cell = max(max(restart, lost) / _CELLS, 4 * mean / _MOST_CELLS)
        cells = 2 ** math.ceil(math.log2(4 * mean / cell + 60 * _CELLS))
        # A restart is R seconds without a failure, or one cut short by a failure, and another.
        edges = np.minimum(np.arange(_CELLS + 1) * cell, restart)
        cut = -np.diff(np.exp(-rate * edges))
        short = sum(
            share * _at(middle, cell, cells)
            for share, middle in zip(cut, (edges[1:] + edges[:-1]) / 2, strict=True)
        )
        again = math.exp(-rate * restart) * _at(restart, cell, cells) / (1 - short)
        many = np.exp(failures * (_at(lost, cell, cells) * again - 1))
        return cls(np.arange(cells) * cell, again, many)

    def after(self, slices: int) -> Array:
        """``[cells]``, the chance of each delay once so many slices are done."""
        return self._back(self.start * self.slice**slices)

    def after_another(self, chances: Array) -> Array:
        """The same, one slice later."""
        return self._back(np.fft.rfft(chances) * self.slice)

    def _back(self, transform: Array) -> Array:
        return np.clip(np.fft.irfft(transform, len(self.at)), 0, None)


def _at(seconds: float, cell: float, cells: int) -> Array:
    """Transform of a fixed time, divided between two cells so that its mean stays."""
    index, share = divmod(seconds / cell, 1)
    chances = np.zeros(cells)
    chances[int(index)], chances[int(index) + 1] = 1 - share, share
    return np.fft.rfft(chances)


def _last_begin(work: Work, delays: _Delays, restart: float) -> float:
    """When the last slice is begun; see :func:`_last_end`."""
    # Half a slice less, since a whole number of slices jumps over its mean.
    needed = (work.slices - work.workers - 0.5) / work.workers
    if needed <= 0:
        return 0.0
    done = [np.cumsum(delays.after(0))]  # by slices, the chance of a delay up to each cell

    def mean_done(time: float) -> float:
        most = max(0, min(work.slices, int((time - restart) / work.longest + 1e-9)))
        while len(done) <= most:
            done.append(np.cumsum(delays.after(len(done))))
        late = [max(0.0, time - j * work.longest) + 1e-6 for j in range(most + 1)]
        cells = np.searchsorted(delays.at, late, "right") - 1
        return sum(float(done[j][cells[j]]) for j in range(1, most + 1))

    low, high = 0.0, work.longest
    while mean_done(high) < needed:
        low, high = high, 2 * high
    while high - low > delays.at[1] / 2:
        middle = (low + high) / 2
        low, high = (low, middle) if mean_done(middle) >= needed else (middle, high)
    return high


def _ends(work: Work, delays: _Delays, begun: float) -> Iterator[tuple[Array, Array]]:
    """Times at which a worker ends the slice it is at when the last one is begun, with chances."""
    for done in range(min(work.slices, int(begun / work.longest)) + 1):
        before = delays.after(done)
        if done:
            before[delays.at > begun - done * work.longest] = 0
        if not before.any():
            continue
        ends = (done + 1) * work.longest + delays.at
        yield ends[ends > begun], delays.after_another(before)[ends > begun]
