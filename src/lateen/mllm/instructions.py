"""Conversations to train on: captions, LLaVA's JSON, and the questions of benchmarks' training
splits; where images and texts do not fit, a conversation is left out, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lateen.data import open_dataset
from lateen.data.fingerprint import combine
from lateen.data.rows import json_lines
from lateen.data.samples import (
    PEEK,
    ImageSource,
    Sample,
    Skip,
    content_hashes,
    find_image_files,
    no_captions,
    require_image,
    sample_id,
)
from lateen.data.text import read_utf8
from lateen.errors import DataError, LateenError, UsageError
from lateen.files import content_key
from lateen.mllm.benchmarks.benchmark import BENCHMARKS, open_benchmark
from lateen.mllm.conversations import Message, parts_of
from lateen.mllm.templates import IMAGE
from lateen.progress import log

_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
             "system": "system"}  # fmt: skip
_MOST_TOLD = 4
_WANTED = (
    'Each row is {"id": …, "image": "name.jpg", "conversations": [{"from": "human", "value": '
    '"<image>\\n…"}, {"from": "gpt", "value": "…"}]}, as LLaVA\'s data is.'
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns about images, or about none.

    Attributes:
        id: unique in its data.
        images: ids of the images, in the order of their places.
        messages: turns with their contents as parts; the assistant's are what is learned.
    """

    id: str
    images: tuple[str, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Instructions:
    """Conversations and their images.

    Attributes:
        name: of the data, for people.
        conversations: those that can be learned.
        images: by id, in the order in which they first occur.
        skips: of what was left out.
    """

    name: str
    conversations: tuple[Conversation, ...]
    images: Mapping[str, ImageSource]
    skips: tuple[Skip, ...] = ()

    @property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever a turn, or an image's bytes, do."""
        turns = [[each.id, each.images, each.messages] for each in self.conversations]
        return combine([content_key(turns), *content_hashes(self.images.values())])


def open_instructions(
    root: str | Path | None, *, questions: str | None = None,
    images: str | Path | None = None, split: str | None = None,
) -> Instructions:  # fmt: skip
    """Open what a multimodal model is to learn.

    Args:
        root: LLaVA's JSON, a list of conversations; or any dataset with captions; or what
            ``questions`` are read from. The name of a set of questions stands for that set.
        questions: name of a set of questions (`lateen mllm evaluate --list`), of which its right
            answers are learned.
        images: folder that names of images are relative to.
        split: of the data; of a set of questions ``train`` if not given.

    Raises:
        DataError: there is no such data, or not one conversation in it fits.
        UsageError: there is no such set of questions or split.
    """
    named = root is not None and not Path(root).exists() and str(root) in BENCHMARKS
    if questions is None and named:
        questions, root = str(root), None
    if questions is not None:
        found = _of_questions(questions, root, images, split)
    elif root is None:
        raise UsageError("nothing says what to learn from", "Give --data.")
    elif (rows := _conversation_rows(Path(root))) is not None:
        found = _of_rows(rows, Path(root), images)
    else:
        found = _of_captions(root, images, split)
    if not found.conversations:
        first = f" (the first: {found.skips[0].reason})" if found.skips else ""
        raise DataError(f"{found.name} has no conversation to learn from{first}", _WANTED)
    _tell_skips(found)
    return found


def _of_captions(root: str | Path, images: str | Path | None, split: str | None) -> Instructions:
    """A conversation for every caption: the image, and what is said of it."""
    dataset = open_dataset(root, images=images, split=split)
    sources: dict[str, ImageSource] = {}
    conversations: list[Conversation] = []
    skips: list[Skip] = []
    for each in dataset:
        if isinstance(each, Skip):
            skips.append(each)
            continue
        captions = _captions(each)
        if each.image is None or not captions:
            skips.append(Skip(each.id, "it has no image or no caption", dataset.name))
            continue
        sources[each.id] = each.image
        conversations += [
            Conversation(f"{each.id}#{at}", (each.id,), _captioned(caption))
            for at, caption in enumerate(captions)
        ]
    if not conversations and not dataset.columns:
        raise DataError(no_captions(dataset), f"Give a dataset with captions. Or: {_WANTED}")
    return Instructions(dataset.name, tuple(conversations), sources, tuple(skips))


def _captions(sample: Sample) -> list[str]:
    texts = (text.strip() for column in sample.captions.values() for text in column)
    return list(dict.fromkeys(filter(None, texts)))


def _captioned(caption: str) -> tuple[Message, ...]:
    said = {"role": "assistant", "content": caption}
    return tuple(parts_of([{"role": "user", "content": IMAGE}, said], 1))


def _of_questions(
    name: str, root: str | Path | None, images: str | Path | None, split: str | None
) -> Instructions:
    """A conversation for every question, with the answer that is right."""
    if split is None and name in BENCHMARKS and BENCHMARKS[name].splits:
        if "train" not in BENCHMARKS[name].splits:
            known = ", ".join(BENCHMARKS[name].splits)
            raise UsageError(
                f"{name} has no split to learn from that is called train",
                f"Name one with --data.split ({known}); what is learned must not judge.",
            )
        split = "train"
    asked = open_benchmark(name, root, images=images, split=split)
    sources: dict[str, ImageSource] = {}
    conversations, skips = [], list(asked.skips)
    for question, prompt in zip(asked.questions, asked.prompts(), strict=True):
        answer = question.example_answer
        if not answer:
            skips.append(Skip(question.id, "it has no answer", asked.name))
            continue
        named = question.image_ids or tuple(source.name for source in question.images)
        sources |= dict(zip(named, question.images, strict=True))
        turns = [{"role": "user", "content": IMAGE * len(named) + prompt},
                 {"role": "assistant", "content": answer}]  # fmt: skip
        conversations.append(Conversation(question.id, named, tuple(parts_of(turns, len(named)))))
    whole = "-".join(filter(None, (asked.name, asked.split)))
    return Instructions(whole, tuple(conversations), sources, tuple(skips))


def _conversation_rows(path: Path) -> list[tuple[str, Any]] | None:
    """The rows of a file of conversations, each with where it stands; ``None`` for another file."""
    if not path.is_file() or path.suffix.lower() not in (".json", ".jsonl"):
        return None
    if path.suffix.lower() == ".json":
        try:
            content = json.loads(read_utf8(path))
        except json.JSONDecodeError as error:
            raise DataError(f"{path} is no JSON ({error})", _WANTED) from error
        rows = content if isinstance(content, list) else []
        named = [(f"{path}#{at}", row) for at, row in enumerate(rows)]
    else:
        named = [
            (row.source, f"invalid JSON ({row.fault})" if row.fault else row.cells)
            for row in json_lines(path)
        ]
    if any(isinstance(row, dict) and "conversations" in row for _, row in named[:PEEK]):
        return named
    return None


def _of_rows(
    rows: Iterable[tuple[str, Any]], path: Path, images: str | Path | None
) -> Instructions:
    """LLaVA's rows; one that does not fit is left out, and why."""
    drafts: list[Conversation] = []
    skips: list[Skip] = []
    for at, (where, row) in enumerate(rows):
        try:
            drafts.append(_drafted(row, at))
        except LateenError as error:
            name = str(row.get("id", at)) if isinstance(row, dict) else str(at)
            skips.append(Skip(name, error.message, where))
    names = [name for draft in drafts for name in draft.images]
    files = find_image_files(images, [path.parent / "images", path.parent], names[:PEEK])
    sources: dict[str, ImageSource] = {}
    lost: dict[str, str] = {}
    for name in dict.fromkeys(names):
        found = files.find(name)
        if found is None:
            lost[name] = f"there is no {files.folder / name}"
        else:
            sources[name] = files.source(found)
    looked_for = [(name, lost.get(name, "")) for name in dict.fromkeys(names)]
    require_image(path.name, looked_for, "Say where they are: --data.images.")
    kept: list[Conversation] = []
    seen: set[str] = set()
    for draft in drafts:
        missing = [lost[name] for name in draft.images if name in lost]
        if missing:
            skips.append(Skip(draft.id, missing[0], str(path)))
            continue
        # LLaVA's mixture has an id several times.
        name = draft.id if draft.id not in seen else f"{draft.id}#{len(kept)}"
        seen.add(name)
        kept.append(replace(draft, id=name))
    return Instructions(path.name, tuple(kept), sources, tuple(skips))


def _drafted(row: Any, at: int) -> Conversation:
    """One row of LLaVA's JSON.

    Raises:
        DataError: it has another form, no answer, or other places than images.
    """
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise DataError(row if isinstance(row, str) else "it has no conversations", _WANTED)
    named = row.get("image", row.get("images")) or ()
    names = (named,) if isinstance(named, str) else tuple(named)
    if not all(isinstance(name, str) for name in names):
        raise DataError("the name of an image is no text", _WANTED)
    turns = list(_turns(row["conversations"]))
    messages = tuple(parts_of(turns, len(names)))
    if not any(each["role"] == "assistant" and each["content"] for each in messages):
        raise DataError("nothing is answered in it", _WANTED)
    return Conversation(str(row.get("id", at)), tuple(map(sample_id, names)), messages)


def _turns(turns: Iterable[Any]) -> Iterator[Message]:
    for turn in turns:
        speaker = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
        said = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
        if speaker not in _SPEAKERS or not isinstance(said, str):
            raise DataError(f"a turn is {str(turn)[:60]!r}", _WANTED)
        yield {"role": _SPEAKERS[speaker], "content": said}


def _tell_skips(instructions: Instructions) -> None:
    """Say what is left out, by reason."""
    # What stands behind a colon or in quotes is of the one row.
    reasons = Counter(skip.reason.partition(" (")[0] for skip in instructions.skips)
    if reasons:
        told = ", ".join(f"{count} × {why}" for why, count in reasons.most_common(_MOST_TOLD))
        log.warning("left out of %s: %s", instructions.name, told)
