"""What a benchmark is, the registry that finds them all, and the function that opens one.

A benchmark is a module of :mod:`lateen.mllm.benchmarks.sets` that defines ``BENCHMARK``. Its name
is that of the file, with dashes; its summary is the first line of the module's docstring, which
also says where its layout is from. Nothing else has to know of it.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from lateen.data.open import open_dataset
from lateen.data.samples import (
    PEEK,
    Dataset,
    ImageFiles,
    ImageSource,
    Skip,
    find_image_files,
    require_image,
)
from lateen.errors import DataError, UsageError, choices
from lateen.exports import Registry
from lateen.metrics.answers import Normalise, normalise_vqa
from lateen.mllm.benchmarks import sets
from lateen.mllm.benchmarks.files import Draft, Folder
from lateen.mllm.benchmarks.questions import (
    COUNTS_WITH_LOST,
    AnswerKind,
    Question,
    QuestionSet,
    counts_with,
)

Read = Callable[[Folder, str], Iterable[Draft]]
OfDataset = Callable[[Dataset], QuestionSet]
UploadRow = Callable[[Question, str], Mapping[str, object]]


@dataclass(frozen=True)
class Benchmark:
    """One published set of questions.

    Attributes:
        read: a folder and a split to its questions.
        kind: of its answers.
        where: to get it, and what its folder has in it: the remedy of every error.
        ending: of its prompts.
        splits: that it has, the usual one first; empty where it has none.
        folders: where its images usually are, below its own folder; ``{split}`` is the split.
        suffixes: endings that the names of images lack.
        normalise: what is done to answers of people and models before they are compared.
        upload: what its server wants of a question and its answer; ``None`` where that is not
            known.
        upload_suffix: of the file for the server: ``.json`` is a list, ``.jsonl`` has lines,
            ``.tsv`` a table.
        package: a Python package that has it, within its folder ``data``.
        of_dataset: makes it of any dataset with captions; then its files are those of a dataset,
            and ``read`` is not used.
    """

    read: Read | None
    kind: AnswerKind
    where: str
    ending: str = ""
    splits: tuple[str, ...] = ()
    folders: tuple[str, ...] = ("images", ".")
    suffixes: tuple[str, ...] = ("",)
    normalise: Normalise = normalise_vqa
    upload: UploadRow | None = None
    upload_suffix: str = ".json"
    package: str = ""
    of_dataset: OfDataset | None = None

    @property
    def name(self) -> str:
        """That of its file, with dashes."""
        module = str(getattr(self.read or self.of_dataset, "__module__", ""))
        return module.rpartition(".")[2].replace("_", "-")

    def train_split(self, split: str) -> str | None:
        """The split whose questions may stand before those of another; ``None`` without one."""
        train = [each for each in self.splits if each.startswith("train")]
        own = f"train-{split}"  # where each split has one
        return own if own in train else next(iter(train), None)


def uploaded_as(key: str, normalise: Normalise = str) -> UploadRow:
    """A row of a file for a server: what the set has published of a question, and the answer.

    Args:
        key: of the answer.
        normalise: what is done to it before.
    """
    return lambda question, answer: {**question.published, key: normalise(answer)}


BENCHMARKS: Registry[Benchmark] = Registry(sets, "BENCHMARK")
"""All benchmarks by name."""


def benchmark_summaries() -> dict[str, str]:
    """Every benchmark's name and summary, read from the files: nothing is imported."""
    return BENCHMARKS.summaries()


def open_benchmark(
    name: str, root: str | Path | None = None, *,
    images: str | Path | None = None, split: str | None = None,
) -> QuestionSet:  # fmt: skip
    """The questions of a benchmark, from the files that its owners publish.

    A question whose image is missing, or that is malformed, is a skip; where some questions have
    answers, so is one that has none.

    Args:
        name: in :data:`BENCHMARKS`.
        root: its folder, or the file with the questions; of a set that is a Python package, where
            that is installed if not given; of a set that is made of captions a dataset as
            :func:`~lateen.data.open_dataset` takes it.
        images: the folder that the names of its images are relative to; where they are found below
            the root if not given.
        split: one of its own; the usual one if not given.

    Raises:
        UsageError: there is no such benchmark or split.
        DataError: its files are not there or of another form, or not one question can be asked.
    """
    if name not in BENCHMARKS:
        raise UsageError(f"there is no benchmark {name!r}", choices(name, BENCHMARKS))
    benchmark = BENCHMARKS[name]
    if benchmark.of_dataset is not None:
        if root is None:
            raise UsageError(f"{name} is made of captions", "Name a dataset that has some.")
        return benchmark.of_dataset(open_dataset(root, images=images, split=split))
    split = benchmark.splits[0] if split is None and benchmark.splits else split or ""
    if split and split not in benchmark.splits:
        raise UsageError(
            f"{name} has no split {split!r}",
            choices(split, benchmark.splits) if benchmark.splits else "Leave the split out.",
        )
    folder = Folder(_root(benchmark, root), benchmark.where)
    drafts = list(benchmark.read(folder, split)) if benchmark.read else []
    files = _image_files(benchmark, folder, images, split, drafts)
    questions, skips = _resolve(benchmark, drafts, files)
    if not questions:
        first = f" (the first: {skips[0].reason})" if skips else ""
        raise DataError(f"{folder.root} has no question of {name}{first}", benchmark.where)
    return QuestionSet(name, split, benchmark.ending, tuple(questions), tuple(skips))


