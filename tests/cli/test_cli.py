import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import call
from PIL import Image

import lateen
from lateen.cli import main

TOYS = ["--vision.encoder", "toys:colour_encoder", "--text.encoder", "toys:word_encoder"]
SMALL = ["--train.batch", "8", "--train.epochs", "20", "--head.dim=16", "--data.holdout", "0.25"]


@pytest.fixture
def trained(album: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (album / "recipe.yaml").write_text("data:\n  train: train.jsonl\n")
    code, out, err = call(
        capsys, "run", album / "recipe.yaml", "--data.root", album, *TOYS, *SMALL,
        "--out", album / "run",
    )  # fmt: skip
    few = "6 held-out images (holdout): differences of less than 41 points say nothing"
    assert (code, err) == (0, f"· {few}\n")
    assert "report.html" in out
    return album


def test_images_of_more_pixels_than_the_user_allows_are_skipped_with_the_remedy(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lateen.data.images._limit", [])
    (tmp_path / "p").mkdir()
    for name, size in {"small": (20, 20), "large": (40, 40)}.items():
        Image.new("RGB", size, "red").save(tmp_path / "p" / f"{name}.png")
    encode = ["encode", tmp_path / "p", "--encoder", "toys:colour_encoder", "--out"]
    assert call(capsys, *encode, tmp_path / "all")[0] == 0
    assert not (tmp_path / "all" / "skipped.jsonl").read_text()
    assert call(capsys, *encode, tmp_path / "some", "--max-pixels", "500")[0] == 0
    skip = json.loads((tmp_path / "some" / "skipped.jsonl").read_text())
    assert skip["id"] == "large.png" and "raise the limit with --max-pixels" in skip["reason"]
    code, _, err = call(capsys, *encode, tmp_path / "none", "--max-pixels=many")
    assert (code, err[:30]) == (2, "error: --max-pixels is 'many'.")


def test_run_evaluate_search_inspect(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained / "run" / "model"
    code, out, _ = call(
        capsys, "evaluate", model, "--task", "retrieval", "--captions", trained / "train.jsonl",
        "--images", trained / "images", "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert code == 0
    assert set(result["text_to_image"]) == {"R@1", "R@5", "R@10", "median_rank"}
    assert result["task"] == "retrieval"
    assert (result["images"], result["captions"]) == (24, 48)
    sheet = trained / "sheet.png"
    code, out, _ = call(
        capsys, "search", model, "a red picture", "--images", trained / "images", "--k", 3,
        "--out", sheet, "--json",
    )  # fmt: skip
    hits = json.loads(out)["hits"]
    assert code == 0
    assert all({"id", "path", "score", "adjusted", "width"} <= set(hit) for hit in hits)
    assert len(hits) == 3
    assert Path(hits[0]["path"]).is_file()
    with Image.open(sheet) as image:
        assert image.width > 300
    store = next((trained / "run" / "stores").glob("train-vision*"))
    code, out, _ = call(capsys, "inspect", store, "--verify")
    assert code == 0
    assert "every byte matches" in out
    code, out, _ = call(capsys, "inspect", store, "--json")
    assert json.loads(out)["description"]["dim"] == 6


def test_encode_import_train(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    code, out, err = call(
        capsys, "encode", album / "images", "--encoder", "toys:colour_encoder",
        "--out", album / "img",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "toys:colour_encoder" in out
    features = {"features": torch.rand(24, 5), "ids": [f"{i:03d}.png" for i in range(24)]}
    torch.save(features, album / "text.pt")
    code, _, err = call(
        capsys, "import", album / "text.pt", "--modality", "text", "--encoder", "mine",
        "--out", album / "txt",
    )  # fmt: skip
    assert (code, err) == (0, "")
    code, out, err = call(
        capsys, "train", "--images", album / "img", "--texts", album / "txt", "--out",
        album / "clip", "--train.epochs", 2, "--train.batch=8", "--head.dim", 4,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert (album / "clip" / "model" / "config.json").is_file()


def test_encode_captions_whose_images_are_elsewhere(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "images").rename(album / "elsewhere")
    words = ["encode", album / "train.jsonl", "--encoder", "toys:word_encoder"]
    code, _, err = call(capsys, *words, "--out", album / "t")
    assert code == 1
    assert "--texts-only" in err
    code, _, err = call(capsys, *words, "--texts-only", "--out", album / "t")
    assert (code, err) == (0, "")
    assert len(lateen.Store.open(album / "t")) == 48
    words[3] = "toys:colour_encoder"
    code, _, err = call(capsys, *words, "--texts-only", "--out", album / "i")
    assert (code, "not texts" in err) == (1, True)


def test_fuse_two_stores(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    code, _, err = call(
        capsys, "encode", album / "images", "--encoder", "toys:colour_encoder", "--out", album / "a"
    )
    assert (code, err) == (0, "")
    features = {"features": torch.rand(24, 5), "ids": [f"{i:03d}.png" for i in range(24)]}
    torch.save(features, album / "b.pt")
    imported = ["--modality", "image", "--encoder", "mine", "--out", album / "b"]
    assert call(capsys, "import", album / "b.pt", *imported)[0] == 0
    code, out, err = call(
        capsys, "fuse", album / "a", album / "b", "--out", album / "f", "--weights", "1,0.5",
        "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(out)["description"]["dim"] == 11
    squares = lateen.Store.open(album / "f")[:].square()
    torch.testing.assert_close(squares[:, :6].mean(1), torch.ones(24), rtol=1e-2, atol=0)
    torch.testing.assert_close(squares[:, 6:].mean(1), torch.full((24,), 0.25), rtol=1e-2, atol=0)
    code, out, _ = call(capsys, "inspect", album / "f", "--verify")
    assert (code, "toys:colour_encoder + mine" in out) == (0, True)


WRONG: list[tuple[Sequence[str], int, str]] = [
    (["serch"], 2, "Did you mean 'search'? Choose one of: demo, init, run, "),
    (["run"], 2, "there is nothing to run. Give a RECIPE"),
    (["run", "r.yaml", "--images", "p", "--out", "o"], 2, "--images belongs to a run without a"),
    (["run", "r.yaml", "--epochs", "3", "--out", "o"], 2, "Did you mean --train.epochs?"),
    (["run", "r.yaml", "--ot", "o"], 2, "Did you mean --out?"),
    (["run", "absent.yaml", "--out", "o"], 2, "there is no recipe absent.yaml"),
    (["run", "r.yaml", "--out", "o", "--train.lrr", "1"], 2, "Did you mean 'train.lr'?"),
    (["run", "r.yaml", "--out", "o", "--trian.lr", "1"], 2, "unknown recipe key 'trian.lr'"),
    (
        ["train", "--images", "a", "--texts", "b", "--out", "o", "--vision.layer", "best"],
        2,
        "'vision.layer' is a key of `lateen run`, and none of this command, whose",
    ),
    (["run", "r.yaml", "--out", "o", "--train.lr"], 2, "--train.lr has no value"),
    (["run", "r.yaml", "--out", "o", "--train.lr", "fast"], 2, "cannot be 'fast'"),
    (
        ["run", "r.yaml", "--out", "o", "--vision.fuse", "[{encodr: a}]"],
        2,
        "Did you mean 'encoder'",
    ),
    (["run", "r.yaml", "--out", "o", "--vision.fuse", "[{pooling: cls}]"], 2, "field required"),
    (["run", "r.yaml", "--out", "o", "--vision.fuse", "[{encoder: a, weight: 0}]"], 2, "weight"),
    (["run", "r.yaml", "--out", "o", "--vision.fuse", "{encoder: a}"], 2, "it is auto, or a list"),
    (["run", "broken.yaml", "--out", "o"], 2, "is not valid YAML"),
    (["run", "r.yaml", "--out", "o", "stray"], 2, "unexpected argument 'stray'"),
    (["inspect", "nowhere"], 1, "nowhere does not exist"),
    (["inspect", "."], 1, "is not a feature store"),
    (["encode", "nowhere", "--encoder", "toys:colour_encoder", "--out", "o"], 1, "nowhere"),
    (["encode", ".", "--encoder", "toys:colour_encoder", "--out", "o"], 1, "no images in ."),
    (["encode", "."], 2, "--encoder"),
    (["evaluate", "nowhere", "--task", "retrieval"], 1, "nowhere is not a lateen model"),
    (["evaluate", "nowhere", "--task", "retreival"], 2, "retreival"),
    (["search", "nowhere", "dogs", "--images", "."], 1, "nowhere is not a lateen model"),
    (["search", "nowhere", "dogs", "--images", ".", "--k", "many"], 2, "many"),
    (["encode", ".", "--encoder", "toys:colour_encoder", "--out", "r.yaml"], 1, "is a file"),
    (["search", "nowhere", "dogs"], 2, "--images"),
    (["run", "r.yaml", "--out", ""], 2, "an argument is empty"),
    (
        ["encode", ".", "--encoder", "toys:colour_encoder", "--out", "o", "--batch-size", "-5"],
        2,
        "batch_size is -5",
    ),
    (
        ["train", "--images", "i", "--texts", "t", "--out", "o", "--epochs", "2"],
        2,
        "Did you mean --train.epochs?",
    ),
    (["train", "--images", "i", "--texts", "t", "--out", "o"], 1, "i does not exist"),
    (["fuse", "a", "b", "--out", "o"], 1, "a does not exist"),
    (["fuse", "--out", "o"], 2, "Give two parts or more"),
    (["fuse", "a", "b", "--out", "o", "--weights", "1;2"], 2, "--weights cannot be '1;2'"),
    (["import", "f.npy", "--modality", "image", "--encoder", "e", "--out", "o"], 1, "no file"),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_input_is_one_line_with_a_remedy(
    words: Sequence[str], code: int, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("preset: small\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    got, out, err = call(capsys, *words)
    assert message in err
    assert got == code
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


def test_an_output_that_cannot_be_written_is_one_line(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "file").write_text("in the way")
    code, _, err = call(
        capsys, "encode", album / "images", "--encoder", "toys:colour_encoder",
        "--out", album / "file",
    )  # fmt: skip
    assert code == 1
    assert "exists" in err
    assert err.count("\n") == 1


def test_text_stays_text(tmp_path: Path) -> None:
    from lateen.experiment.recipe import Recipe

    (tmp_path / "r.yaml").write_text("")
    overrides = {
        "text.prompt": "query: ", "data.root": "2024", "vision.encoder": "123", "data.images": "no",
        "train.lr": "1e-4", "train.clip_norm": "null", "data.captions": "raw,long",
        "evaluate.retrieval": "false",
    }  # fmt: skip
    recipe = Recipe.load(tmp_path / "r.yaml", overrides)
    assert recipe.text.prompt == "query: "
    assert (str(recipe.data.root), recipe.data.images) == ("2024", "no")
    assert recipe.vision.encoder == "123"
    assert (recipe.train.lr, recipe.train.clip_norm) == (1e-4, None)
    assert recipe.data.captions == ("raw", "long")
    assert recipe.evaluate.retrieval is False


def test_debug_shows_the_trace() -> None:
    with pytest.raises(lateen.LateenError):
        main(["inspect", "nowhere", "--debug"])


COMMANDS = ["demo", "init", "run", "ablate", "keys", "encode", "fuse", "import", "export",
            "inspect", "train", "evaluate", "compare", "index", "search", "duplicates",
            "classify", "embed", "assess", "plan"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, command, "--help")
    assert code == 0
    assert f"lateen {command}" in out
    assert len(out.splitlines()) > 5


def test_keys_lists_every_recipe_key(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "keys")
    assert code == 0
    for key in ("data.root", "vision.pooling", "train.lr", "evaluate.classification"):
        assert key in out


def test_importing_lateen_or_asking_for_help_loads_no_torch() -> None:
    for code in ("import lateen", "from lateen.cli import main; main(['--help'])",
                 "from lateen.cli import main; main(['run', '--help'])"):  # fmt: skip
        script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nassert not "
        script += (
            "{'torch', 'transformers', 'numpy', 'pyarrow', 'PIL'} & set(sys.modules), sys.modules"
        )
        script = script.replace("    from", "    from").replace("; main", "\n    main")
        subprocess.run(
            [sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert lateen.__all__ == [
        "AlignedConfig", "AlignedModel", "Index", "LateenError", "Pairs", "Recipe", "Store",
        "assess", "assess_stores", "caption", "classify", "compare", "embed", "encode", "evaluate",
        "export", "fuse", "import_features", "index", "load_encoder", "pair", "plan", "run",
        "search", "train", "tune",
    ]  # fmt: skip
    for name in lateen.__all__:
        assert getattr(lateen, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        lateen.serve  # noqa: B018


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        MemoryError(),
    ],
)
def test_too_little_memory_has_a_remedy(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lateen.features.Store.open", fail)
    code, _, shown = call(capsys, "inspect", ".")
    assert code == 1
    assert shown.startswith("error: there is not enough memory.")
    assert len(shown.splitlines()) == 1
