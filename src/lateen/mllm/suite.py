"""A suite of questions: all of a paper's benchmarks whose files are there, with one page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.errors import BusyError, DataError, LateenError, UsageError, choices
from lateen.evaluation.published import MLLM_SUITES
from lateen.evaluation.suite_page import SUMMARY, write_suite_page
from lateen.files import folder_lock, library_versions, make_folder, read_json, write_json
from lateen.mllm.answering import CHOSEN, AnsweredBy
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.benchmarks.benchmark import BENCHMARKS, Benchmark, benchmark_summaries
from lateen.mllm.benchmarks.questions import QuestionSet
from lateen.mllm.evaluation import (
    evaluate_questions,
    file_stem,
    model_facts,
    model_key,
    open_questions,
    result_stem,
)
from lateen.mllm.shots import open_shots
from lateen.progress import log

_ALSO_CALLED = {
    "seed-bench": ("seed",), "mmbench": ("mmb",), "vqav2": ("vqa",), "refcoco-plus": ("refcoco+",),
    "coco-captions": ("coco",), "flickr30k-captions": ("flickr30k",), "ok-vqa": ("okvqa",),
}  # fmt: skip
_SAME = ("set", "split", "questions", "answered_by", "max_tokens", "shots", "shots_drawn",
         "conditions")  # fmt: skip


@dataclass(frozen=True)
class HowAsked:
    """How the benchmarks of a suite are asked; as :func:`evaluate_questions` has it.

    Attributes:
        limit: questions of each at most, drawn by lot.
        control: whether to ask again under another's image.
        answered_by: how answers are found; ``first token`` of those that can be told by it.
        max_tokens: of a generated answer.
        shots: examples before each question, from each benchmark's split to train on.
    """

    limit: int | None = None
    control: bool = True
    answered_by: AnsweredBy | None = None
    max_tokens: int | None = None
    shots: int = 0


def evaluate_suite(
    mllm: MultimodalModel | str | Path, root: str | Path, out: str | Path, *, suite: str = "vqa",
    how: HowAsked | None = None, place: str | Path | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:  # fmt: skip
    """Ask a model the questions of every benchmark of a suite whose files are below a folder.

    The folder of a benchmark is called as it is here, in whatever case and with or without dashes
    and underscores (``seed_bench``). One that fails is recorded with its message, and the others go
    on. Answers that are there already are not asked again.

    Args:
        mllm: the model, or its folder.
        root: folder of the benchmarks' folders.
        out: gets the result and page of each benchmark, ``suite.json`` and ``report.html``.
        suite: a name of :data:`~lateen.evaluation.published.MLLM_SUITES`.
        how: they are asked.
        place: where the model is, for people, if it is given loaded.

    Returns:
        What ``suite.json`` holds, and the results by benchmark; those that a server has to score
        are not among them.

    Raises:
        UsageError: there is no such suite.
        DataError: none of its benchmarks is there.
    """
    if suite not in MLLM_SUITES:
        raise UsageError(f"there is no suite {suite!r}", choices(suite, MLLM_SUITES))
    root, out, how = Path(root).resolve(), Path(out), how or HowAsked()
    if how.answered_by == "likelihood":
        raise UsageError("a suite is answered", "Compare likelihoods of one benchmark.")
    there = find_benchmarks(root, MLLM_SUITES[suite])
    ready = mllm if isinstance(mllm, MultimodalModel) else MultimodalModel.from_pretrained(mllm)
    place = place if isinstance(mllm, MultimodalModel) else mllm
    entries = {name: _entry(name) for name in MLLM_SUITES[suite]}
    results: dict[str, dict[str, Any]] = {}
    make_folder(out)
    for count, (name, folder) in enumerate(there.items(), start=1):
        log.info("%s (%d of %d)", name, count, len(there))
        entries[name] |= _evaluated(ready, name, folder, out, how, place)
        if result := entries[name].pop("result", None):
            results[name] = result
    facts = model_facts(ready, place)
    summary = {
        "suite": suite, "root": str(root), "model": facts, "model_key": model_key(ready),
        "versions": library_versions(), "evaluations": list(entries.values()),
    }  # fmt: skip
    with folder_lock(out):
        write_json(out / SUMMARY, summary)
        write_suite_page(
            summary, results, out, title=f"{facts['tower']} × {facts['llm']}", published=True,
            model={"model": facts["place"], "tower": facts["tower"],
                   "language model": facts["llm"], "projector": facts["projector"]},
        )  # fmt: skip
    return summary, results


def find_benchmarks(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """The folders of benchmarks below a folder, by the benchmark's name.

    Args:
        root: the folder.
        names: of the benchmarks.

    Raises:
        DataError: it has none of them.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", "Give the folder of all benchmarks.")
    folders = {_plain(each.name): each for each in sorted(root.iterdir()) if each.is_dir()}
    found = {}
    for name in names:
        called = (name, *_ALSO_CALLED.get(name, ()))
        folder = next((folders[_plain(each)] for each in called if _plain(each) in folders), None)
        if folder is not None:
            found[name] = folder
    if not found:
        raise DataError(
            f"{root} has no folder of the {len(names)} benchmarks of the suite",
            f"It looks for {', '.join(names)}, each with the files that its owners publish.",
        )
    return found


