"""Layers chosen for the user: by training pairs alone, said in a line, and kept with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import COLOURS, photo

from lateen.config import read_yaml
from lateen.encoders import FusedEncoder, Side, load_encoder
from lateen.errors import DataError, EncoderError, RecipeError
from lateen.experiment import ablate, layer_choice, plan, run, write_run_page
from lateen.experiment.recipe import Recipe
from lateen.features import encode
from lateen.features.pairs import pair_grid
from lateen.model import AlignedModel
from lateen.training.selection import Joined


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """84 pictures of six colours with two captions each, in two splits."""
    root = tmp_path_factory.mktemp("pictures")
    for name, count in (("train", 72), ("test", 12)):
        rows = []
        for i in range(count):
            colour = list(COLOURS)[i % len(COLOURS)]
            photo(root / "images" / f"{name}{i:03d}.png", colour, seed=i + 1000 * (name == "test"))
            captions = [f"a {colour} cat", f"{colour} grass on the beach {i}"]
            rows.append(json.dumps({"image": f"{name}{i:03d}.png", "caption": captions}))
        (root / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def recipe(pictures: Path, resnet_folder: Path, vit_folder: Path, bert_folder: Path) -> Any:
    """``recipe(vision={…}, text={…})``: a ResNet or another network, and a BERT."""

    def make(vision: dict[str, Any], text: dict[str, Any], **sections: Any) -> dict[str, Any]:
        data = {"root": str(pictures), "train": "train.jsonl", "test": "test.jsonl", "holdout": 0.2}
        return {
            "data": data, "vision": {"encoder": str(resnet_folder), **vision},
            "text": {"encoder": str(bert_folder), "pooling": "mean", **text},
            "head": {"dim": 8, "dropout": 0.0}, "train": {"batch": 32, "epochs": 2}, **sections,
        }  # fmt: skip

    return make


def test_neighbours_decide_as_counted_by_hand(pictures: Path, tmp_path: Path) -> None:
    colours = encode(pictures / "train.jsonl", "toys:colour_encoder", tmp_path / "i",
                     modality="image", dtype="float32")  # fmt: skip
    words = encode(pictures / "train.jsonl", "toys:word_encoder", tmp_path / "t")
    [[pairs]] = pair_grid([colours], [[words]])
    ranking, k = layer_choice._by_neighbours([[pairs]], {"vision": 1, "text": 1})
    assert k == 9  # 2 · 72^⅓ = 8.3
    cosine = torch.nn.functional.normalize(colours[:].double(), dim=1)
    cosine = (cosine @ cosine.T).fill_diagonal_(-1)
    near = [set(row.argsort(descending=True)[:9].tolist()) for row in cosine]
    # Both captions of an image have its colour's word: its neighbours are the first of its colour.
    same = [[j for j in range(72) if j % 6 == i % 6 and j != i][:9] for i in range(72)]
    shared = sum(len(a & set(b)) for a, b in zip(near, same, strict=True)) / (72 * 9)
    assert ranking == [(0, 0, pytest.approx(shared))]


def test_the_best_layers_are_found_said_and_kept(
    recipe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        result = run(recipe({"layer": "best"}, {"layer": "best"}), tmp_path / "run")
    [line] = [message for message in caplog.messages if "mutual kNN" in message]
    layers = result.results["layers"]
    assert line == layers["told"]["best"]
    assert line.startswith("vision.layer and text.layer best: resnet")
    assert "on 58 training images (k = 8); then " in line  # 14 of 72 are held out
    # A ResNet's last map is its output, and so is BERT's last layer: each is looked at once.
    ranking = layers["best"]["ranking"]
    assert len({row["layers"] for row in ranking}) == len(ranking) == 3 * 3
    scores = [row["mutual_knn"] for row in ranking]
    assert scores == sorted(scores, reverse=True)
    # What is kept names the layers, and can be loaded and run again.
    kept = read_yaml(tmp_path / "run" / "recipe.yaml", "recipe")
    assert kept["vision"]["layer"] == result.model.config.vision["layer"] != "best"
    assert line in write_run_page(result).read_text()
    model = AlignedModel.from_pretrained(tmp_path / "run" / "model")
    assert model.encode_text(["a red cat"]).shape == (1, model.config.head_settings.dim)
    again = run(kept, tmp_path / "again")
    assert again.results["retrieval"]["conditions"] == result.results["retrieval"]["conditions"]


def test_only_training_pairs_decide(
    recipe: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    real = layer_choice._choose

    def note(sections: Any, options: Any, grid: Any) -> Any:
        seen.append({i for row in grid for pairs in row for i in pairs.ids})
        return real(sections, options, grid)

    monkeypatch.setattr(layer_choice, "_choose", note)
    run(recipe({"layer": "best"}, {}), tmp_path / "run")
    held_out = json.loads((tmp_path / "run" / "results.json").read_text())
    assert held_out["other_splits"]["holdout"]["images"] == 14
    assert len(seen[0]) == 58
    assert all(name.startswith("train") for name in seen[0])
    judged = run(recipe({"layer": "best"}, {}), tmp_path / "run")
    assert len(seen) == 1  # what was chosen is not chosen again
    holdout = set(judged.pairs.ids)
    assert not holdout & seen[0]


def test_a_fused_encoder_is_put_together_of_what_adds_most(
    recipe: Any, vit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second map of the ResNet, the embeddings of BERT, and layer 1 of the ViT.
    joined: list[tuple[Side, int]] = [("vision", 2), ("text", 1), ("vision", 5)]
    steps = [Joined(each, 50.0, 1.0, 0.1, {}) for each in joined]
    monkeypatch.setattr(layer_choice, "select_features", lambda *_, **__: (40.0, steps))
    candidates = [{"encoder": str(vit_folder), "pooling": "cls+mean"}]
    values = recipe({"fuse": "auto", "candidates": candidates}, {"fuse": "auto"})
    result = run(values, tmp_path / "run")
    assert "vit0 layer 1 (+1.0 ± 0.1) joined;" in result.results["layers"]["told"]["auto"]
    kept = Recipe.build(read_yaml(tmp_path / "run" / "recipe.yaml", "recipe"))
    assert kept.vision.undecided is kept.text.undecided is None
    assert kept.vision.candidates == ()
    [second, other], [embeddings] = kept.vision.fuse, kept.text.fuse
    assert (second.encoder, second.layer, second.pooling) == (kept.vision.encoder, 1, "mean")
    assert (other.encoder, other.layer, other.pooling) == (str(vit_folder), 1, "cls+mean")
    assert (embeddings.layer, embeddings.pooling) == (0, "mean")
    encoder = result.model.vision_encoder
    assert isinstance(encoder, FusedEncoder)
    assert encoder.info.load["parts"][0]["name"] == kept.vision.encoder
    # Parts of the training split are encoded; the others' stores have the chosen parts alone.
    stores = tmp_path / "run" / "stores"
    assert len(list(stores.glob("test-vision-*"))) == 4  # three parts and the fused one
    model = AlignedModel.from_pretrained(tmp_path / "run" / "model")
    torch.testing.assert_close(model.encode_text(["a cat"]), result.model.encode_text(["a cat"]))


@pytest.mark.parametrize("tower", ["clip_folder", "siglip_folder"])
def test_layers_of_towers_that_pool_at_their_end_are_taken_by_their_mean(
    recipe: Any, tower: str, tmp_path: Path, request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    network = str(request.getfixturevalue(tower))
    values = recipe({"encoder": network, "layer": "best"}, {})
    values["text"] = {"encoder": network, "layer": "best"}
    with caplog.at_level("INFO"):
        result = run(values, tmp_path / "run")
    own = {load_encoder(network, modality).info.pooling for modality in ("image", "text")}
    assert own <= {"pooler", "projection"}
    said = [line for line in caplog.messages if "hidden layers by the mean" in line]
    assert len(said) == 2 and all(pooling in "".join(said) for pooling in own)
    ranking = result.results["layers"]["best"]["ranking"]
    depth = 2 if tower == "clip_folder" else 1
    assert len(ranking) == len({row["layers"] for row in ranking}) >= (depth + 1) ** 2
    joined: list[tuple[Side, int]] = [("vision", 1), ("text", 1)]
    steps = [Joined(each, 50.0, 1.0, 0.1, {}) for each in joined]
    auto = recipe({"fuse": "auto", "candidates": [network]}, {})
    auto["text"] = {"encoder": network, "fuse": "auto"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_choice, "select_features", lambda *_, **__: (40.0, steps))
        fused = run(auto, tmp_path / "auto")
    [part] = fused.results["recipe"]["text"]["fuse"]
    assert (part["layer"], part["pooling"]) == (0, "mean")


def test_a_layer_beside_fuse_auto_is_where_it_begins(
    recipe: Any, vit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = layer_choice._choose

    def note(sections: Any, options: Any, grid: Any) -> Any:
        seen.append([option.label.partition(" ")[2] for option in options["vision"]])
        return real(sections, options, grid)

    monkeypatch.setattr(layer_choice, "_choose", note)
    steps = [Joined(("vision", 1), 50.0, 1.0, 0.1, {})]
    monkeypatch.setattr(layer_choice, "select_features", lambda *_, **__: (40.0, steps))
    candidates = [{"encoder": str(vit_folder), "pooling": "mean", "layer": 0}]
    vision = {"fuse": "auto", "layer": 1, "candidates": candidates}
    kept = run(recipe(vision, {}), tmp_path / "run").results["recipe"]["vision"]
    assert seen == [["layer 1", "output", "layer 0", "layer 0"]]  # the ViT's is the last
    assert (kept["layer"], kept["pooling"]) == (1, "mean")
    assert [part["layer"] for part in kept["fuse"]] == [None]
    with pytest.raises(EncoderError, match="has hidden layers 0"):
        run(recipe({"fuse": "auto", "layer": 9}, {}), tmp_path / "wrong")


def test_what_would_be_longer_than_the_closed_form_takes_is_left_out_and_said(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_choice, "LONGEST_CCA", 1)
    told = run(recipe({"fuse": "auto"}, {}), tmp_path / "run").results["layers"]["told"]["auto"]
    assert "nothing joined" in told
    assert "a side gets no more than the 1 values that the closed form is for, and vision" in told


def test_a_killed_run_goes_on(recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = recipe({"layer": "best"}, {})
    with monkeypatch.context() as patch:
        patch.setattr(layer_choice, "_choose", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(values, tmp_path / "killed")
    killed = run(values, tmp_path / "killed").results
    whole = run(values, tmp_path / "whole").results
    assert killed["layers"] == whole["layers"]
    assert killed["retrieval"]["text_to_image"] == whole["retrieval"]["text_to_image"]


def test_plan_and_ablate_take_recipes_that_leave_layers_open(recipe: Any, tmp_path: Path) -> None:
    values = recipe({"layer": "best"}, {"fuse": "auto"})
    predicted = plan(values, samples=8)
    [sentence] = [each for each in predicted["not_included"] if "choosing layers" in each]
    assert "vision.layer: best, text.fuse: auto" in sentence
    assert predicted["recipe"]["vision"]["layer"] == "best"
    ladder = {"base": values, "seeds": [0], "rungs": [{"name": "one", "set": {}}]}
    results = ablate(ladder, tmp_path / "ladder")
    assert set(results["layers"]["told"]) == {"best", "auto"}
    assert isinstance(results["base"]["vision"]["layer"], int | None)  # and not best
    assert results["base"]["text"]["fuse"] != "auto"


def test_what_has_no_layers_to_choose_from_is_refused(
    recipe: Any, vit_folder: Path, tmp_path: Path
) -> None:
    own = {"encoder": "toys:colour_encoder"}
    message = r"toys:colour_encoder has no hidden layers to choose from, which vision.layer: best"
    with pytest.raises(EncoderError, match=message):
        run(recipe({**own, "layer": "best"}, {}), tmp_path / "a")
    with pytest.raises(EncoderError, match=r"which vision\.fuse: auto asks for"):
        run(recipe({**own, "fuse": "auto"}, {}), tmp_path / "b")
    candidates = [{"encoder": str(vit_folder), "pooling": "mean"}]
    begun = {**own, "fuse": "auto", "layer": 1, "candidates": candidates}
    with pytest.raises(EncoderError, match=r"has no hidden layers.*Leave vision.layer out"):
        run(recipe(begun, {}), tmp_path / "c")


def test_few_pairs_choose_nothing(recipe: Any, tmp_path: Path) -> None:
    values = recipe({"layer": "best"}, {})
    values["data"]["holdout"] = 0.45
    with pytest.raises(DataError, match="40 training images are too few to choose layers by"):
        run(values, tmp_path / "run")


@pytest.mark.parametrize(
    ("vision", "text", "message"),
    [
        ({"layer": "bset"}, {}, "'vision.layer' cannot be 'bset': it is a whole number, or best"),
        ({"layer": 1.5}, {}, "'vision.layer' cannot be 1.5: it is a whole number, or best"),
        ({"fuse": "all"}, {}, "'vision.fuse' cannot be 'all': it is auto, or a list of further"),
        ({"fuse": "auto", "layer": "best"}, {}, "give only one"),
        ({"candidates": ["a"]}, {}, "candidates are what fuse: auto chooses among"),
        ({"fuse": [{"encoder": "a", "layer": "best"}]}, {}, "'vision.fuse.0.layer' cannot be"),
        ({}, {"layer": "best", "train": True}, "leave best and auto out"),
    ],
)
def test_what_contradicts_itself_is_refused(
    vision: dict[str, Any], text: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.build({"vision": vision, "text": text})


def test_layers_of_a_convolutional_network_are_its_maps(
    resnet_folder: Path, tmp_path: Path
) -> None:
    encoder = load_encoder(str(resnet_folder), "image", layer=1, precision="float32")
    assert encoder.info.pooling == "mean"
    pixels = torch.rand(2, 3, 32, 32)
    output = encoder.network.model(pixels, output_hidden_states=True)  # type: ignore[attr-defined]
    expected = output.hidden_states[1].mean((2, 3))
    torch.testing.assert_close(encoder.encode(list(pixels)), expected)
    last = load_encoder(str(resnet_folder), "image", precision="float32")
    assert last.info.pooling == "pooler"
    assert last.layers() == [0, 1]  # type: ignore[attr-defined]  # the last map is what is pooled
    view = last.view(None, 1)  # type: ignore[attr-defined]
    assert view.info == encoder.info
    with pytest.raises(EncoderError, match=r"layers 0 \(the first map\) to 2, not 7"):
        load_encoder(str(resnet_folder), "image", layer=7)
    with pytest.raises(
        EncoderError, match=r"works on the last layer, not on layer 1.*Use pooling mean"
    ):
        load_encoder(str(resnet_folder), "image", layer=1, pooling="pooler")
