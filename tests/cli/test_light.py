"""What is wrong with paths, options and YAML is said before torch is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import saved_model

from lateen.evaluation import TASKS
from lateen.evaluation.signature import task_signature

# Runs commands one after the other, and says what each printed and whether torch was loaded then.
_CODE = """
import contextlib, io, json, sys
from lateen.cli import main
answers = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with contextlib.suppress(SystemExit):
            main(words)
    loaded = sorted({"torch", "transformers"} & {*sys.modules})
    answers.append([out.getvalue(), err.getvalue(), loaded])
json.dump(answers, sys.stdout)
"""
LADDER = "base: {data: {train: absent.csv}}\nrungs: [{name: a}]\n"
ASSESS = "data: {train: absent.csv}\nvision: [{encoder: ./absent}]\ntext: [{encoder: ./none}]\n"

WRONG: list[tuple[str, str]] = [
    ("run nosuch.yaml --out o", "there is no recipe nosuch.yaml"),
    ("run r.yaml --out o --train.lrr 1", "unknown recipe key"),
    ("run r.yaml --out o --train.lr fast", "cannot be 'fast'"),
    ("run r.yaml --out o", "there is no "),
    ("run r.yaml --out r.yaml", "is a file"),
    ("run r.yaml --out o --data.train t.csv --vision.encoder ./absent", "there is no folder"),
    ("run r.yaml --out o --data.train t.csv --text.encoder nosuch", "'nosuch' is neither a folder"),
    ("run r.yaml --out o --data.train t.csv --vision.encoder no.module:f", "no module of that"),
    ("run r.yaml --out o --data.train t.csv --data.captions text", "no column 'text'"),
    ("run r.yaml --out o --data.train t.csv --data.test gone.csv", "there is no "),
    ("run r.yaml --out o --data.train t.csv --evaluate.classification gone", "gone"),
    ("ablate nosuch.yaml --out o", "there is no ladder nosuch.yaml"),
    ("ablate ladder.yaml --out o", "absent.csv"),
    ("assess nosuch.yaml --out o", "there is no recipe nosuch.yaml"),
    ("assess assess.yaml --out o", "absent.csv"),
    ("assess --images a --texts b --out o", "a does not exist"),
    ("plan r.yaml", "there is no "),
    ("encode NOSUCH --encoder all-MiniLM-L6-v2 --out o", "there is no NOSUCH"),
    ("encode t.csv --encoder ./absent --out o", "there is no folder ./absent"),
    ("encode t.csv --encoder openai+host:80#m --out o", "is not the address of a server"),
    ("caption NOSUCH --model openai+http://h/v1#m --out o.parquet", "there is no NOSUCH"),
    ("caption t.csv --model openai+http://h#m?k=1 --out o.parquet --samples 2", "is of --plan"),
    ("caption t.csv --model gone --out o.parquet", "gone is no multimodal language model"),
    ("run r.yaml --out o --data.train t.csv --data.captions_beside gone.csv", "there is no "),
    ("evaluate retrieval NOSUCH --captions x.csv", "NOSUCH is not a lateen model"),
    ("evaluate retrieval model --captions missing.csv", "there is no missing.csv"),
    ("evaluate retrieval model --captions t.csv --per 5", "takes no --per"),
    ("evaluate suite model --data.root gone --out o", "there is no folder gone"),
    ("evaluate embeddings --images a --texts b", "a does not exist"),
    ("mllm evaluate gone --benchmark pope", "gone is no multimodal language model"),
    ("mllm swap gone --tower ./absent --out o", "gone is no multimodal language model"),
    ("mllm compare gone o", "there is no gone"),
    ("search NOSUCH dog --images photos", "NOSUCH is not a lateen model"),
    ("search model dog --images gone", "there is no folder gone"),
    ("train --images a --texts b --out o", "a does not exist"),
    ("train --images a --texts b --out o --train.lr fast", "cannot be 'fast'"),
    ("inspect nowhere", "nowhere does not exist"),
    ("fuse a b --out o", "a does not exist"),
    ("import f.npy --modality image --encoder e --out o", "there is no file f.npy"),
    ("export NOSUCH --format sail --out o.pt", "NOSUCH is not a lateen model"),
    ("compare nowhere", "nowhere"),
    ("mllm build --tower ./absent --llm nosuch --out o", "2 things are wrong"),
    ("mllm build --tower ./absent --llm photos --out o", "has neither a config.json nor"),
    ("mllm answer NOSUCH what --image photos/a.jpg", "NOSUCH is no multimodal language model"),
    ("mllm answer model what", "but a model of type 'lateen'"),
    ("mllm answer model what --image gone.jpg", "there is no image gone.jpg"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, photographs with captions, and recipes of what is not there."""
    from builders import write_csv, write_images

    place = tmp_path_factory.mktemp("light")
    saved_model(place / "model")
    write_images(place / "photos", ["a.jpg", "b.jpg"])
    write_csv(place / "t.csv", [["image", "caption"], ["photos/a.jpg", "a"], ["photos/b.jpg", "b"]])
    (place / "r.yaml").write_text("data: {train: absent.csv}\n")
    (place / "ladder.yaml").write_text(LADDER)
    (place / "assess.yaml").write_text(ASSESS)
    return place


def answers(folder: Path, commands: list[list[str]]) -> list[tuple[str, str, list[str]]]:
    """Standard output, standard error and the heavy modules loaded by then, of each command."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE], input=json.dumps(commands), capture_output=True, text=True,
        cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(out, err, loaded) for out, err, loaded in json.loads(done.stdout)]


def test_what_is_wrong_is_said_before_torch_is_loaded(folder: Path) -> None:
    given = answers(folder, [words.split() for words, _ in WRONG])
    for (words, message), (out, err, loaded) in zip(WRONG, given, strict=True):
        assert message in err, words
        assert err.startswith("error: ") and err.count("\n") == 1, words
        assert (out, loaded) == ("", []), words
    assert not (folder / "o").exists()


def test_the_options_of_tasks_are_known_without_loading_them(folder: Path) -> None:
    for out, err, loaded in answers(folder, [["evaluate", task, "--help"] for task in TASKS]):
        assert (err, loaded) == ("", [])
        assert "--vision.encoder" in out


@pytest.mark.parametrize("task", TASKS)
def test_what_is_read_of_a_task_is_what_loading_it_tells(task: str) -> None:
    import inspect

    run = TASKS[task].run
    loaded = list(inspect.signature(run, eval_str=True).parameters.values())[1:]
    read = task_signature(task)
    assert [(p.name, p.default) for p in read.parameters] == [(p.name, p.default) for p in loaded]
    assert inspect.cleandoc(read.docstring) == inspect.cleandoc(run.__doc__ or "")
