"""Answers as a benchmark's server takes them, for sets whose right answers are not published."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from lateen.errors import DataError, UsageError
from lateen.files import jsonl, write_text
from lateen.mllm.benchmarks.benchmark import BENCHMARKS
from lateen.mllm.benchmarks.questions import QuestionSet


def write_upload(questions: QuestionSet, answers: Mapping[str, str], path: str | Path) -> Path:
    """Write the file that a benchmark's server scores.

    Args:
        questions: of a benchmark.
        answers: by the id of the question, one for each.
        path: of the file; its suffix becomes the one that the server wants.

    Returns:
        The path that was written.

    Raises:
        UsageError: it is not known what the server wants.
        DataError: a question has no answer.
    """
    benchmark = BENCHMARKS.get(questions.name)
    if benchmark is None or benchmark.upload is None:
        raise UsageError(
            f"it is not known what file a server of {questions.name} takes",
            "Score it on a split whose answers are published.",
        )
    for question in questions.questions:
        if question.id not in answers:
            raise DataError(
                f"question {question.id} of {questions.name} has no answer", "Ask it again."
            )
    rows = [benchmark.upload(each, answers[each.id]) for each in questions.questions]
    target = Path(path).with_suffix(benchmark.upload_suffix)
    write_text(target, _written(rows, benchmark.upload_suffix))
    return target


def _written(rows: list[Mapping[str, object]], suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(rows, ensure_ascii=False) + "\n"
    if suffix == ".jsonl":
        return jsonl(rows)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
