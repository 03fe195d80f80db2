"""The whole assessment, on pictures of one colour and words that name it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import toys
from labelled_toys import benchmark_folder, class_folder, rows

from lateen.assessment import assess, assess_stores, probing
from lateen.assessment.data import from_stores
from lateen.errors import DataError, PairingError, RecipeError, TrainingError, UsageError
from lateen.features import Store, encode, import_features
from lateen.training.loop import train as real_train


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows with every training."""
    done: list[int] = []

    def train(*arguments: Any, **named: Any) -> Any:
        done.append(1)
        return real_train(*arguments, **named)

    monkeypatch.setattr(probing, "train", train)
    return done


def test_a_grid_from_images_to_report(
    plan: dict[str, Any], tmp_path: Path, trainings: list[int]
) -> None:
    results = assess(plan, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert rows == results["rows"]
    assert len(rows) == len(trainings) == 9
    assert [row["rank"] for row in rows] == list(range(1, 10))
    scores = [row["probe"]["R@10"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    for row in rows:
        low, high = row["probe"]["interval"]
        assert low <= row["probe"]["R@10"] <= high
        assert 0 <= row["mutual_knn"] <= 1
        assert -1 <= row["cka_unbiased"] <= row["cka"] <= 1
        assert row["notes"] == {}
    assert rows[0]["ties_with_best"]
    colours = [row for row in rows if row["vision"] == "toys:colour_encoder"]
    assert all(row["knn"] == row["linear_probe"] == 100 for row in colours)
    views = {(row["vision_label"], row["pooling"], row["layer"]) for row in rows}
    assert ("vit · cls+mean", "cls+mean", None) in views
    assert {(row["text_label"], row["text_layer"]) for row in rows} >= {
        ("bert · layer 1", 1), ("bert", None),
    }  # fmt: skip
    assert {side["label"]: side["score"] for side in results["text"]}["toys:word_encoder"] == 7
    conditions = results["conditions"]
    assert (conditions["images"], conditions["train_images"]) == (15, 45)
    assert (conditions["labelled_images"], conditions["classes"]) == (60, 6)
    assert conditions["probe"]["preset"] == "probe-small"
    with (tmp_path / "out" / "leaderboard.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 9
    assert "toys:colour_encoder" in (tmp_path / "out" / "report.html").read_text()


def test_a_further_encoder_costs_that_encoder(
    plan: dict[str, Any], tmp_path: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = plan["vision"]
    first = assess({**plan, "vision": vision[:1]}, tmp_path / "out")
    assert len(trainings) == 6
    encoded: list[str] = []
    real = toys.ColourEncoder.encode
    monkeypatch.setattr(
        toys.ColourEncoder, "encode", lambda *given: encoded.append("colour") or real(*given)
    )
    monkeypatch.setattr(
        "lateen.encoders.vision.VisionEncoder.encode_views",
        lambda *_: pytest.fail("the ViT ran again"),
    )
    both = assess(plan, tmp_path / "out")
    assert len(trainings) == 9
    assert encoded
    old = {(r["vision_label"], r["text_label"]): r["probe"] for r in first["rows"]}
    new = {(r["vision_label"], r["text_label"]): r["probe"] for r in both["rows"]}
    assert {pair: new[pair] for pair in old} == old
    assess(plan, tmp_path / "out")
    assert len(trainings) == 9


def test_seeds_are_trained_each_and_averaged_and_a_seed_alone_is_as_before(
    plan: dict[str, Any], tmp_path: Path, trainings: list[int]
) -> None:
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    [alone] = assess(small, tmp_path / "out")["rows"]
    assert "sd" not in alone["probe"]
    results = assess({**small, "probe": {**plan["probe"], "seeds": [0, 1, 5]}}, tmp_path / "out")
    assert len(trainings) == 3  # that of seed 0 was there
    probe = results["rows"][0]["probe"]
    assert probe["by_seed"]["0"] == {key: alone["probe"][key] for key in ("R@1", "R@5", "R@10")}
    for key in ("R@1", "R@5", "R@10"):
        values = [probe["by_seed"][seed][key] for seed in ("0", "1", "5")]
        assert probe[key] == pytest.approx(sum(values) / 3)
        assert probe["sd"][key] == pytest.approx(np.std(values, ddof=1))
        ways = [probe[way][key] for way in ("text_to_image", "image_to_text")]
        assert probe[key] == pytest.approx(sum(ways) / 2)
    assert results["conditions"]["probe"]["seeds"] == [0, 1, 5]
    assert "±" in (tmp_path / "out" / "report.html").read_text()
    assert assess(small, tmp_path / "out")["rows"] == [alone]
    for seeds, message in (([1, 1], "same seed twice"), ([-1], "probe.seeds")):
        with pytest.raises(RecipeError, match=message):
            assess({**small, "probe": {"seeds": seeds}}, tmp_path / "out")
    with pytest.raises(RecipeError, match="give one of them"):
        assess({**small, "probe": {"seeds": [1], "train": {"seed": 2}}}, tmp_path / "out")


def test_points_of_encoders_have_the_interval_of_the_pairs_that_count(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    text = [plan["text"][1], {**plan["text"][0], "layer": [None], "baseline": True}]
    results = assess({**plan, "vision": plan["vision"][1:], "text": text}, tmp_path / "out")
    [colour] = results["vision"]
    of_words = next(r for r in results["rows"] if r["text"] == "toys:word_encoder")
    assert colour["counted"]["R@10"] == of_words["probe"]["R@10"]
    assert colour["counted"]["interval"] == pytest.approx(of_words["probe"]["interval"])


def test_an_anchored_sweep_has_one_candidate_on_a_side(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    anchored = {**plan, "sweep": "language-anchored"}
    with pytest.raises(RecipeError, match="language-anchored sweep has one candidate"):
        assess(anchored, tmp_path / "out")
    results = assess({**anchored, "text": plan["text"][1:]}, tmp_path / "out")
    assert len(results["rows"]) == 3
    assert not [c for c in results["correlations"] if c["over"] == "pairs"]


def test_fused_encoders_are_candidates(
    plan: dict[str, Any], tmp_path: Path, vit_folder: Path
) -> None:
    fused = {"encoder": str(vit_folder), "pooling": "cls", "fuse": ["toys:colour_encoder"]}
    results = assess(
        {**plan, "vision": [fused], "text": plan["text"][1:], "labelled": None}, tmp_path / "out"
    )
    row = results["rows"][0]
    assert row["vision"] == f"{vit_folder.name} + toys:colour_encoder"
    assert results["vision"][0]["dim"] == 16 + 6
    assert row["knn"] is None
    assert row["linear_probe"] is None


def test_more_neighbours_than_samples_leave_a_note_and_no_number(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    few = {**plan["measure"], "k": 15, "knn": [3, 100]}
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:], "measure": few}
    row = assess(small, tmp_path / "out")["rows"][0]
    assert row["mutual_knn"] is None
    assert "15" in row["notes"]["mutual_knn"]
    assert row["cka"] > 0
    assert row["knn"] == 100
    with pytest.raises(DataError, match="the labelled set has 1 classes"):
        assess({**small, "labelled": "album"}, tmp_path / "other")


def test_what_an_encoder_could_not_read_leaves_for_all(
    plan: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    (world / "album" / "images" / "007.png").write_bytes(b"not a picture")
    results = assess({**plan, "labelled": None}, tmp_path / "out")
    assert results["conditions"]["images"] + results["conditions"]["train_images"] == 59


WRONG: list[tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = [
    (lambda p: p | {"visoin": []}, RecipeError, "unknown key 'visoin'. Did you mean 'vision'"),
    (lambda p: p | {"vision": []}, RecipeError, "'vision' cannot be"),
    (lambda p: p | {"text": [{"encoder": "x", "poling": "mean"}]}, RecipeError,
     "unknown key 'text.0.poling'. Did you mean 'pooling'"),
    (lambda p: p | {"vision": [{"pooling": "cls"}]}, RecipeError, "has no 'vision.0.encoder'"),
    (lambda p: p | {"probe": {"train": {"lrr": 1}}}, RecipeError, "Did you mean 'train.lr'"),
    (lambda p: p | {"probe": {"preset": "prob"}}, RecipeError, "the presets are auto, small"),
    (lambda p: p | {"vision": p["vision"] + p["vision"][1:]}, RecipeError,
     "a pooling and layer of toys:colour_encoder is listed twice"),
    (lambda p: p | {"vision": p["vision"] + [p["vision"][0] | {"precision": "float32"}]},
     RecipeError, "2 candidates are called 'vit · cls'"),
    (lambda p: p | {"labelled": "nowhere"}, DataError, "nowhere"),
    (lambda p: p | {"measure": {"level": 2}}, RecipeError, "'measure.level' cannot be 2"),
    (lambda p: p | {"measure": {"knn": [0]}}, RecipeError, "'measure.knn.0' cannot be 0"),
    (lambda p: p | {"text": [{"encoder": "x", "score": float("nan")}]}, RecipeError,
     "'text.0.score' cannot be nan"),
    (lambda p: p | {"labelled": {"train": "classes", "test": "classes"}}, RecipeError,
     "train and test are one folder"),
    (lambda p: p | {"vision": ["x"]}, RecipeError, "'vision.0' cannot be 'x': it has keys"),
    (lambda p: p | {"data": p["data"] | {"holdout": 0.04}}, DataError,
     "2 images to judge on are too few: there must be 4"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), WRONG)
def test_what_cannot_be_is_said(
    change: Callable[[dict[str, Any]], Any], kind: type[Exception], message: str,
    plan: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(kind) as error:
        assess(change(plan), tmp_path / "out")
    assert message in str(error.value)


@pytest.fixture
def stores(world: Path) -> tuple[Store, Store, Store]:
    """Two image stores and a text store of the album."""
    album = world / "album"
    colours = encode(album / "images", toys.ColourEncoder(), world / "colours")
    return (
        colours,
        noise(world / "noise", colours.ids),
        encode(album / "train.jsonl", toys.WordEncoder(), world / "words"),
    )


def noise(path: Path, ids: list[str], **changes: Any) -> Store:
    features = np.random.default_rng(0).normal(size=(len(ids), 5)).astype(np.float32)
    np.save(path.with_suffix(".npy"), changes.get("features", features))
    return import_features(
        path.with_suffix(".npy"), path, ids=ids, modality="image", encoder=path.name
    )


SMALL: dict[str, Any] = {
    "probe": {"head": {"dim": 8}, "train": {"batch": 16, "epochs": 4, "lr": 0.01}},
    "measure": {"k": 3, "knn": [3], "resamples": 100, "svcca_dim": 2},
}


def test_stores_are_assessed_as_they_are(
    stores: tuple[Store, Store, Store], tmp_path: Path
) -> None:
    colours, noises, words = stores
    labels = tmp_path / "labels.csv"
    names = [list(toys.COLOURS)[i % 6] for i in range(60)]
    labels.write_text(
        "id,label\n" + "".join(f"{i},{n}\n" for i, n in zip(colours.ids, names, strict=True))
    )
    results = assess_stores(
        [colours, noises], [words], tmp_path / "out", labels=labels, holdout=0.5, **SMALL
    )
    first, second = results["rows"]
    assert (first["vision"], second["vision"]) == ("toys:colour_encoder", "noise")
    assert first["probe"]["R@10"] > second["probe"]["R@10"]
    assert not second["ties_with_best"]
    assert (first["knn"], results["conditions"]["images"]) == (100, 30)
    assert second["knn"] < 60
    labels.write_text("name,class\na,b\n")
    with pytest.raises(DataError, match="no columns id and label"):
        assess_stores([colours], [words], tmp_path / "o", labels=labels, **SMALL)
    labels.write_text("id,label\nx,red\ny,blue\n")
    with pytest.raises(DataError, match=r"none of the 60 images .* has a label"):
        assess_stores([colours], [words], tmp_path / "o", labels=labels, **SMALL)


def test_stores_that_do_not_fit_are_refused(
    stores: tuple[Store, Store, Store], tmp_path: Path
) -> None:
    colours, _, words = stores
    other = noise(tmp_path / "other", ["zebra.png", *colours.ids[1:]])
    with pytest.raises(PairingError, match=r"'zebra\.png'"):
        assess_stores([colours, other], [words], tmp_path / "o", **SMALL)
    dropped = assess_stores([colours, other], [words], tmp_path / "o", missing="drop", **SMALL)
    assert dropped["conditions"]["images"] + dropped["conditions"]["train_images"] == 59
    flat = noise(tmp_path / "flat", colours.ids, features=np.tile(np.arange(5.0), (60, 1)))
    with pytest.raises(TrainingError, match=r"all 48 rows of .*flat are the same"):
        assess_stores([colours, flat], [words], tmp_path / "o2", **SMALL)
    with pytest.raises(UsageError, match="holdout is 1"):
        assess_stores([colours], [words], tmp_path / "o3", holdout=1, **SMALL)
    with pytest.raises(UsageError, match="both images and texts"):
        assess_stores([], [words], tmp_path / "o4", **SMALL)


def test_copies_are_counted(stores: tuple[Store, Store, Store], tmp_path: Path) -> None:
    colours, _, words = stores
    twins = noise(tmp_path / "twins", colours.ids, features=np.repeat(np.eye(30), 2, 0))
    results = assess_stores([twins], [words], tmp_path / "o", holdout=0.5, **SMALL)
    counted = results["conditions"]["duplicates"]
    held = [i for i, row in enumerate(colours.ids) if row in judged_ids(twins, words)]
    assert counted["images"] == len(held) - len({i // 2 for i in held}) > 0
    assert counted["texts"] > 30  # six colours name 60 captions


def judged_ids(images: Store, texts: Store) -> set[str]:
    from lateen.features import pair

    return set(pair(images, texts).holdout(0.5)[1].ids)


@pytest.mark.real
def test_trained_encoders_are_ahead_of_those_that_know_nothing(real: Path, tmp_path: Path) -> None:
    """On 240 photographs: the order of the four pairs that nobody would doubt."""
    lines = (real / "flickr8k" / "dev.csv").read_text().splitlines()
    (tmp_path / "c.csv").write_text("\n".join(lines[: 1 + 5 * 240]) + "\n")
    baselines = "lateen.encoders.baselines"
    results = assess(
        {
            "data": {"root": str(tmp_path), "images": str(real / "flickr8k" / "images"),
                     "train": "c.csv", "holdout": 0.4},
            "vision": [
                {"encoder": str(real / "encoders" / "mobilenet-v2"), "pooling": "pooler"},
                {"encoder": f"{baselines}:raw_pixels", "baseline": True},
            ],
            "text": [{"encoder": "all-MiniLM-L6-v2"}, {"encoder": f"{baselines}:bag_of_words"}],
        },
        tmp_path / "out",
    )  # fmt: skip
    rows = {(row["vision"], row["text"]): row for row in results["rows"]}
    best = rows["mobilenet-v2", "all-MiniLM-L6-v2"]
    blind = rows["raw pixels", "all-MiniLM-L6-v2"]
    assert best["rank"] == 1
    for measure in ("cka_unbiased", "mutual_knn", "cknna", "cycle_knn", "svcca"):
        assert best[measure] > blind[measure]
    assert best["probe"]["interval"][0] > blind["probe"]["interval"][1]


def test_what_is_left_out_is_counted_once(
    plan: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    (world / "album" / "images" / "007.png").write_bytes(b"not a picture")
    small = {**plan, "labelled": None, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    assert assess(small, tmp_path / "out")["conditions"]["skipped"] == 1


def test_the_captions_that_a_recipe_chooses_are_trained_on(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    data = {**plan["data"], "captions": ["caption#1"]}
    small = {**plan, "labelled": None, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    conditions = assess({**small, "data": data}, tmp_path / "out")["conditions"]
    assert conditions["caption_columns"] == ["caption#1"]
    assert (conditions["images"], conditions["captions"]) == (15, 30)
    with pytest.raises(DataError, match="caption#2 needs 3 captions of every image"):
        assess({**small, "data": {**data, "captions": ["caption#2"]}}, tmp_path / "out")


def test_one_encoder_in_two_number_formats_has_two_stores(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    formats = [{"encoder": "toys:colour_encoder", "name": d, "dtype": d}
               for d in ("float16", "float32")]  # fmt: skip
    results = assess(
        {**plan, "labelled": None, "vision": formats, "text": plan["text"][1:]}, tmp_path / "out"
    )
    half, full = sorted(results["rows"], key=lambda row: row["vision"])
    assert half["cka"] == pytest.approx(full["cka"], abs=1e-3)
    assert half["cka"] != full["cka"]


def test_images_that_are_trained_and_judged_on_are_told_of(
    plan: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {**plan, "labelled": None, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    same = {**small, "data": {**plan["data"], "test": plan["data"]["train"]}}
    found = assess(same, tmp_path / "out")
    assert found["conditions"]["duplicates"]["trained"] == 60
    assert "60 of 60 images to judge on are copies" in caplog.text
    assert "60 images have the features of one" in (tmp_path / "out" / "report.html").read_text()
    assert assess(small, tmp_path / "o")["conditions"]["duplicates"]["trained"] == 0


def test_encoders_are_judged_on_the_same_labelled_images_in_any_order(
    stores: tuple[Store, Store, Store], tmp_path: Path
) -> None:
    colours, _, words = stores
    features = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    order = np.random.default_rng(2).permutation(60)
    gone = np.where(np.arange(60)[:, None] < 9, np.nan, features)
    images = [
        noise(tmp_path / "straight", colours.ids, features=features),
        noise(tmp_path / "mixed", [colours.ids[i] for i in order], features=features[order]),
        noise(tmp_path / "fewer", colours.ids, features=gone.astype(np.float32)),
    ]
    lines = [f"{name},{i % 6}\n" for i, name in enumerate(colours.ids)]
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(lines) + "absent.png,7\n")
    results = assess_stores(
        images, [words], tmp_path / "o", labels=tmp_path / "labels.csv", **SMALL
    )
    first, *others = [(side["knn"], side["linear_probe"]) for side in results["vision"]]
    assert others == [first, first]
    held = results["conditions"]
    assert (held["labelled_images"], held["classes"], held["skipped"]) == (51, 6, 9)


def texts(path: Path, ids: list[str], encoder: str, column: str) -> Store:
    features = np.random.default_rng(len(column)).normal(size=(len(ids), 4)).astype(np.float32)
    np.save(path.with_suffix(".npy"), features)
    return import_features(
        path.with_suffix(".npy"), path, ids=ids, modality="text", encoder=encoder, column=column
    )


def test_caption_columns_are_matched_by_name(
    stores: tuple[Store, Store, Store], tmp_path: Path
) -> None:
    image = stores[0]
    found = {
        (encoder, column): texts(tmp_path / f"{encoder}-{column}", image.ids, encoder, column)
        for encoder in ("a", "b") for column in ("long", "short")
    }  # fmt: skip
    mixed = [found[key] for key in (("a", "short"), ("a", "long"), ("b", "long"), ("b", "short"))]
    plan: dict[str, Any] = {"labels": None, "holdout": 0.5, "missing": "error", "seed": 0}
    judged = from_stores([image], mixed, **plan).judged
    assert [[c.name for c in pairs.texts] for pairs in judged[0]] == [["short", "long"]] * 2
    with pytest.raises(PairingError, match="one text encoder has the caption columns short, long"):
        from_stores([image], mixed[:3], **plan)
    with pytest.raises(PairingError, match="of one encoder and one caption column, 'short'"):
        from_stores([image], [mixed[0], mixed[0]], **plan)


def test_stores_of_one_name_are_told_apart_by_their_folders(
    stores: tuple[Store, Store, Store], tmp_path: Path
) -> None:
    image, _, words = stores
    plan: dict[str, Any] = {"labels": None, "holdout": 0.5, "missing": "error", "seed": 0}
    np.save(tmp_path / "n.npy", np.random.default_rng(0).normal(size=(60, 5)))
    twins = [
        import_features(
            tmp_path / "n.npy", tmp_path / name, ids=image.ids, modality="image", encoder="n"
        )
        for name in ("one", "two")
    ]
    labels = [c.label for c in from_stores([image, *twins], [words], **plan).vision]
    assert labels == ["toys:colour_encoder", "n (one)", "n (two)"]
    with pytest.raises(RecipeError, match=r"2 candidates are called 'n \(one\)'"):
        from_stores([twins[0], twins[0]], [words], **plan)


def test_what_was_measured_by_other_versions_is_measured_again(
    plan: dict[str, Any], tmp_path: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    assess(small, tmp_path / "out")
    assess(small, tmp_path / "out")
    assert len(trainings) == 1
    monkeypatch.setattr("lateen.assessment.cache.library_versions", lambda: {"torch": "99"})
    assess(small, tmp_path / "out")
    assert len(trainings) == 2


@pytest.mark.parametrize("form", ["shards", "folder of splits", "rows"])
def test_labels_in_every_form_that_the_tasks_take(
    plan: dict[str, Any], world: Path, form: str
) -> None:
    pictures = [(colour, list(toys.COLOURS).index(colour)) for colour in toys.COLOURS] * 6
    if form == "shards":
        benchmark_folder(world / "set", list(toys.COLOURS), test=pictures[:18], train=pictures)
    elif form == "rows":
        table = rows(pictures, list(toys.COLOURS))
        datasets.DatasetDict(
            train=table, test=rows(pictures[:18], list(toys.COLOURS))
        ).save_to_disk(str(world / "set"))
    else:
        for split, count in (("train", 6), ("test", 3)):
            class_folder(world / "set" / split, toys.COLOURS, count, seed=count)
    small = {**plan, "vision": [{"encoder": "toys:colour_encoder"}], "text": plan["text"][1:]}
    short = {**small, "measure": {**plan["measure"], "knn": [1, 2]}}
    results = assess({**short, "labelled": "set"}, world / "out")
    assert results["rows"][0]["knn"] == results["rows"][0]["linear_probe"] == 100
    assert results["conditions"]["labelled_images"] == 36 + 18
    named = {"train": "set#train", "test": "set#test"}
    again = assess({**short, "labelled": named}, world / "out")
    assert again["conditions"]["labels"] == results["conditions"]["labels"]
    alone = assess({**short, "labelled": "set#train"}, world / "out")
    assert alone["conditions"]["labelled_images"] == 36
