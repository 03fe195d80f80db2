"""A suite: all of a paper's evaluations whose data is there, with one report."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lateen.data.fingerprint import look_at
from lateen.errors import DataError, LateenError, UsageError, choices
from lateen.evaluation.embedding import model_facts, model_key
from lateen.evaluation.page import write_suite_page
from lateen.evaluation.sets import SUITES, Evaluation, Options
from lateen.evaluation.tasks import TASKS
from lateen.files import folder_lock, make_folder, read_json, write_json
from lateen.model import AlignedModel
from lateen.progress import log
from lateen.store.manifest import library_versions

SUMMARY = "suite.json"


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
        root: folder of the sets; see :data:`~lateen.evaluation.sets.SUITES` for the places.
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
    found = _found(root, list(by_name.values()))
    _ = model.vision_encoder, model.text_encoder  # what cannot be loaded fails here, and once
    make_folder(out)
    with folder_lock(out):
        done = _Done(model, place, out)
        entries = {name: _entry(each) for name, each in by_name.items()}
        results: dict[str, dict[str, Any]] = {}
        for count, (name, there) in enumerate(found.items(), start=1):
            log.info("%s (%d of %d)", name, count, len(found))
            became = done.run(by_name[name], *there)
            if "result" in became:
                results[name] = became.pop("result")
            entries[name] |= became
        summary = {
            "suite": suite, "root": str(root), "model": done.facts, "model_key": done.key,
            "versions": done.versions, "evaluations": list(entries.values()),
        }  # fmt: skip
        write_json(out / SUMMARY, summary)
        write_suite_page(summary, results, out)
    return summary, results


def _entry(each: Evaluation) -> dict[str, Any]:
    """An evaluation in ``suite.json``, as long as its data was not found."""
    return {
        "name": each.name, "task": each.task, "set": each.set, "looked_for": list(each.places),
        "source": each.source, "gated": each.gated, "state": "missing",
    }  # fmt: skip


def _found(root: Path, wanted: Sequence[Evaluation]) -> dict[str, tuple[Path, Options]]:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", "Give the folder of all sets as --data.root.")
    found = {each.name: there for each in wanted if (there := each.options(root)) is not None}
    if not found:
        raise DataError(
            f"{root} has none of the {len(wanted)} sets of the suite",
            "It looks for imagenet/, cifar10/ and so on with labelled images (or as the hub's "
            "wds_imagenet1k/), coco/dataset_coco.json, flickr30k/dataset_flickr30k.json, "
            "winoground/, sugarcrepe/, mmvp-vlm/, ade20k/, coco-stuff/ and voc20/.",
        )
    return found


class _Done:
    """Runs evaluations of one model, each once."""

    def __init__(self, model: AlignedModel, place: str | Path | None, out: Path) -> None:
        self._model, self._out = model, out
        self.key, self.facts = model_key(model), model_facts(model, place)
        self.versions = library_versions()

    def run(self, each: Evaluation, place: Path, options: Options) -> dict[str, Any]:
        """What became of an evaluation."""
        file = self._out / f"{each.name}.json"
        before = _files_key(options)
        entry = {"place": str(place), "file": file.name}
        kept = self._kept(file, each, options, before)
        if kept is not None:
            return {**entry, "state": "kept", "result": kept}
        file.unlink(missing_ok=True)
        begin = time.perf_counter()
        try:
            pictures = {"out": self._out / each.name}
            drawn = pictures if "out" in TASKS[each.task].options else {}
            found = TASKS[each.task](self._model, **options, **drawn)
        except LateenError as error:
            return {"place": str(place), "state": "failed", "message": str(error)}
        except Exception as error:  # noqa: BLE001  whatever it is, the other evaluations go on
            message = f"unexpected {type(error).__name__}: {error}"
            log.warning("%s: %s", each.name, message, exc_info=log.isEnabledFor(10))
            return {"place": str(place), "state": "failed", "message": message}
        result = {"task": each.task, "model": self.facts, **found, "set": each.set}
        # Files that changed meanwhile may have been read before or after.
        untouched = before if before == _files_key(options) else None
        write_json(file, {**result, "files": untouched})
        seconds = round(time.perf_counter() - begin, 1)
        return {**entry, "state": "done", "seconds": seconds, "result": result}

    def _kept(
        self, file: Path, each: Evaluation, options: Options, files: str | None
    ) -> dict[str, Any] | None:
        """The result of an earlier call, if this one would give the same."""
        if files is None or not file.is_file():
            return None
        try:
            result = read_json(file)
            held = result["conditions"]
            same = (
                (result["task"], result["set"], result["files"]) == (each.task, each.set, files)
                and (held["model"], held["versions"]) == (self.key, self.versions)
                and result["options"] == _as_json(options)
            )
        except (LateenError, KeyError, TypeError):  # not one of ours, or damaged
            return None
        return {**result, "model": self.facts} if same else None


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
            found = look_at(file)
            if found is None or not found.settled:
                return None
            digest.update(repr((name, file, found.state)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[str]:
    """Every file below a folder, in a fixed order; links are followed, each folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (path for name in sorted(files) if os.path.exists(path := f"{place}/{name}"))  # noqa: PTH110
