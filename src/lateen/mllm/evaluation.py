"""A multimodal language model evaluated on a benchmark's questions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lateen.data import open_dataset
from lateen.encoders.weights import PROVENANCE, tensors_hash
from lateen.errors import UsageError, choices
from lateen.files import content_key, folder_lock, library_versions, write_json
from lateen.mllm.answering import (
    CHOSEN,
    AnsweredBy,
    AnswerFile,
    Ask,
    Given,
    Under,
    answer_all,
    asker,
)
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.benchmarks import captioned
from lateen.mllm.benchmarks.benchmark import BENCHMARKS, benchmark_summaries, open_benchmark
from lateen.mllm.benchmarks.questions import AnswerKind, QuestionSet, other_images, some_of, without
from lateen.mllm.benchmarks.scoring import score
from lateen.mllm.benchmarks.upload import write_upload
from lateen.mllm.card import UNTRAINED
from lateen.mllm.page import write_question_page
from lateen.progress import log

_LIMITS: Mapping[AnswerKind, int] = {"box": 64, "text": 1024}
_SHORT = 16  # tokens of any other answer, as lmms-eval has it for most sets of short answers
_MOST_LISTED = 20
_UPLOAD = "mllm-upload"
_NO_CONDITION = (*PROVENANCE, "encoder")


@dataclass(frozen=True)
class _Plan:
    """How a set is asked.

    Attributes:
        by: how answers are found.
        ask: what finds one.
        max_tokens: of a generated answer; ``None`` where nothing is generated.
        control: whether to ask again under another's image.
    """

    by: AnsweredBy
    ask: Ask
    max_tokens: int | None
    control: bool


def question_sets() -> dict[str, str]:
    """Every set of questions that can be opened by name, and its summary."""
    first = (captioned.__doc__ or "").partition("\n")[0].rstrip(".")
    return {**benchmark_summaries(), captioned.NAME: first}


def open_questions(
    name: str, root: str | Path | None = None, *,
    images: str | Path | None = None, split: str | None = None,
) -> QuestionSet:  # fmt: skip
    """The questions of a benchmark, or POPE's made of any dataset with captions.

    Args:
        name: of :func:`question_sets`.
        root: as :func:`~lateen.mllm.benchmarks.open_benchmark` takes it; of ``pope-of-captions``
            a dataset as :func:`~lateen.data.open_dataset` does.
        images: as there.
        split: likewise.

    Raises:
        UsageError: there is no such benchmark or split.
        DataError: its files are not there or of another form, or not one question can be asked.
    """
    if name not in (known := question_sets()):
        raise UsageError(f"there is no benchmark {name!r}", choices(name, known))
    if name != captioned.NAME:
        return open_benchmark(name, root, images=images, split=split)
    if root is None:
        raise UsageError(f"{name} is made of captions", "Name a dataset that has some.")
    return captioned.pope_from_captions(open_dataset(root, images=images, split=split))


def evaluate_questions(
    mllm: MultimodalModel | str | Path, questions: QuestionSet, *,
    out: str | Path | None = None, limit: int | None = None, control: bool = True,
    answered_by: AnsweredBy | None = None, max_tokens: int | None = None,
    place: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Ask a model every question of a benchmark, once more under another's image, and score both.

    What is asked under another question's image tells how much language alone answers. Where the
    right answers are not published, the file for the benchmark's server is written instead.

    Args:
        mllm: the model, or its folder.
        questions: as :func:`~lateen.mllm.benchmarks.open_benchmark` gives them.
        out: folder of the result, ``<set>-<split>.json``; of its page, ``.html``; and of the
            answers, ``-answers.jsonl``, from which a run that was killed goes on.
        limit: ask so many of the questions, drawn by lot, and no more.
        control: whether to ask again under another's image.
        answered_by: ``generation``, or ``first token``: of yes/no and letters the likeliest, of one
            forward pass. If not given, the first token for these on a CPU, where it is cheaper.
        max_tokens: of a generated answer at most; 16 if not given, 64 for boxes, 1024 for texts.
        place: where the model is, for people, if it is given loaded.

    Returns:
        What :func:`~lateen.mllm.benchmarks.score` gives, with ``model``, ``answered_by``, how many
        answers the limit ``cut``, ``warnings``; ``conditions.model`` is the model's content key. Of
        answers that cannot be scored here ``task`` is ``mllm-upload``, and ``upload`` the file.

    Raises:
        UsageError: first tokens of answers that have no known ones, or a number below 1; no ``out``
            where a file for a server is to be written, or nothing known of what the server takes.
        DataError: ``out`` has answers of another model or set, or no question could be asked.
        BusyError: another process writes to ``out``.
    """
    scored = questions.has_answers and questions.kind != "text"
    _check(questions, out, scored=scored, by=answered_by, max_tokens=max_tokens)
    ready = mllm if isinstance(mllm, MultimodalModel) else MultimodalModel.from_pretrained(mllm)
    place = place if isinstance(mllm, MultimodalModel) else mllm
    plan = _plan(ready, questions.kind, answered_by, max_tokens, control=control and scored)
    asked = questions if limit is None else some_of(questions, limit)
    folder = None if out is None else Path(out)
    with contextlib.nullcontext() if folder is None else folder_lock(folder):
        facts = _facts(ready, place, asked, plan, whole=len(questions.questions))
        answered, own, other = _answers(asked, plan, facts["conditions"]["model"], folder)
        facts |= _observed(facts, own, other, plan)
        if folder is not None and not scored:
            missing = len(questions.questions) + len(questions.skips) - len(answered.questions)
            return _uploaded(facts, answered, own, folder, missing)
        result = _scored(facts, answered, own, other)
        if folder is not None:
            name = file_stem(answered.name, answered.split)
            write_json(folder / f"{name}.json", result)
            write_question_page(result, folder / f"{name}.html", answered, own, other or {})
    return result


