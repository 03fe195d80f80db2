"""LiT: a run that trains its text encoder, and the model that comes of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lateen
from lateen.errors import DataError, EncoderError, ModelError, RecipeError, UsageError
from lateen.evaluation import evaluate
from lateen.experiment import RunResult, ablate, run, write_run_page
from lateen.indexing import search
from lateen.integrations import tool
from lateen.model import AlignedModel

TRAIN = {"batch": 18, "micro_batch": 5, "epochs": 30, "lr": 0.01, "tower_lr": 0.003}
COLOURS = ["a red picture", "a blue picture"]  # the two that the tiny BERT has words for


def recipe(root: Path, encoder: Path | str, **sections: Any) -> dict[str, Any]:
    pooling = {} if ":" in str(encoder) else {"pooling": "mean", "precision": "float32"}
    return {
        "preset": "lit",
        "data": {"root": str(root), "train": "train.jsonl", "holdout": 0.25},
        "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
        "text": {"encoder": str(encoder), "dtype": "float32", **pooling}, "train": TRAIN,
        **sections,
    }  # fmt: skip


@pytest.fixture
def original(bert_folder: Path, tmp_path: Path) -> Path:
    """The tiny BERT, where a test may change or remove it."""
    return Path(shutil.copytree(bert_folder, tmp_path / "bert"))


@pytest.fixture
def result(album: Path, original: Path) -> RunResult:
    return run(recipe(album, original), album / "run")


def test_a_run_trains_the_text_encoder(result: RunResult, original: Path) -> None:
    stores = {path.name.rpartition("-")[0] for path in (result.out / "stores").iterdir()}
    assert stores == {"train-vision", "train-tokens-caption", "holdout-text-caption"}
    before = load_file(original / "model.safetensors")
    after = load_file(result.out / "model" / "text_encoder" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("attention.self.query" in name for name in moved)
    assert result.model.config.text["trained"] is True
    assert result.model.config.text["id"] == str(original)
    losses = [json.loads(line).get("loss") for line in result.metrics.read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.7 * losses[0]


def test_it_is_known_what_was_trained_on(album: Path, result: RunResult) -> None:
    seen = evaluate(result.out / "model", "retrieval", captions=album / "train.jsonl")["trained_on"]
    assert seen == {"images": 18, "of": 24, "by": "image files", "chosen_on": 6}


def test_the_model_loads_again_with_the_same_embeddings(result: RunResult, original: Path) -> None:
    shutil.rmtree(original)
    expected = result.model.encode_text(COLOURS)
    model = AlignedModel.from_pretrained(result.out / "model")
    assert torch.equal(model.encode_text(COLOURS), expected)
    found = model.text_encoder.info
    assert found.weights == model.config.text["weights"] == result.model.text_encoder.info.weights
    for folder in ("copy", "copy of copy"):
        model.save_pretrained(result.out / folder)
        model = AlignedModel.from_pretrained(result.out / folder)
    shutil.rmtree(result.out / "model")
    shutil.rmtree(result.out / "copy")
    assert torch.equal(model.encode_text(COLOURS), expected)


def test_its_trained_encoder_is_handed_on_with_it(
    result: RunResult, original: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    expected = result.model.encode_text(["a red dog"])
    tool("lateen").export(AlignedModel.from_pretrained(result.out / "model"), out)
    shutil.rmtree(result.out / "model")
    shutil.rmtree(original)
    again = AlignedModel.from_pretrained(out)
    assert torch.equal(again.encode_text(["a red dog"]), expected)
    for path in out.rglob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path


def test_it_evaluates_and_searches_like_any(result: RunResult, album: Path) -> None:
    held = set(result.pairs.ids)
    lines = (album / "train.jsonl").read_text().splitlines()
    rows = [line for line in lines if json.loads(line)["image"] in held]
    (album / "held.jsonl").write_text("\n".join(rows))
    again = evaluate(
        result.out / "model", "retrieval", captions=album / "held.jsonl", images=album / "images"
    )
    ways = ("text_to_image", "image_to_text")
    assert {w: again[w] for w in ways} == {w: result.results["retrieval"][w] for w in ways}
    hits = search(AlignedModel.from_pretrained(result.out / "model"), COLOURS[0], album / "images")
    assert len(hits[0]) == 12
    assert "bert" in write_run_page(result).read_text()
    assert "its weights were trained" in (result.out / "model" / "README.md").read_text()


def test_another_text_encoder_is_refused(result: RunResult, original: Path) -> None:
    folder = result.out / "model"
    with pytest.raises(ModelError, match=r"not the one this model was trained with: weights is"):
        AlignedModel.from_pretrained(folder, text_encoder=str(original))
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "pooler.dense.bias": tensors["pooler.dense.bias"] + 1}, weights,
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(ModelError, match="weights is"):
        AlignedModel.from_pretrained(folder).encode_text("a dog")


def test_a_second_run_does_nothing_again(result: RunResult, album: Path) -> None:
    checkpoints = list((result.out / "train").rglob("checkpoint.safetensors"))
    times = [path.stat().st_mtime_ns for path in checkpoints]
    again = run(album / "run" / "recipe.yaml", album / "run")
    assert [path.stat().st_mtime_ns for path in checkpoints] == times
    assert again.results == result.results


def test_a_sentence_folder_keeps_its_layout(album: Path, original: Path, tmp_path: Path) -> None:
    """Modules, pooling and limit are files of their own, in folders of their own."""
    folder = tmp_path / "sentence"
    shutil.copytree(original, folder / "0_Transformer")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling", "": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"}
               for path, kind in kinds.items()]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    values = recipe(album, folder, train={**TRAIN, "epochs": 2})
    del values["text"]["pooling"]
    result = run(values, album / "run")
    expected = result.model.encode_text(COLOURS)
    shutil.rmtree(folder)
    model = AlignedModel.from_pretrained(album / "run" / "model")
    assert torch.equal(model.encode_text(COLOURS), expected)
    assert model.text_encoder.info.pooling == "first"
    assert model.text_encoder.info.preprocessing["normalize"]


def test_what_was_left_out_is_counted_as_without(album: Path, original: Path) -> None:
    (album / "images" / "003.png").write_bytes(b"damaged")
    with (album / "train.jsonl").open("a") as file:
        file.write('{"image": "004.png", "caption": " "}\n')
    skipped = []
    for trained in (True, False):
        values = recipe(album, original, train={"epochs": 1})
        values["text"]["train"] = trained
        result = run(values, album / f"run-{trained}")
        skipped.append((result.results["retrieval"]["skipped"], sorted(result.skipped.values())))
    assert skipped[0] == skipped[1]
    assert skipped[0][0] == 2


# -- what cannot be -------------------------------------------------------------------------------


def test_an_encoder_that_cannot_be_trained_stops_before_any_work(album: Path) -> None:
    values = recipe(album, "toys:word_encoder")
    with pytest.raises(EncoderError, match="toys:word_encoder cannot be trained"):
        run(values, album / "run")
    assert not (album / "run" / "stores").exists()


def test_without_captions_there_is_nothing_to_train_on(album: Path, original: Path) -> None:
    values = recipe(album, original)
    values["data"]["train"] = "images"
    with pytest.raises(DataError, match="has no captions"):
        run(values, album / "run")


def test_stores_of_features_are_not_enough(album: Path) -> None:
    images = lateen.encode(album / "images", "toys:colour_encoder", out=album / "img")
    texts = lateen.encode(album / "train.jsonl", "toys:word_encoder", out=album / "txt")
    with pytest.raises(UsageError, match=r"'lit' trains the text encoder.*lateen run"):
        lateen.train(lateen.pair(images, texts), preset="lit")


def test_a_ladder_shares_its_features(album: Path, original: Path) -> None:
    with pytest.raises(RecipeError, match=r"text\.train trains the encoder"):
        ablate({"base": recipe(album, original), "rungs": [{"name": "a"}]}, album / "ladder")


def test_token_ids_are_whole_numbers_and_those_of_an_earlier_version_are_read_as_they_are(
    album: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(album, original, train={**TRAIN, "epochs": 2})
    with monkeypatch.context() as patch:  # an earlier version stored token ids as float32
        patch.setattr("lateen.experiment.stages.token_dtype", lambda folder: "float32")
        earlier = run(settings, album / "earlier")
    [tokens] = (earlier.out / "stores").glob("train-tokens-*")
    assert lateen.Store.open(tokens).dtype == "float32"
    made = {p: p.stat().st_mtime_ns for p in (earlier.out / "train").rglob("checkpoint*")}
    again = run(settings, album / "earlier")
    assert lateen.Store.open(tokens).dtype == "float32"
    assert {p: p.stat().st_mtime_ns for p in (again.out / "train").rglob("checkpoint*")} == made
    fresh = run(settings, album / "fresh")
    [tokens] = (fresh.out / "stores").glob("train-tokens-*")
    store = lateen.Store.open(tokens)
    assert store.dtype == "int32"
    assert store[:].dtype == torch.int32
    for name, tensor in fresh.model.state_dict().items():
        assert torch.equal(tensor, earlier.model.state_dict()[name])
