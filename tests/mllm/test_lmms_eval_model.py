"""The model that lmms-eval finds: what it makes of requests, and a task of six drawn pictures."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lateen.errors import UsageError
from lateen.mllm import MultimodalModel, build

from .conftest import picture, save_language_model
from .lmms_task import utils

TASK = Path(__file__).parent / "lmms_task"
NAME = "lateen.mllm.lmms_eval_model"


class _Base:
    """What of lmms-eval's own class is used here."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}


@dataclass(frozen=True)
class _Manifest:
    model_id: str
    chat_class_path: str | None = None


@pytest.fixture(scope="module")
def folder(vit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multimodal model whose answers differ."""
    place = tmp_path_factory.mktemp("talking")
    build(vit_folder, save_language_model(place / "llm", talks=True), place / "mllm", grid=2)
    return place / "mllm"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, with stand-ins for the two names that it takes of lmms-eval."""
    for name, values in {
        "lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": _Base},
        "lmms_eval.models": {}, "lmms_eval.models.registry_v2": {"ModelManifest": _Manifest},
    }.items():  # fmt: skip
        stand_in = ModuleType(name)
        vars(stand_in).update(values)
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)


def asked(model: Any, *messages: list[dict[str, Any]], **settings: Any) -> list[str]:
    """The answers to requests as lmms-eval makes them; a document is its place among them."""
    model.task_dict = {"task": {"test": list(messages)}}
    requests = [
        SimpleNamespace(args=("context", lambda doc: doc, dict(settings), doc, "task", "test"))
        for doc in range(len(messages))
    ]
    answers: list[str] = model.generate_until(requests)
    return answers


def turn(text: str, *pictures: Any) -> list[dict[str, Any]]:
    parts = [{"type": "image", "url": each} for each in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_the_manifest_names_the_class(module: Any) -> None:
    place, _, name = module.MANIFEST.chat_class_path.rpartition(".")
    assert (module.MANIFEST.model_id, place) == ("lateen", module.__name__)
    assert getattr(module, name).is_simple is False
    project = tomllib.loads((TASK.parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"lateen": f"{NAME}:MANIFEST"}


def test_nothing_of_lateen_imports_it() -> None:
    """So that it costs nothing, and asks for nothing, where lmms-eval is not installed."""
    code = "import sys, lateen.mllm, lateen.cli; sys.exit('lmms_eval' in str(list(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answers_are_lateens_own(module: Any, folder: Path, mllm: MultimodalModel) -> None:
    model = module.LmmsEvalModel(str(folder), device="cpu")
    assert str(model.device) == "cpu"
    one, two = picture(), picture(1)
    given = asked(
        model, turn("What is it?", one), turn("Which?", one, two), turn("Why?"),
        [{"role": "system", "content": "Be short."}, *turn("What?", two)], max_new_tokens=5,
    )  # fmt: skip
    assert given == [
        mllm.answer("What is it?", one, max_tokens=5).text,
        mllm.answer("Which?", [one, two], max_tokens=5).text,
        mllm.answer("Why?", max_tokens=5).text,
        mllm.answer("What?", two, max_tokens=5, system="Be short.").text,
    ]
    assert len(set(given)) == 4
    told = module.LmmsEvalModel(str(folder), device="cpu", system="Be short.")
    assert asked(told, turn("What?", two), max_new_tokens=5) == given[3:]


def test_an_answer_ends_where_the_task_says(
    module: Any, folder: Path, mllm: MultimodalModel, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    model = module.LmmsEvalModel(str(folder), device="cpu")
    whole = mllm.answer("What is it?", picture(), max_tokens=9)
    assert whole.cut and len(whole.text) > 3
    question = turn("What is it?", picture())
    end = whole.text[2:4]
    place = whole.text.index(end)
    for until in (end, ["nowhere", whole.text[3:], end]):
        assert asked(model, question, max_new_tokens=9, until=until) == [whole.text[:place]]
    assert not caplog.records
    assert asked(model, question, question, max_new_tokens=9, until=["", None]) == 2 * [whole.text]
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning == "2 of 2 answers are cut by their limit of tokens (task 0, task 1)"


def test_what_is_not_done_is_said(
    module: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    model = module.LmmsEvalModel(str(folder), device="cpu", batch_size="4")
    asked(model, turn("Why?"), max_new_tokens=300, temperature=0.7)
    messages = " / ".join(record.getMessage() for record in caplog.records)
    assert "one question at a time, and not 4" in messages
    assert "1 questions are to be answered by sampling or beams" in messages
    with pytest.raises(UsageError, match="no likelihoods"):
        model.loglikelihood([])
    with pytest.raises(UsageError, match="no tasks of several rounds"):
        model.generate_until_multi_round([])
    film = [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}]
    with pytest.raises(UsageError, match="a task asks about video"):
        asked(model, film)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is not installed")
def test_lmms_eval_asks_a_task_of_its_own_form(
    folder: Path, mllm: MultimodalModel, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "lateen", "--tasks", "lateen_shapes",
        "--model_args", f"pretrained={folder},device=cpu", "--include_path", ".",
        "--output_path", str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=TASK, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [samples] = (tmp_path / "out").rglob("*_samples_lateen_shapes.jsonl")
    rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda r: r["doc_id"])
    docs = [json.loads(line) for line in (TASK / "questions.jsonl").read_text().splitlines()]
    assert len(rows) == len(docs) == 6 and len({row["filtered_resps"] for row in rows}) > 3
    for row, doc in zip(rows, docs, strict=True):
        question = f"{doc['question']}\nAnswer with yes or no."
        own = mllm.answer(question, utils.doc_to_visual(doc), max_tokens=8).text
        assert row["filtered_resps"] == own.partition("\n\n")[0]
    [results] = (tmp_path / "out").rglob("*_results.json")
    scores = json.loads(results.read_text())["results"]["lateen_shapes"]
    assert scores["accuracy,none"] == sum(row["accuracy"] for row in rows) / 6