def _check(
    questions: QuestionSet, out: str | Path | None, *, scored: bool, by: str | None,
    max_tokens: int | None,
) -> None:  # fmt: skip
    """See that it can be done before anything is asked."""
    if by == "first token" and questions.kind not in CHOSEN:
        raise UsageError(
            f"answers to {questions.name} are no choice, so that first tokens do not tell them",
            "Have them generated.",
        )
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"an answer of {max_tokens} tokens is none", "Give 1 or more.")
    if scored:
        return
    benchmark = BENCHMARKS.get(questions.name)
    if benchmark is None or benchmark.upload is None:
        raise UsageError(
            f"the right answers of {questions.name} are not here, and what file a server of it "
            "takes is not known",
            "Take a split whose answers are published.",
        )
    if out is None:
        raise UsageError(
            f"answers to {questions.name} cannot be scored here, and the file for its server needs "
            "a folder",
            "Name one with --out.",
        )


def _plan(
    mllm: MultimodalModel, kind: AnswerKind, by: AnsweredBy | None, max_tokens: int | None, *,
    control: bool,
) -> _Plan:  # fmt: skip
    """What was asked for, and else what is usual."""
    limit = max_tokens or _LIMITS.get(kind, _SHORT)
    if by is None and mllm.model.device.type == "cpu" and kind in CHOSEN:
        try:
            return _Plan("first token", asker(mllm, "first token", kind, limit), None, control)
        except UsageError as error:
            log.warning("answers are generated: %s", error.message)
    by = by or "generation"
    ask = asker(mllm, by, kind, limit)
    return _Plan(by, ask, limit if by == "generation" else None, control)


def _answers(
    questions: QuestionSet, plan: _Plan, model: str, folder: Path | None
) -> tuple[QuestionSet, dict[str, Given], dict[str, Given] | None]:
    """The questions that could be asked, their answers, and those under another's image."""
    name = f"{file_stem(questions.name, questions.split)}-answers.jsonl"
    identity = {
        "model": model, "set": questions.name, "split": questions.split, "answered_by": plan.by,
        "max_tokens": plan.max_tokens,
    }  # fmt: skip
    with contextlib.closing(AnswerFile(folder and folder / name, identity)) as file:

        def answers(some: QuestionSet, under: Under) -> dict[str, Given]:
            return answer_all(plan.ask, some, file, under)

        own = answers(questions, "own")
        faults = {name: each.fault for name, each in own.items() if each.fault}
        answered = without(questions, faults) if faults else questions
        own = {each.id: own[each.id] for each in answered.questions}
        if not plan.control or _one_image(answered):
            return answered, own, None
        return answered, own, answers(other_images(answered), "another")


def _one_image(questions: QuestionSet) -> bool:
    return len({each.image_ids for each in questions.questions}) < 2


