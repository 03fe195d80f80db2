"""What other work on the machine costs a training, under several policies of waiting threads.

    python benchmarks/busy.py

A step of small heads is hundreds of parallel regions of under a millisecond. At the end of each,
threads that are done wait for the others: they spin, or sleep. Where other processes want the same
cores, a spinning thread keeps the one that all wait for from running. Steps of the default preset
(1,280 and 384 features, batch 512) on made-up features are timed alone and beside as many busy
processes as there are cores; each time in a fresh process, as policies are read when torch is
loaded, in turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

POLICIES = {
    "as torch comes": {},
    "passive waiting": {"OMP_WAIT_POLICY": "PASSIVE"},
    "short spinning": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SPIN = "while True: pass"
STEPS = "--steps-of-a-process"


def timed_steps(seconds: float) -> float:
    """Milliseconds of a step: the median of those that fit into so many seconds."""
    import torch

    from lateen.experiment.recipe import Recipe
    from lateen.training.batches import Batch, BatchRows
    from lateen.training.heads import AlignmentHeads
    from lateen.training.step import StepParts, TrainState, training_step

    recipe = Recipe.build({})
    size = recipe.train.batch
    torch.manual_seed(0)
    state = TrainState(AlignmentHeads(recipe.head, 1280, 384), recipe.train)
    image, text = torch.randn(size, 1280).half(), torch.randn(size, 384).half()
    took = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < 5:
        rows = BatchRows(0, len(took), 0, size)
        parts = StepParts([rows], iter([Batch(image, [text], rows)] * 2), 1)
        begin = time.perf_counter()
        training_step(state, parts, recipe.train.lr, recipe.train)
        took.append(time.perf_counter() - begin)
    return 1000 * statistics.median(took[2:])


def in_process(policy: dict[str, str], seconds: float) -> float:
    """:func:`timed_steps` of a fresh process with a policy in its environment."""
    clean = {
        k: v for k, v in os.environ.items() if k not in {n for p in POLICIES.values() for n in p}
    }
    words = [sys.executable, __file__, STEPS, str(seconds)]
    done = subprocess.run(
        words, env={**clean, **policy}, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Print a line per policy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="of steps (default: %(default)s)"
    )
    parser.add_argument(STEPS, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps_of_a_process is not None:
        print(timed_steps(options.steps_of_a_process))
        return
    took: dict[tuple[str, bool], list[float]] = {}
    for busy in (False, True):
        others = [
            subprocess.Popen([sys.executable, "-c", SPIN])
            for _ in range(os.cpu_count() or 1 if busy else 0)
        ]
        try:
            for _ in range(options.rounds):
                for name, policy in POLICIES.items():
                    took.setdefault((name, busy), []).append(in_process(policy, options.seconds))
        finally:
            for other in others:
                other.kill()
    first = next(iter(POLICIES))
    for name in POLICIES:
        alone, beside = (statistics.median(took[name, busy]) for busy in (False, True))
        before = [statistics.median(took[first, busy]) for busy in (False, True)]
        print(
            f"{name:16} alone {alone:6.1f} ms ({before[0] / alone:.2f} x as fast as {first}); "
            f"busy {beside:7.1f} ms ({before[1] / beside:.2f} x); busy / alone {beside / alone:.1f}"
        )


if __name__ == "__main__":
    main()