def _root(benchmark: Benchmark, root: str | Path | None) -> Path:
    if root is not None:
        path = Path(root)
        if not path.exists():
            raise DataError(f"there is no {path}", benchmark.where)
        return path
    spec = importlib.util.find_spec(benchmark.package) if benchmark.package else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{benchmark.name} needs the folder with its files", benchmark.where)
    return Path(spec.submodule_search_locations[0]) / "data"


def _image_files(
    benchmark: Benchmark, folder: Folder, images: str | Path | None, split: str,
    drafts: Sequence[Draft],
) -> ImageFiles:  # fmt: skip
    names = (image for draft in drafts for image in draft.images if isinstance(image, str))
    usual = [folder.root / each.format(split=split) for each in benchmark.folders]
    return find_image_files(images, usual, itertools.islice(names, PEEK), benchmark.suffixes)


def _resolve(
    benchmark: Benchmark, drafts: Sequence[Draft], files: ImageFiles
) -> tuple[list[Question], list[Skip]]:
    """The questions that can be asked, and skips of the others."""
    some_have_answers = any(draft.answers or draft.box for draft in drafts)
    questions: dict[str, Question] = {}
    skips: list[Skip] = []
    looked_for: list[tuple[str, str]] = []
    for draft in drafts:
        sources = [files.find(i) if isinstance(i, str) else i for i in draft.images]
        missing = [i for i, source in zip(draft.images, sources, strict=True) if source is None]
        lost = f"there is no {files.folder / str(missing[0])}" if missing else ""
        fault = draft.fault or _fault(draft, benchmark.kind)
        if not fault:
            looked_for.append((draft.id, lost))
            fault = lost
        if not fault and some_have_answers and not (draft.answers or draft.box):
            fault = "it has no answer"
        if not fault and draft.id in questions:
            fault = f"the id {draft.id} was already used"
        if fault:
            skips.append(Skip(draft.id, fault, draft.source))
        else:
            opened = (files.source(s) if isinstance(s, str) else s for s in sources if s)
            questions[draft.id] = _question(draft, benchmark.kind, tuple(opened))
    require_image(benchmark.name, looked_for, f"Say with images= where they are. {benchmark.where}")
    incomplete = {counts_with(draft) for draft in drafts if draft.id not in questions}
    whole = {name: q for name, q in questions.items() if counts_with(q) not in incomplete}
    skips += [
        Skip(draft.id, COUNTS_WITH_LOST, draft.source)
        for draft in drafts if draft.id in questions and draft.id not in whole
    ]  # fmt: skip
    return list(whole.values()), skips


def _fault(draft: Draft, kind: AnswerKind) -> str:
    """Why a question cannot be asked, whatever its image; empty if it can."""
    if not all(isinstance(image, str | ImageSource) for image in draft.images):
        return "its image has no name"
    for name, texts in {"question": (draft.text,), "choice": draft.choices}.items():
        if not all(isinstance(text, str) and text.strip() for text in texts):
            return f"a {name} is not text"
    if not all(isinstance(answer, str) for answer in draft.answers):
        return "an answer is not text"
    if kind == "letter":
        letters = ascii_uppercase[: len(draft.choices)]
        if len(letters) < 2:
            return f"it has {len(letters)} choices"
        if wrong := [answer for answer in draft.answers if answer not in letters]:
            return f"its answer {wrong[0]!r} is none of the letters {letters}"
    return "it has only one answer" if kind == "human" and len(draft.answers) == 1 else ""


def _question(draft: Draft, kind: AnswerKind, images: tuple[ImageSource, ...]) -> Question:
    named = draft.image_ids or tuple(
        image if isinstance(image, str) else image.name for image in draft.images
    )
    return Question(
        id=draft.id, images=images, image_ids=named, text=draft.text, kind=kind,
        answers=draft.answers, choices=draft.choices, box=draft.box, groups=draft.groups,
        rotation_of=draft.rotation_of, pair=draft.pair, published=draft.published,
    )  # fmt: skip