def _plain(name: str) -> str:
    """A name without what people write differently: ``SEED-Bench`` and ``seed_bench``."""
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _entry(name: str) -> dict[str, Any]:
    """A benchmark in ``suite.json``, as long as its folder was not found."""
    benchmark: Benchmark = BENCHMARKS[name]
    return {
        "name": name, "task": "mllm", "set": name, "summary": benchmark_summaries()[name],
        "looked_for": [name, *_ALSO_CALLED.get(name, ())], "source": benchmark.where,
        "gated": False, "state": "missing",
    }  # fmt: skip


def _evaluated(
    mllm: MultimodalModel, name: str, folder: Path, out: Path, how: HowAsked,
    place: str | Path | None,
) -> dict[str, Any]:  # fmt: skip
    """What became of a benchmark."""
    entry: dict[str, Any] = {"place": str(folder)}
    earlier: dict[str, Any] = {}
    try:
        questions = _open(name, folder)
        earlier = _finished(out / f"{file_stem(name, questions.split, how.shots)}.json")
        shots = open_shots(name, how.shots, folder, split=questions.split) if how.shots else None
        chosen = how.answered_by == "first token" and questions.kind in CHOSEN
        by = how.answered_by if chosen or how.answered_by == "generation" else None
        result = evaluate_questions(
            mllm, questions, out=out, limit=how.limit, control=how.control, answered_by=by,
            max_tokens=how.max_tokens, shots=shots, place=place,
        )  # fmt: skip
    except BusyError:
        raise
    except LateenError as error:
        log.warning("%s: %s", name, error)
        return {**entry, "state": "failed", "message": str(error)}
    except Exception as error:  # noqa: BLE001  whatever it is, the other benchmarks go on
        message = f"unexpected {type(error).__name__}: {error}"
        log.warning("%s: %s", name, message, exc_info=log.isEnabledFor(10))
        return {**entry, "state": "failed", "message": message}
    entry["file"] = f"{result_stem(result)}.json"
    if "upload" in result:
        return {**entry, "state": "upload", "upload": result["upload"]}
    same = all(earlier.get(key) == result.get(key) for key in _SAME)
    return {**entry, "state": "kept" if same else "done", "result": result}


def _open(name: str, folder: Path) -> QuestionSet:
    """The usual split of a benchmark, else the first that is there and not to train on."""
    splits: list[str | None] = [
        each for each in BENCHMARKS[name].splits if not each.startswith("train")
    ]
    faults: list[DataError] = []
    for split in splits or [None]:
        try:
            return open_questions(name, folder, split=split)
        except DataError as error:
            faults.append(error)
    raise faults[0]


def _finished(file: Path) -> dict[str, Any]:
    """The result of an earlier call, if there is one."""
    try:
        return dict(read_json(file)) if file.is_file() else {}
    except (LateenError, TypeError, ValueError):  # not one of ours, or damaged
        return {}
