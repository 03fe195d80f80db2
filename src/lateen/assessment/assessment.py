"""Which encoders align: the public functions of the assessment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from lateen.assessment.chance import best_of_networks, calibrated_row
from lateen.assessment.correlations import correlation_gaps, probing_correlations
from lateen.assessment.data import AssessmentData, from_recipe, from_stores
from lateen.assessment.leaderboard import (
    Row,
    counted_scores,
    encoder_entry,
    leaderboard_row,
    rank_rows,
)
from lateen.assessment.measure import TextMeasure, VisionMeasure, measures
from lateen.assessment.measurement import (
    Notes,
    Nulls,
    Values,
    measure_pair,
    measure_permuted,
    measure_vision,
)
from lateen.assessment.page import write_assessment_page
from lateen.assessment.probing import Probe, probe_pair
from lateen.assessment.recipe import AssessmentRecipe, MeasureSection, ProbeSection
from lateen.assessment.spaces import Space, SpacePair
from lateen.assessment.tables import leaderboard_csv
from lateen.errors import UsageError
from lateen.experiment.preflight import STORE_MARKS
from lateen.features import CaptionMeans, Store, StoreRows
from lateen.files import (
    LOG,
    content_key,
    folder_lock,
    library_versions,
    refuse_foreign,
    write_json,
    write_text,
)
from lateen.progress import bar, log, log_file
from lateen.report.text import plain
from lateen.training.ranks import refuse_several

LEADERBOARD = "leaderboard.json"
ASSESSMENT = "assessment.json"


def assess(
    recipe: AssessmentRecipe | str | Path | Mapping[str, Any], out: str | Path
) -> dict[str, Any]:
    """Encode a recipe's candidates, probe every pair, and write who aligns with whom, and why.

    What is already done, by content, is not done again: a further encoder costs that encoder.
    ``out`` gets ``leaderboard.json`` (a list of rows, best first), ``leaderboard.csv``,
    ``assessment.json`` (the rows with encoders, correlations and conditions), plots and
    ``report.html``.

    Args:
        recipe: the path of a YAML file, its values, or an AssessmentRecipe.
        out: the assessment's folder; a killed one goes on when called again.

    Returns:
        The JSON of ``assessment.json``.

    Raises:
        RecipeError: an unknown key or a value that does not fit.
        EncoderError: a candidate cannot be loaded.
        DataError: nothing to measure on.
        BusyError: another process writes to ``out``.
    """
    refuse_several("assess")
    plan = AssessmentRecipe.of(recipe)
    folder = _own_folder(out)
    with plan.on_hardware(), folder_lock(folder), log_file(folder / LOG):
        begin = time.perf_counter()
        material = from_recipe(plan, folder / "stores")
        seconds = {"encode": time.perf_counter() - begin}
        results = _measure_all(material, plan.probe, plan.measure, folder, seconds)
        results = {"task": "assessment", "sweep": plan.sweep, **results}
        results["recipe"] = plan.model_dump(mode="json")
        _write_outputs(results, folder)
    return results


def assess_stores(
    images: Sequence[Store | str | Path],
    texts: Sequence[Store | str | Path],
    out: str | Path,
    *,
    labels: str | Path | None = None,
    holdout: float = 0.2,
    missing: Literal["error", "drop"] = "error",
    probe: Mapping[str, Any] | None = None,
    measure: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Assess features that are on disk already, every image store with every text encoder.

    Args:
        images: image stores, each a candidate.
        texts: text stores; those of one encoder are caption columns of one candidate.
        out: the assessment's folder; see :func:`assess`.
        labels: a CSV file (columns id, label) of images in the stores, for kNN and linear probe.
        holdout: share of the images held out to judge on.
        missing: what to do with ids that only some stores know: ``error``, or ``drop`` them.
        probe: keys of the recipe's section of that name: ``preset``, ``head``, ``train``.
        measure: likewise: ``k``, ``knn``, ``seed``, ….

    Returns:
        The JSON of ``assessment.json``.

    Raises:
        PairingError: stores that do not describe the same images.
        RecipeError: an unknown key or a value that does not fit.
        LateenError: any stage's own errors.
    """
    refuse_several("assess")
    if missing not in ("error", "drop"):
        raise UsageError(f"missing is {missing!r}", "It is 'error' or 'drop'.")
    plan = AssessmentRecipe.build(
        {"vision": [{"encoder": "stores"}], "text": [{"encoder": "stores"}],
         "probe": dict(probe or {}), "measure": dict(measure or {})}
    )  # fmt: skip
    folder = _own_folder(out)
    opened = [
        [store if isinstance(store, Store) else Store.open(store) for store in stores]
        for stores in (images, texts)
    ]
    with folder_lock(folder), log_file(folder / LOG):
        material = from_stores(
            *opened, labels=Path(labels) if labels else None, holdout=holdout, missing=missing,
            seed=plan.measure.seed,
        )  # fmt: skip
        results = _measure_all(material, plan.probe, plan.measure, folder, {})
        results = {"task": "assessment", "sweep": "grid", **results}
        _write_outputs(results, folder)
    return results


