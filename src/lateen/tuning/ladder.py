"""A ladder of tunings: one start, one target, the same images; variants beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lateen.errors import LateenError
from lateen.files import LOG, folder_lock, refuse_foreign, write_json
from lateen.progress import log, log_file
from lateen.training.loop import CHECKPOINT
from lateen.training.ranks import Ranks, process_group
from lateen.tuning.config import TuneRecipe
from lateen.tuning.ladder_report import CSV, PAGE, write_ladder_report
from lateen.tuning.tuner import TRAINING, run_tuning
from lateen.tuning.variants import Variant, read_variants

LADDER = "ladder.json"
_RUN_KEYS = (  # of a tuning's results
    "images", "before", "after", "drift", "kernel", "kept_step", "steps", "stopped", "verdict",
    "seconds",
)  # fmt: skip


def tune_ladder(
    plan: TuneRecipe | str | Path | Mapping[str, Any],
    variants: str | Sequence[str],
    out: str | Path,
    *,
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Tune in several ways, and put what each gains and loses beside the others.

    All start from the same model and are judged on the same images. Every variant has a folder of
    its own in ``out``, with its model, numbers and page; one that is done, with the same settings
    and data, is found done. A variant that fails is recorded with its reason, and the others go on.

    Args:
        plan: the recipe that all share.
        variants: ``"kernel, feature, projection, 25%, tune.weight=3"`` or a list of the same: a
            method, a share of the images, or settings of ``tune``, joined by ``+``; ``baselines``
            stands for those of KUEA.
        out: gets ``ladder.json``, ``ladder.csv`` and ``report.html``, after every variant anew.
        seeds: with which every variant is repeated, ``projection`` of all images alone is not; the
            recipe's own if not given.

    Returns:
        The content of ``ladder.json``: ``variants``, each with what it sets (``set``), its whole
        section ``tune`` and a run for each seed: ``before``, ``after`` with differences and
        intervals, ``kernel``, ``drift``, ``kept_step``, ``stopped``, ``seconds``; or ``error``.

    Raises:
        RecipeError: an unknown key, or a value that does not fit.
        UsageError: no variant, the same one twice, a key that all share, or bad seeds.
        LateenError: ``out`` is the folder of other things.
        BusyError: another process writes to ``out``.
    """
    plan, out = TuneRecipe.of(plan), Path(out)
    read, given = read_variants(variants, plan, seeds)
    runs = list(_runs(read, given, plan.tune.seed))
    own = [folder for *_, folder in runs]
    refuse_foreign(out, "the folder of a ladder of tunings", (LADDER,), (*own, CSV, PAGE))
    results: dict[str, Any] = {
        "task": "tuning ladder", "model": plan.model, "target": plan.target.encoder,
        "seeds": given, "base": plan.model_dump(mode="json"),
        "variants": [_described(variant) for variant in read],
    }  # fmt: skip
    with process_group() as ranks:
        if not ranks.leads:
            _climb(runs, results, out, ranks)
            return results
        with folder_lock(out), log_file(out / LOG):
            _climb(runs, results, out, ranks)
    return results


_Run = tuple[int, Variant, int, str]  # index of the variant, itself, a seed, a folder's name


def _runs(variants: Sequence[Variant], seeds: Sequence[int], usual: int) -> Iterator[_Run]:
    """Every tuning of the ladder."""
    for index, variant in enumerate(variants):
        for seed in seeds if variant.seeded else [usual]:
            yield index, variant, seed, variant.folder(seed, usual)


def _described(variant: Variant) -> dict[str, Any]:
    tune = variant.plan.tune.model_dump(mode="json", exclude={"seed"})
    return {"name": variant.name, "set": variant.settings, "tune": tune, "runs": []}


def _climb(runs: Sequence[_Run], results: dict[str, Any], out: Path, ranks: Ranks) -> None:
    """Do every run, and write what is known after each."""
    for at, (index, variant, seed, folder) in enumerate(runs, start=1):
        log.info("variant %s, seed %d (%d of %d)", variant.name, seed, at, len(runs))
        run = {"seed": seed, "folder": folder, **_run(variant, seed, out / folder, ranks)}
        results["variants"][index]["runs"].append(run)
        if ranks.leads:
            write_json(out / LADDER, results)
            write_ladder_report(results, out)


def _run(variant: Variant, seed: int, folder: Path, ranks: Ranks) -> dict[str, Any]:
    """One tuning, or why there is none."""
    tune = variant.plan.tune.model_copy(update={"seed": seed})
    try:
        results = run_tuning(variant.plan.model_copy(update={"tune": tune}), folder).results
    except LateenError as error:
        if ranks.size > 1:  # the other processes may be waiting for this one
            raise
        log.warning("%s, seed %d failed: %s", variant.name, seed, error)
        return {"error": str(error)}
    if ranks.leads:  # the numbers are kept, and three times the tower is large
        (folder / TRAINING / CHECKPOINT).unlink(missing_ok=True)
    return {name: results[name] for name in _RUN_KEYS} | _said_at_start(results)


def _said_at_start(results: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be known of the evaluation data."""
    start = results["checkpoints"][0]
    return {name: list(start.get(name, ())) for name in ("left_out", "beware")}
