"""A multimodal language model evaluated on a benchmark's questions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lateen.data.samples import bytes_hash
from lateen.encoders.weights import PROVENANCE, tensors_hash
from lateen.errors import UsageError
from lateen.evaluation.features import JudgedImages, find_trained_on
from lateen.evaluation.task import was_trained_on
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
from lateen.mllm.benchmarks.benchmark import BENCHMARKS, benchmark_summaries, open_benchmark
from lateen.mllm.benchmarks.cider import require_cider
from lateen.mllm.benchmarks.questions import AnswerKind, QuestionSet, other_images, some_of, without
from lateen.mllm.benchmarks.scoring import score
from lateen.mllm.benchmarks.upload import write_upload
from lateen.mllm.card import UNTRAINED
from lateen.mllm.likelihood import by_likelihood
from lateen.mllm.page import write_question_page
from lateen.mllm.shots import Shots, check_context
from lateen.progress import log

_LIMITS: Mapping[AnswerKind, int] = {"box": 64, "caption": 64, "text": 1024}
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
        shots: examples before each question, if any.
    """

    by: AnsweredBy
    ask: Ask
    max_tokens: int | None
    control: bool
    shots: Shots | None = None


def question_sets() -> dict[str, str]:
    """Every set of questions that can be opened by name, and its summary."""
    return benchmark_summaries()


def open_questions(
    name: str, root: str | Path | None = None, *,
    images: str | Path | None = None, split: str | None = None,
) -> QuestionSet:  # fmt: skip
    """The questions of a benchmark, or of one made of any dataset with captions.

    Args:
        name: of :func:`question_sets`.
        root: as :func:`~lateen.mllm.benchmarks.open_benchmark` takes it; of ``pope-of-captions``
            and ``captions-of`` a dataset as :func:`~lateen.data.open_dataset` does.
        images: as there.
        split: likewise.

    Raises:
        UsageError: there is no such benchmark or split.
        DataError: its files are not there or of another form, or not one question can be asked.
    """
    return open_benchmark(name, root, images=images, split=split)