def _own_folder(out: str | Path) -> Path:
    """The folder of an assessment, unless it holds something else."""
    marks = (ASSESSMENT, LEADERBOARD, *STORE_MARKS, "results/*-*.json")
    refuse_foreign(Path(out), "the folder of an assessment", marks, ("*.yaml", "*.yml"))
    return Path(out)


def _measure_all(
    material: AssessmentData, probing: ProbeSection, settings: MeasureSection, folder: Path,
    seconds: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Everything that is measured, as the values of ``assessment.json``."""
    cache = folder / "results"

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = work()
        seconds[stage] = time.perf_counter() - begin
        log.info("%s: %.1f s", stage, seconds[stage])
        return result

    material.check()
    of_vision = timed("quality", lambda: _measure_vision(material, settings, cache))
    of_pairs, permuted = timed("compare", lambda: _measure_pairs(material, settings, cache))
    probes = timed("probe", lambda: _probe_pairs(material, probing, cache))
    unranked = {
        (v, t): calibrated_row(
            leaderboard_row(
                material.vision[v], material.text[t], probes[v, t], of_vision[v], of_pairs[v, t],
                settings,
            ),
            permuted[v, t], settings,
        )
        for v, t in probes
    }  # fmt: skip
    nulls = {pair: null for pair, (null, _) in permuted.items()}
    networks = best_of_networks(material.vision, material.text, unranked, nulls, settings)
    rows, scores = rank_rows(list(unranked.values()), list(probes.values()), settings)
    vision = [
        encoder_entry(rows, candidate, "vision", values)
        for candidate, (values, _) in zip(material.vision, of_vision, strict=True)
    ]
    text = [
        encoder_entry(
            rows, candidate, "text",
            {row.key: row.function(candidate, pairs.texts[0]) for row in measures(TextMeasure)},
        )
        for candidate, pairs in zip(material.text, material.judged[0], strict=True)
    ]  # fmt: skip
    baselines = {one["label"] for one in (*vision, *text) if one["baseline"]}
    for one in (*vision, *text):
        one["counted"] = counted_scores(rows, scores, one["label"], baselines, settings.level)
    return {
        "rows": rows, "vision": vision, "text": text, "networks": networks,
        "correlations": probing_correlations(rows, vision, text, settings),
        "gaps": correlation_gaps(rows, vision, text, settings),
        "conditions": _conditions(material, probing, settings, seconds),
    }  # fmt: skip


def _measure_vision(
    material: AssessmentData, settings: MeasureSection, cache: Path
) -> list[tuple[Values, Notes]]:
    """The measures of every vision encoder, and why one is missing."""
    if not material.labelled:
        return [(dict.fromkeys(row.key for row in measures(VisionMeasure)), {})
                for _ in material.vision]  # fmt: skip
    with bar(len(material.vision), "kNN and linear probe", "encoder") as progress:
        measured = []
        for train, test in material.labelled:
            measured.append(measure_vision(train, test, settings, cache))
            progress.update()
    return measured


def _measure_pairs(
    material: AssessmentData, settings: MeasureSection, cache: Path
) -> tuple[dict[tuple[int, int], tuple[Values, Notes]], dict[tuple[int, int], tuple[Nulls, Notes]]]:
    """The measures of every pair, and why one is missing; and the same of permuted rows."""
    judged = material.judged
    spaces: dict[tuple[str, int], Space] = {}

    def space(kind: str, index: int) -> Space:
        if (kind, index) not in spaces:
            pairs = judged[index][0] if kind == "image" else judged[0][index]
            features = (
                StoreRows(pairs.image, pairs.image_rows)
                if kind == "image"
                else CaptionMeans(pairs.texts[0])
            )
            spaces[kind, index] = Space.of(features, settings)
        return spaces[kind, index]

    def space_pair(v: int, t: int) -> SpacePair:
        return SpacePair(space("image", v), space("text", t))

    measured, permuted = {}, {}
    with bar(len(judged) * len(judged[0]), "comparing spaces", "pair") as progress:
        for v, line in enumerate(judged):
            for t, pairs in enumerate(line):
                given = (partial(space_pair, v, t), pairs.key, settings, cache)
                measured[v, t] = measure_pair(*given)
                permuted[v, t] = measure_permuted(*given)
                progress.update()
            spaces.pop(("image", v), None)  # for a row alone; all of them may not fit in memory
    return measured, permuted


def _probe_pairs(
    material: AssessmentData, probing: ProbeSection, cache: Path
) -> dict[tuple[int, int], dict[int, Probe]]:
    """The probes of every pair, by the seed of training."""
    recipes = probing.recipes(len(material.train[0][0]))
    probes: dict[tuple[int, int], dict[int, Probe]] = {}
    count = len(material.vision) * len(material.text)
    with bar(count, "probing", "pair") as progress:
        for v, line in enumerate(material.train):
            for t, pairs in enumerate(line):
                probes[v, t] = {
                    recipe.train.seed: probe_pair(pairs, material.judged[v][t], recipe, cache)
                    for recipe in recipes
                }
                labels = plain(material.vision[v].label), plain(material.text[t].label)
                recall = fmean(probe.mean(10) for probe in probes[v, t].values())
                log.info("%s with %s: R@10 %.1f", *labels, recall)
                progress.update()
    return probes


def _conditions(
    material: AssessmentData,
    probing: ProbeSection,
    settings: MeasureSection,
    seconds: dict[str, float],
) -> dict[str, Any]:
    judged, train = material.judged[0][0], material.train[0][0]
    recipe = probing.recipes(len(train))[0]
    seeds = {"seeds": list(probing.seeds)} if len(probing.seeds) > 1 else {}
    labelled = [part for parts in material.labelled[:1] for part in parts if part is not None]
    return {
        "images": len(judged), "captions": int(judged.texts[0].counts.sum()),
        "train_images": len(train), "split": material.judged_on,
        "caption_columns": [column.name for column in train.texts],
        "labelled_images": sum(len(part) for part in labelled),
        "classes": len(material.classes), "k": settings.k, "measure": settings.model_dump(),
        "probe": {"preset": recipe.preset, "head": recipe.head.model_dump(mode="json"),
                  "train": recipe.train.model_dump(mode="json"), **seeds},
        "seed": settings.seed, "data": judged.key,
        "labels": content_key([part.key for part in labelled]) if labelled else None,
        "versions": library_versions(), "skipped": judged.dropped + train.dropped,
        "duplicates": _count_duplicates(material), "seconds": seconds,
    }  # fmt: skip


def _count_duplicates(material: AssessmentData) -> dict[str, int]:
    """Judged images, and captions, whose features another one has too: retrieval cannot tell them
    apart. And judged images whose features one to train on has (``trained``): they are not new.
    The encoder that tells the most apart counts."""
    judged, train = (
        [list(StoreRows(line[0].image, line[0].image_rows).digests()) for line in grid]
        for grid in (material.judged, material.train)
    )
    columns = [pairs.texts[0] for pairs in material.judged[0]]
    texts = [list(StoreRows(column.store, column.rows).digests()) for column in columns]
    trained = min(
        sum(row in known for row in rows)
        for rows, known in zip(judged, map(set, train), strict=True)
    )
    if trained:
        log.warning(
            "%d of %d images to judge on are copies of images to train on: their R@K is too high",
            trained, len(judged[0]),
        )  # fmt: skip
    return {
        "images": min(map(_count_repeated, judged)),
        "texts": min(map(_count_repeated, texts)),
        "trained": trained,
    }


def _count_repeated(rows: Sequence[bytes]) -> int:
    return len(rows) - len(set(rows))


def _write_outputs(results: Mapping[str, Any], folder: Path) -> None:
    rows: list[Row] = results["rows"]
    write_json(folder / LEADERBOARD, rows)
    write_text(folder / "leaderboard.csv", leaderboard_csv(results))
    write_json(folder / ASSESSMENT, results)
    write_assessment_page(results, folder)
