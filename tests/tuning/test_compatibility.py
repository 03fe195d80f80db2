"""What is measured at checkpoints, on pictures of one colour and a model that reads colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_toys import PaletteEncoder, colour_model, mmvp_folder
from labelled_toys import class_folder
from toys import COLOURS, WordEncoder, album

from lateen.data import open_dataset
from lateen.encoders import EncoderInfo
from lateen.errors import DataError
from lateen.evaluation import evaluate
from lateen.evaluation.features import cached_features
from lateen.hardware import cache_folder
from lateen.model import clip_model
from lateen.model.trained_on import ImageGroup, TrainedOn
from lateen.tuning.checks import EvalSection
from lateen.tuning.compatibility import Compatibility

MEASURES = {
    "zero_shot", "retrieval", "knn_encoder", "knn_embedding", "linear_probe_encoder",
    "linear_probe_embedding", "mmvp", "mmvp_cosine",
    *(f"{way}.R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)),
}  # fmt: skip


class ChangedEncoder(PaletteEncoder):
    """The palette's shares through a matrix, of which each image is counted when it is encoded."""

    def __init__(self, matrix: torch.Tensor, weights: str = "tuned") -> None:
        super().__init__()
        self._matrix, self.encoded = matrix, 0
        self.info = EncoderInfo(
            id="toys/changed", modality="image", dim=6, pooling="mean", weights=weights
        )

    def encode(self, prepared: Any) -> torch.Tensor:
        self.encoded += len(prepared)
        return super().encode(prepared) @ self._matrix


