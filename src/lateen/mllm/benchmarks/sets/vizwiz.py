"""VizWiz (arXiv:1802.08218): blind people's photographs and spoken questions, ten answers.

``Annotations/<split>.json`` of https://vizwiz.org/tasks-and-datasets/vqa: a list of image,
question, answers (``{answer, answer_confidence}``), answer_type and answerable; images are in a
folder named after the split. The test split has no answers: the file for the server is a list of
image and answer, as LLaVA-1.5's ``convert_vizwiz_for_submission.py`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.metrics.answers import normalise_textvqa
from lateen.mllm.benchmarks.benchmark import Benchmark, uploaded_as
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, json_entries
from lateen.mllm.benchmarks.questions import SHORT, UNANSWERABLE


def read_vizwiz(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with the answer type and whether it can be answered as groups."""
    name = f"{split}.json"
    return drafts(json_entries(folder.file(name, f"Annotations/{name}")), _draft)


def _draft(row: Any) -> Draft:
    groups = {"answer type": row["answer_type"]} if "answer_type" in row else {}
    if "answerable" in row:
        groups["answerable"] = "yes" if row["answerable"] else "no"
    return Draft(
        row["image"], (row["image"],), row["question"],
        answers=tuple(each["answer"] for each in row.get("answers", ())),
        groups=groups, published={"image": row["image"]},
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_vizwiz, "human",
    "Get Annotations.zip and val.zip or test.zip of https://vizwiz.org/tasks-and-datasets/vqa into "
    "one folder: it has val.json and the images in val.",
    f"{UNANSWERABLE}\n{SHORT}", ("val", "test", "train"), ("{split}", "images", "."),
    upload=uploaded_as("answer", normalise_textvqa), normalise=normalise_textvqa,
)  # fmt: skip