def evaluate_questions(
    mllm: MultimodalModel | str | Path, questions: QuestionSet, *,
    out: str | Path | None = None, limit: int | None = None, control: bool = True,
    answered_by: AnsweredBy | None = None, max_tokens: int | None = None,
    shots: Shots | None = None, place: str | Path | None = None,
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
            ``likelihood``: nothing is answered, and likelihoods of captions are compared
            (:func:`~lateen.mllm.likelihood.by_likelihood`).
        max_tokens: of a generated answer at most; 16 if not given, 64 for boxes and captions, 1024
            for texts.
        shots: examples that stand before each question (:func:`~lateen.mllm.shots.open_shots`).
            Under another's image they are the same: only the question's own image changes.
        place: where the model is, for people, if it is given loaded.

    Returns:
        What :func:`~lateen.mllm.benchmarks.score` gives, with ``model``, ``answered_by``, how many
        ``shots`` there were if any, how many answers the limit ``cut``, ``warnings``;
        ``conditions.model`` is the model's content key. Of answers that cannot be scored here
        ``task`` is ``mllm-upload``, and ``upload`` the file.

    Raises:
        UsageError: first tokens of answers that have no known ones, or a number below 1; no ``out``
            where a file for a server is to be written, or nothing known of what the server takes;
            captions, where what scores them is not installed.
        ModelError: examples are beyond the language model's context.
        DataError: ``out`` has answers of another model or set, or no question could be asked.
        BusyError: another process writes to ``out``.
    """
    if answered_by == "likelihood":
        _check_likelihood(max_tokens, shots)
        return _by_likelihood(mllm, questions, out, limit, place, control=control)
    scored = questions.can_be_scored
    _check(questions, out, scored=scored, by=answered_by, max_tokens=max_tokens)
    ready = mllm if isinstance(mllm, MultimodalModel) else MultimodalModel.from_pretrained(mllm)
    place = place if isinstance(mllm, MultimodalModel) else mllm
    plan = _plan(ready, questions.kind, answered_by, max_tokens, control=control and scored)
    asked = questions if limit is None else some_of(questions, limit)
    if shots is not None:
        check_context(ready, asked, shots, plan.max_tokens or 1)
        plan = replace(plan, shots=shots)
    folder = None if out is None else Path(out)
    with contextlib.nullcontext() if folder is None else folder_lock(folder):
        facts = _facts(ready, place, asked, len(questions.questions)) | _how(plan, asked)
        answered, own, other = _answers(asked, plan, facts["conditions"]["model"], folder)
        facts |= _observed(facts, own, other, plan)
        if folder is not None and not scored:
            missing = len(questions.questions) + len(questions.skips) - len(answered.questions)
            return _uploaded(facts, answered, own, folder, missing)
        result = _scored(facts, answered, own, other)
        if folder is not None:
            name = result_stem(result)
            write_json(folder / f"{name}.json", result)
            write_question_page(result, folder / f"{name}.html", answered, own, other or {})
    return result


def _check_likelihood(max_tokens: int | None, shots: Shots | None) -> None:
    for what, given in {"a limit of tokens": max_tokens, "examples": shots}.items():
        if given is not None:
            raise UsageError(
                f"likelihoods of captions take no {what.removeprefix('a ')}",
                "Leave them out, or have the questions answered.",
            )


def _by_likelihood(
    mllm: MultimodalModel | str | Path, questions: QuestionSet, out: str | Path | None,
    limit: int | None, place: str | Path | None, *, control: bool,
) -> dict[str, Any]:  # fmt: skip
    """What :func:`evaluate_questions` gives where nothing is answered."""
    ready = mllm if isinstance(mllm, MultimodalModel) else MultimodalModel.from_pretrained(mllm)
    asked = questions if limit is None else some_of(questions, limit)
    begin = time.perf_counter()
    compared = control and not _one_image(asked)
    answered, numbers = by_likelihood(ready, asked, control=compared)
    seconds = (time.perf_counter() - begin) / len(asked.questions)
    facts = _facts(
        ready, place if isinstance(mllm, MultimodalModel) else mllm, asked, len(questions.questions)
    ) | {"answered_by": "likelihood", "max_tokens": None, "seconds_per_question": seconds}
    facts["warnings"] = _warnings(facts, no_control=control and not compared)
    conditions = {**numbers.pop("conditions", {}), "data": answered.fingerprint}
    result = {"task": numbers["task"], **facts, **numbers,
              "conditions": conditions | facts["conditions"]}  # fmt: skip
    if out is not None:
        with folder_lock(Path(out)):
            name = result_stem(result)
            write_json(Path(out) / f"{name}.json", result)
            write_question_page(result, Path(out) / f"{name}.html", answered, {}, {})
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
        if questions.kind == "caption":
            require_cider()
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
    count = 0 if plan.shots is None else plan.shots.count
    name = f"{file_stem(questions.name, questions.split, count)}-answers.jsonl"
    identity: dict[str, Any] = {
        "model": model, "set": questions.name, "split": questions.split, "answered_by": plan.by,
        "max_tokens": plan.max_tokens,
    }  # fmt: skip
    if plan.shots is not None:
        identity |= {"shots": count, "shots_from": plan.shots.called}
    with contextlib.closing(AnswerFile(folder and folder / name, identity)) as file:

        def answers(some: QuestionSet, under: Under) -> dict[str, Given]:
            return answer_all(plan.ask, some, file, under, plan.shots)

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
    mllm: MultimodalModel, place: str | Path | None, questions: QuestionSet, whole: int
) -> dict[str, Any]:
    """What a result says of the model and of what it is asked."""
    facts: dict[str, Any] = {
        "model": model_facts(mllm, place),
        "conditions": {"model": model_key(mllm), "versions": library_versions()},
        "trained_on": find_trained_on(mllm, _judged(mllm, questions)),
    }
    if len(questions.questions) < whole:
        facts["of_questions"] = whole
    return facts


def _how(plan: _Plan, questions: QuestionSet) -> dict[str, Any]:
    """What a result says of how the model is asked."""
    facts: dict[str, Any] = {"answered_by": plan.by, "max_tokens": plan.max_tokens}
    return facts if plan.shots is None else facts | plan.shots.facts(questions)


def _judged(mllm: MultimodalModel, questions: QuestionSet) -> JudgedImages:
    """The images that are asked about; none is read where the model says nothing of its own."""
    if mllm.trained_on is None:
        return JudgedImages()
    sources = {image.name: image for each in questions.questions for image in each.images}
    return JudgedImages({name: bytes_hash(source) for name, source in sources.items()})


def _warnings(facts: Mapping[str, Any], *, no_control: bool) -> list[str]:
    warnings = []
    if facts["model"]["projector"] == UNTRAINED:
        warnings.append(
            "the projector is untrained, so that the answers have nothing to do with the images"
        )
    if seen := was_trained_on(facts):
        warnings.append(seen)
    if no_control:
        warnings.append("there is no control, because all questions are about the same image")
    return warnings


def _observed(
    facts: Mapping[str, Any], own: Mapping[str, Given], other: Mapping[str, Given] | None,
    plan: _Plan,
) -> dict[str, Any]:  # fmt: skip
    """What was seen while asking: cut answers, time, and what to beware of."""
    cut = [name for name, each in own.items() if each.cut]
    shares = [each.share for each in own.values() if each.share is not None]
    return {
        "cut": len(cut),
        "cut_examples": cut[:_MOST_LISTED],
        "cut_under_another": sum(each.cut for each in (other or {}).values()),
        "first_token_share": fmean(shares) if shares else None,
        "seconds_per_question": fmean(each.seconds for each in own.values()),
        "warnings": _warnings(facts, no_control=plan.control and other is None),
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
    name = result_stem({**facts, "set": answered.name, "split": answered.split})
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


def file_stem(name: str, split: str | None, shots: int = 0) -> str:
    """What the files of a set are called: ``pope-adversarial``, ``vizwiz-val-4-shot``.

    Args:
        name: of the set.
        split: of it, if it has any.
        shots: examples before each question.
    """
    return "-".join(filter(None, (name, split, f"{shots}-shot" if shots else "")))


def result_stem(result: Mapping[str, Any]) -> str:
    """What the files of a result are called; see :func:`file_stem`."""
    stem = file_stem(result["set"], result["split"], result.get("shots", 0))
    return f"{stem}-likelihood" if result.get("answered_by") == "likelihood" else stem
