"""A suite: all of a paper's evaluations whose data is there, with one page.

The evaluations are those of SAIL (arXiv:2412.04616) and KUEA (arXiv:2506.02557), METHODS §1.6, §2;
every path is relative to the folder that the user gives. On which set KUEA probes patches is not
known: it is done on every set of masks that is there. Attention is shown of photographs in a folder
``attention``, else of those of MMVP.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.data.fingerprint import look_at
from lateen.data.labels import SETS, ClassificationSet
from lateen.data.masks import LAYOUTS, MaskLayout
from lateen.errors import DataError, LateenError, UsageError, choices
from lateen.evaluation.features import model_facts, model_key
from lateen.evaluation.published import KUEA_SETS
from lateen.evaluation.suite_page import SUMMARY, write_suite_page
from lateen.evaluation.task import TASKS
from lateen.files import folder_lock, library_versions, make_folder, read_json, write_json
from lateen.model import AlignedModel
from lateen.progress import log

Options = dict[str, Any]
_PROBED = ("svhn", "gtsrb", "clevr-distance", "clevr-counts")  # KUEA's, also by a linear probe
_OF_KUEA_ALONE = {
    *_PROBED, "fer2013", "pcam", "resisc45", "eurosat", "imagenet-o", "imagenet-sketch",
}  # fmt: skip
_KUEA_TASKS = ("linear-probe", "retrieval", "mmvp", "patch-probe", "attention")
_COCO_VAL = (
    "sugarcrepe/val2017", "sugarcrepe/images", "coco/val2017", "coco/images/val2017", "val2017",
)  # fmt: skip
_MMVP = ("mmvp-vlm", "MMVP_VLM")
# What the page opens with, as far as it is there.
_FIRST = ("imagenet", "coco-retrieval", "flickr30k-retrieval", "winoground", "mmvp-vlm", "ade20k")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a suite.

    Attributes:
        name: its own, also of its files.
        task: name of the task.
        set: what it is evaluated on.
        paths: where that is looked for below the suite's folder, the first that is there.
        source: where to get it: a dataset's name on the hub, or elsewhere.
        gated: whether terms have to be accepted there first.
        find: the task's options, from the suite's folder and a path; ``None`` if the set is not
            there.
    """

    name: str
    task: str
    set: str
    paths: tuple[str, ...]
    source: str
    gated: bool
    find: Callable[[Path, Path], Options | None]

    def options(self, root: Path) -> tuple[Path, Options] | None:
        """Where it is below ``root``, with the task's options; ``None`` where it is not."""
        for name in self.paths:
            path = root / name
            if path.exists() and (options := self.find(root, path)) is not None:
                return path, options
        return None


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _filled(_: Path, path: Path) -> Options | None:
    return {"data": path} if path.is_file() or any(path.iterdir()) else None


def _labelled(task: str, each: ClassificationSet) -> Evaluation:
    def find(root: Path, path: Path) -> Options | None:
        options = _filled(root, path)
        return options and {**options, "set": each.name}

    hub = each.hub[0]
    end = "-probe" if task == "linear-probe" else ""
    paths = dict.fromkeys((each.name, *(name.rpartition("/")[2] for name in each.hub)))
    return Evaluation(
        each.name + end, task, each.name, tuple(paths), hub,
        "gated" in each.licence, find,
    )  # fmt: skip


def _karpathy(name: str, images: Sequence[str], source: str) -> Evaluation:
    def find(_: Path, path: Path) -> Options:
        folder = _first(path.parent, images) or path.parent
        return {"captions": path, "images": folder, "split": "test", "per_image": 5}

    return Evaluation(
        f"{name}-retrieval", "retrieval", name, (f"{name}/dataset_{name}.json",),
        f"https://cs.stanford.edu/people/karpathy/deepimagesent/ (captions), {source}", False, find,
    )  # fmt: skip


def _sugarcrepe(root: Path, path: Path) -> Options | None:
    if not any(path.glob("*.json")):
        return None
    return {"data": path, "images": _first(root, _COCO_VAL) or path}


def _masks(task: str, layout: MaskLayout) -> Evaluation:
    def find(_: Path, path: Path) -> Options | None:
        options = {"data": path, "layout": layout.name}
        return options if layout.look(path) is not None else None

    # COCO-Stuff's masks may lie with the images of COCO that retrieval uses.
    also = ("coco",) if layout.name == "coco-stuff" else ("VOCdevkit",)
    paths = (layout.name, *layout.folders, *(also if layout.name != "ade20k" else ()))
    end = "-patches" if task == "patch-probe" else ""
    return Evaluation(
        layout.name + end, task, layout.name, paths, layout.source, False, find
    )  # fmt: skip