def _facts(
    mllm: MultimodalModel, place: str | Path | None, questions: QuestionSet, plan: _Plan,
    whole: int,
) -> dict[str, Any]:  # fmt: skip
    """What a result says of the model and of how it is asked."""
    facts: dict[str, Any] = {
        "model": model_facts(mllm, place),
        "answered_by": plan.by,
        "max_tokens": plan.max_tokens,
        "conditions": {"model": model_key(mllm), "versions": library_versions()},
    }
    if len(questions.questions) < whole:
        facts["of_questions"] = whole
    return facts


def _observed(
    facts: Mapping[str, Any], own: Mapping[str, Given], other: Mapping[str, Given] | None,
    plan: _Plan,
) -> dict[str, Any]:  # fmt: skip
    """What was seen while asking: cut answers, time, and what to beware of."""
    cut = [name for name, each in own.items() if each.cut]
    shares = [each.share for each in own.values() if each.share is not None]
    warnings = []
    if facts["model"]["projector"] == UNTRAINED:
        warnings.append(
            "the projector is untrained, so that the answers have nothing to do with the images"
        )
    if plan.control and other is None:
        warnings.append("there is no control, because all questions are about the same image")
    return {
        "cut": len(cut),
        "cut_examples": cut[:_MOST_LISTED],
        "cut_under_another": sum(each.cut for each in (other or {}).values()),
        "first_token_share": fmean(shares) if shares else None,
        "seconds_per_question": fmean(each.seconds for each in own.values()),
        "warnings": warnings,
    }


def _scored(
    facts: Mapping[str, Any], answered: QuestionSet, own: Mapping[str, Given],
    other: Mapping[str, Given] | None,
) -> dict[str, Any]:  # fmt: skip
    sure = {name: each.yes for name, each in own.items() if each.yes is not None}
    result = score(
        answered, _texts(own), other=None if other is None else _texts(other),
        confidences=sure if answered.kind == "yes-no" and len(sure) == len(own) else None,
        conditions=facts["conditions"],
    )  # fmt: skip
    more = {name: value for name, value in facts.items() if name != "conditions"}
    return {"task": result["task"], **more, **result}


def _uploaded(
    facts: Mapping[str, Any], answered: QuestionSet, own: Mapping[str, Given], folder: Path,
    missing: int,
) -> dict[str, Any]:  # fmt: skip
    """The file for the benchmark's server, and a result that says which."""
    name = file_stem(answered.name, answered.split)
    if missing:
        facts["warnings"].append(f"the file lacks {missing:,} of the set's questions")
    file = write_upload(answered, _texts(own), folder / f"{name}-upload")
    result = {
        "task": _UPLOAD, "set": answered.name, "split": answered.split or None, **facts,
        "questions": len(answered.questions), "skipped": len(answered.skips), "upload": file.name,
    }  # fmt: skip
    write_json(folder / f"{name}.json", result)
    return result


def model_facts(mllm: MultimodalModel, place: str | Path | None = None) -> dict[str, Any]:
    """What a model is, in words, and where.

    Args:
        mllm: loaded.
        place: its folder or hub id.
    """
    record, config = mllm.record, mllm.model.config
    return {
        "place": None if place is None else str(place),
        "tower": record.get("tower", {}).get("encoder", {}).get("id")
        or config.vision_config.model_type,
        "llm": record.get("llm", {}).get("name") or config.get_text_config().model_type,
        "projector": record.get("projector"),
        "tokens_per_image": record.get("tower", {}).get("tokens_per_image"),
        "parameters": sum(each.numel() for each in mllm.model.parameters()),
    }


def model_key(mllm: MultimodalModel) -> str:
    """Content key (64 hex digits) of all that its answers depend on, wherever it lies.

    Args:
        mllm: loaded.
    """
    processor = mllm.processor
    return content_key([
        tensors_hash(mllm.model),
        dict(_conditions(mllm.model.config.to_dict())),
        sorted(processor.tokenizer.get_vocab().items()),
        processor.image_processor.to_dict(),
        processor.chat_template,
        mllm.model.generation_config.eos_token_id,
    ])  # fmt: skip


def _conditions(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A configuration without what only says where it came from."""
    for name, value in config.items():
        if name not in _NO_CONDITION:
            yield name, _condition(value)


def _condition(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(_conditions(value))
    return [_condition(each) for each in value] if isinstance(value, list) else value


def _texts(answers: Mapping[str, Given]) -> dict[str, str]:
    return {name: each.answer for name, each in answers.items()}


def file_stem(name: str, split: str | None) -> str:
    """What the files of a set are called: ``pope-adversarial``.

    Args:
        name: of the set.
        split: of it, if it has any.
    """
    return "-".join(filter(None, (name, split)))