class CountedWords(WordEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0

    def encode(self, prepared: Any) -> torch.Tensor:
        self.encoded += len(prepared)
        return super().encode(prepared)


SWAPPED = torch.eye(6)[[1, 0, 2, 3, 4, 5]]  # red for green, green for red


@pytest.fixture
def data(tmp_path: Path) -> EvalSection:
    album(tmp_path / "album")
    class_folder(tmp_path / "classes", COLOURS, count=6)
    mmvp_folder(tmp_path / "mmvp", [(1, "Color", "red"), (2, "Color", "green"),
                                    (3, "Color", "blue"), (4, "Color", "white")])  # fmt: skip
    return EvalSection(
        captions=str(tmp_path / "album" / "train.jsonl"), images=str(tmp_path / "album" / "images"),
        classes=str(tmp_path / "classes"), mmvp=str(tmp_path / "mmvp"), k=3,
    )  # fmt: skip


def test_every_measure_is_the_tasks_own(data):
    start = Compatibility(colour_model(), data).start
    measures = start["measures"]

    assert measures.keys() == MEASURES
    model = colour_model()
    retrieval = evaluate(model, "retrieval", captions=data.captions, images=data.images)
    zero_shot = evaluate(model, "classification", images=data.classes)
    knn = evaluate(model, "knn", images=data.classes, k=[3])
    probe = evaluate(model, "linear-probe", images=data.classes)
    mmvp = evaluate(model, "mmvp", data=data.mmvp)
    assert measures["retrieval"]["value"] == pytest.approx(retrieval["rsum"] / 6)
    for way in ("text_to_image", "image_to_text"):
        for k in (1, 5, 10):
            mine = measures[f"{way}.R@{k}"]
            assert mine["value"] == retrieval[way][f"R@{k}"]
            assert mine["interval"] == retrieval["intervals"][f"{way}.R@{k}"]
            assert mine["n"] == 24
    assert measures["zero_shot"]["value"] == zero_shot["top1"]
    assert measures["zero_shot"]["interval"] == zero_shot["intervals"]["top1"]
    assert measures["zero_shot"]["chance"] == pytest.approx(100 / 6)
    for kind in ("encoder", "embedding"):
        assert measures[f"knn_{kind}"]["value"] == knn[kind]["3"]
        assert measures[f"linear_probe_{kind}"]["value"] == probe[kind]["accuracy"]
    assert measures["mmvp"]["value"] == mmvp["pair_accuracy"]
    assert measures["mmvp"]["n"] == 2
    assert measures["mmvp"]["chance"] == 25
    assert measures["mmvp_cosine"]["value"] == pytest.approx(0, abs=0.05)  # other colours
    assert json.loads(json.dumps(start)) == start
    assert start["left_out"] == []


def test_a_candidate_equal_to_the_start_differs_in_nothing(data):
    compatibility = Compatibility(colour_model(), data)

    check = compatibility.check(colour_model(ChangedEncoder(torch.eye(6))), 7)

    assert check["step"] == 7
    assert check["measures"].keys() == MEASURES
    for name, measure in check["measures"].items():
        assert measure["value"] == compatibility.start["measures"][name]["value"]
        assert measure["difference"] == {"value": 0, "interval": [0, 0], "told": False}, name
    drift = check["drift"]
    assert drift["images"] == 24 + 36 + 4
    assert set(drift["cosine"].values()) == {1.0}
    assert drift["bound"] == {"mean": 0, "max": 0}
    assert drift["lost"] == drift["violations"] == 0


def test_what_is_lost_is_told_by_the_same_images(data):
    compatibility = Compatibility(colour_model(), data)

    check = compatibility.check(colour_model(ChangedEncoder(SWAPPED)), 3)

    # Every third picture is red or green, and is taken for the other.
    zero_shot = check["measures"]["zero_shot"]
    assert zero_shot["value"] == pytest.approx(100 * 4 / 6)
    assert zero_shot["difference"]["value"] == pytest.approx(-100 / 3)
    low, high = zero_shot["difference"]["interval"]
    assert low < -100 / 3 < high < 0
    assert zero_shot["difference"]["told"]
    # Neighbours do not mind which colour is called what.
    assert check["measures"]["knn_encoder"]["difference"]["value"] == 0
    assert check["measures"]["mmvp"]["value"] == 50
    assert not check["measures"]["mmvp"]["difference"]["told"]  # two pairs tell nothing
    drift = check["drift"]
    assert drift["cosine"]["min"] < 0.1  # red pictures are green now
    assert drift["cosine"]["q50"] > 0.95
    assert drift["texts"] == 48 + 6
    # Of a text "red" the cosine falls from 1 to 0, where the bound is 2·√2.
    assert drift["tightness"]["max"] == pytest.approx(1 / 8**0.5, rel=1e-3)
    assert drift["violations"] == 0


def test_each_image_is_encoded_once_for_a_checkpoint_and_texts_once_for_all(data):
    model, words = colour_model(), CountedWords()
    model.set_encoders(text=words)
    compatibility = Compatibility(model, data)
    texts = words.encoded
    assert texts > 48

    for step in (1, 2):
        encoder = ChangedEncoder(SWAPPED)  # of one name at both, as if its hash had stayed
        candidate = colour_model(encoder)
        candidate.set_encoders(text=words)
        check = compatibility.check(candidate, step)
        assert encoder.encoded == 24 + 36 + 4
        assert check["drift"]["cosine"]["min"] < 0.1
    assert words.encoded == texts


def test_features_of_checkpoints_are_not_kept(data, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    compatibility = Compatibility(colour_model(), data)
    before = sorted(path.name for path in (cache_folder() / "features").iterdir())

    compatibility.check(colour_model(ChangedEncoder(SWAPPED)), 1)

    assert sorted(path.name for path in (cache_folder() / "features").iterdir()) == before
    assert list(scratch.iterdir()) == []


def test_a_clip_of_transformers_tuned_in_place(data, clip_folder):
    """One network for start and candidate, under one name: what the start was is remembered."""
    model = clip_model(str(clip_folder))
    compatibility = Compatibility(model, EvalSection(classes=data.classes, k=3))
    with torch.no_grad():
        for parameter in model.vision_encoder.network.model.parameters():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(0)
            )

    check = compatibility.check(model, 1)

    assert check["drift"]["cosine"]["mean"] < 0.999
    assert check["drift"]["bound"]["mean"] > 0.01
    assert 0 < check["drift"]["tightness"]["max"] <= 1
    assert compatibility.check(model, 2)["drift"] == check["drift"]


def test_images_that_were_trained_on_are_told_of(data):
    model = colour_model()
    album_of = open_dataset(data.captions, images=data.images)
    store = cached_features(album_of, model.vision_encoder)
    hashes = store.image_hashes(np.arange(len(store)))
    model._trained_on = TrainedOn({"train": ImageGroup.of(store.ids, hashes)})

    compatibility = Compatibility(model, data)

    # Six pictures are in both sets, byte for byte.
    assert compatibility.start["beware"] == [
        "captions: 24 of these 24 images were trained on (same image files).",
        "classes: 6 of these 36 images were trained on (same image files).",
    ]
    assert compatibility.check(colour_model(), 1)["beware"] == []


def test_what_is_not_given_is_left_out_and_said(data):
    compatibility = Compatibility(colour_model(), EvalSection(classes=data.classes, k=40))

    assert compatibility.start["measures"].keys() == {
        "zero_shot", "linear_probe_encoder", "linear_probe_embedding"
    }  # fmt: skip
    assert compatibility.left_out == [
        "no retrieval: eval.captions is not given",
        "no knn_encoder and knn_embedding: 35 images can vote, fewer than the k of 40",
        "no MMVP-VLM: eval.mmvp is not given",
    ]
    check = compatibility.check(colour_model(), 1)
    assert check["measures"].keys() == compatibility.start["measures"].keys()


def test_without_the_probe(data):
    compatibility = Compatibility(
        colour_model(), EvalSection(classes=data.classes, k=3, linear_probe=False)
    )

    assert compatibility.start["measures"].keys() == {"zero_shot", "knn_encoder", "knn_embedding"}
    assert "no linear probe: eval.linear_probe is false" in compatibility.left_out


def test_without_evaluation_data_the_drift_of_other_images_is_measured(data):
    images = open_dataset(str(data.images))
    compatibility = Compatibility(colour_model(), EvalSection(), images)

    check = compatibility.check(colour_model(ChangedEncoder(SWAPPED)), 1)

    assert check["measures"] == {}
    assert check["drift"]["images"] == 24
    assert check["drift"]["texts"] is None
    assert Compatibility(colour_model(), EvalSection()).start["drift"] == {}


def test_images_that_a_candidate_cannot_embed_are_counted(data, caplog):
    class Broken(ChangedEncoder):
        def encode(self, prepared: Any) -> torch.Tensor:
            features = super().encode(prepared)
            features[features[:, 0] > 0.5] = torch.nan  # whatever is red
            return features

    compatibility = Compatibility(colour_model(), data)

    check = compatibility.check(colour_model(Broken(torch.eye(6))), 1)

    assert check["drift"]["lost"] == 4 + 6 + 1
    zero_shot = check["measures"]["zero_shot"]
    assert zero_shot["n"] == 30
    assert zero_shot["difference"] == {"value": 0, "interval": None, "told": None}
    assert "11 evaluation images have no embedding any more" in caplog.text


@pytest.mark.parametrize("name", ["captions", "classes", "mmvp"])
def test_data_that_are_not_there_are_an_error_at_the_start(name, tmp_path):
    settings = EvalSection(**{name: str(tmp_path / "gone")})
    with pytest.raises(DataError, match="gone"):
        Compatibility(colour_model(), settings)