def _photographs(_: Path, path: Path) -> Options | None:
    return {"images": path} if path.is_dir() and any(path.iterdir()) else None


def _every() -> list[Evaluation]:
    mine = sorted(SETS.values(), key=lambda each: each.name in _OF_KUEA_ALONE)
    return [
        *(_labelled("classification", each) for each in mine),
        *(_labelled("linear-probe", SETS[name]) for name in _PROBED),
        _karpathy("coco", ("images",), "https://cocodataset.org (val2014)"),
        _karpathy(
            "flickr30k", ("flickr30k-images", "flickr30k_images", "images"),
            "https://shannon.cs.illinois.edu/DenotationGraph/",
        ),
        Evaluation(
            "winoground", "winoground", "winoground", ("winoground",),
            "facebook/winoground", True, _filled,
        ),
        Evaluation(
            "sugarcrepe", "caption-choice", "sugarcrepe",
            ("sugarcrepe", "sugarcrepe/data", "sugar-crepe/data"),
            "https://github.com/RAIVNLab/sugar-crepe (folder data), with COCO's val2017", False,
            _sugarcrepe,
        ),
        Evaluation(
            "mmvp-vlm", "mmvp", "mmvp-vlm", _MMVP, "MMVP/MMVP_VLM", False, _filled,
        ),
        *(_masks("segmentation", layout) for layout in LAYOUTS.values()),
        *(_masks("patch-probe", layout) for layout in LAYOUTS.values()),
        Evaluation(
            "attention", "attention", "attention",
            ("attention", *(f"{name}/MLLM_VLM Images" for name in _MMVP), "coco/images"),
            "photographs of your own", False, _photographs,
        ),
    ]  # fmt: skip


def _suites() -> dict[str, list[Evaluation]]:
    every = _every()
    paper = [each for each in every if each.task not in ("patch-probe", "attention")]
    sets = (*KUEA_SETS, *_PROBED)
    return {
        "paper": paper,
        "sail": [e for e in paper if e.set not in _OF_KUEA_ALONE and e.name != "sugarcrepe"],
        "kuea": [
            each for each in every
            if each.task in _KUEA_TASKS or (each.task == "classification" and each.set in sets)
        ],
    }  # fmt: skip


SUITES: dict[str, list[Evaluation]] = _suites()
"""By name: ``sail`` and ``kuea`` are what these papers report.

``paper`` is both of them and SugarCrepe, but for KUEA's patch probing and attention maps.
"""


def evaluate_suite(
    model: AlignedModel,
    root: str | Path,
    out: str | Path,
    *,
    suite: str = "paper",
    place: str | Path | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Run every evaluation of a suite whose data is below a folder, and write a report.

    One that fails is recorded with its message, and the others go on. One whose result is there
    already, of the same model, libraries, options and untouched files, is not run again.

    Args:
        model: an aligned model.
        root: folder of the sets; see :data:`~lateen.evaluation.suite.SUITES` for the paths.
        out: gets a JSON file for each evaluation, its pictures in a folder of its name,
            ``suite.json`` and ``report.html``.
        suite: which.
        place: where the model is, for people.

    Returns:
        What ``suite.json`` holds, and the results by name.

    Raises:
        UsageError: there is no such suite.
        DataError: none of its sets is there.
    """
    if suite not in SUITES:
        raise UsageError(f"there is no suite {suite!r}", choices(suite, SUITES))
    root, out = Path(root).resolve(), Path(out)
    by_name = {each.name: each for each in SUITES[suite]}
    available = _available(root, list(by_name.values()))
    _ = model.vision_encoder, model.text_encoder  # what cannot be loaded fails here, and once
    make_folder(out)
    with folder_lock(out):
        evaluator = _Evaluator(model, place, out)
        entries = {name: _entry(each) for name, each in by_name.items()}
        results: dict[str, dict[str, Any]] = {}
        for count, (name, source) in enumerate(available.items(), start=1):
            log.info("%s (%d of %d)", name, count, len(available))
            became = evaluator.run(by_name[name], *source)
            if "result" in became:
                results[name] = became.pop("result")
            entries[name] |= became
        summary = {
            "suite": suite, "root": str(root), "model": evaluator.facts, "model_key": evaluator.key,
            "versions": evaluator.versions, "evaluations": list(entries.values()),
        }  # fmt: skip
        write_json(out / SUMMARY, summary)
        facts = evaluator.facts
        write_suite_page(
            summary, results, out, title=f"{facts['vision']} × {facts['text']}", first=_FIRST,
            model={"model": facts["place"], "vision encoder": facts["vision"],
                   "text encoder": facts["text"], "head": facts["head"]},
        )  # fmt: skip
    return summary, results


def _entry(each: Evaluation) -> dict[str, Any]:
    """An evaluation in ``suite.json``, as long as its data was not found."""
    return {
        "name": each.name, "task": each.task, "set": each.set, "looked_for": list(each.paths),
        "source": each.source, "gated": each.gated, "state": "missing",
    }  # fmt: skip


def _available(root: Path, evaluations: Sequence[Evaluation]) -> dict[str, tuple[Path, Options]]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", "Give the folder of all sets as --data.root.")
    available = {
        each.name: source for each in evaluations if (source := each.options(root)) is not None
    }
    if not available:
        labelled = ("classification", "linear-probe")
        others = dict.fromkeys(e.paths[0] for e in evaluations if e.task not in labelled)
        raise DataError(
            f"{root} has none of the {len(evaluations)} sets of the suite",
            "It looks for imagenet/, cifar10/ and so on with labelled images (or as the hub's "
            f"wds_imagenet1k/), {', '.join(others)}.",
        )
    return available


class _Evaluator:
    """Runs evaluations of one model, each once."""

    def __init__(self, model: AlignedModel, place: str | Path | None, out: Path) -> None:
        self._model, self._out = model, out
        self.key, self.facts = model_key(model), model_facts(model, place)
        self.versions = library_versions()

    def run(self, each: Evaluation, path: Path, options: Options) -> dict[str, Any]:
        """What became of an evaluation."""
        file = self._out / f"{each.name}.json"
        before = _files_key(options)
        entry = {"place": str(path), "file": file.name}
        earlier = self._earlier(file, each, options, before)
        if earlier is not None:
            return {**entry, "state": "kept", "result": earlier}
        file.unlink(missing_ok=True)
        begin = time.perf_counter()
        try:
            pictures = {"out": self._out / each.name}
            drawn = pictures if "out" in TASKS[each.task].options else {}
            measured = TASKS[each.task].measure(self._model, {**options, **drawn})
        except LateenError as error:
            return {"place": str(path), "state": "failed", "message": str(error)}
        except Exception as error:  # noqa: BLE001  whatever it is, the other evaluations go on
            message = f"unexpected {type(error).__name__}: {error}"
            log.warning("%s: %s", each.name, message, exc_info=log.isEnabledFor(10))
            return {"place": str(path), "state": "failed", "message": message}
        result = {"task": each.task, "model": self.facts, **measured, "set": each.set}
        # Files that changed meanwhile may have been read before or after.
        untouched = before if before == _files_key(options) else None
        write_json(file, {**result, "files": untouched})
        seconds = round(time.perf_counter() - begin, 1)
        return {**entry, "state": "done", "seconds": seconds, "result": result}

    def _earlier(
        self, file: Path, each: Evaluation, options: Options, files: str | None
    ) -> dict[str, Any] | None:
        """The result of an earlier call, if this one would give the same."""
        if files is None or not file.is_file():
            return None
        try:
            result = read_json(file)
            conditions = result["conditions"]
            same = (
                (result["task"], result["set"], result["files"]) == (each.task, each.set, files)
                and (conditions["model"], conditions["versions"]) == (self.key, self.versions)
                and result["options"] == _as_json(options)
                and result.get("with_bank", {}).get("bank", {}).get("key") == self._bank(each.task)
            )
        except (LateenError, KeyError, TypeError):  # not one of ours, or damaged
            return None
        return {**result, "model": self.facts} if same else None

    def _bank(self, task: str) -> str | None:
        """Key of the query bank that a task uses of the model, if it does and there is one."""
        bank = self._model.query_bank if "bank" in TASKS[task].options else None
        return None if bank is None else bank.key


def _as_json(options: Options) -> dict[str, Any]:
    return {key: str(v) if isinstance(v, Path) else v for key, v in options.items()}


def _files_key(options: Options) -> str | None:
    """Content key of the state of all files that options name: sizes, times, inodes.

    Nothing is read: as in git's index, another content means another state. ``None`` where a file
    is so new that this cannot be relied on.
    """
    digest = hashlib.sha256()
    for name, path in sorted((k, v) for k, v in options.items() if isinstance(v, Path)):
        for file in _walk(path) if path.is_dir() else [str(path)]:
            stat = look_at(file)
            if stat is None or not stat.settled:
                return None
            digest.update(repr((name, file, stat.state)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[str]:
    """Every file below a folder, in a fixed order; links are followed, each folder once."""
    visited: set[str] = set()
    for inside, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(inside)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        yield from (path for name in sorted(files) if os.path.exists(path := f"{inside}/{name}"))  # noqa: PTH110
