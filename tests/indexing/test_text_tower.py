"""The text side in ONNX gives the model's own embeddings, or is not used."""

from pathlib import Path

import numpy as np
import pytest
from commands import saved_model

from lateen.encoders import load_encoder
from lateen.indexing.text_tower import TextTower, tower_folder
from lateen.model import AlignedModel, open_model

TEXTS = ["a dog runs on the beach", "", "DOG", "a big red cat " * 20, "Zwei 海辺", "1 2 3"]


def aligned(tmp_path: Path, bert: Path, **options: object) -> AlignedModel:
    """A model whose text side is a small BERT."""
    from toys import ColourEncoder

    class Wide(ColourEncoder):
        """As many values as the BERT has."""

        def __init__(self) -> None:
            from dataclasses import replace

            super().__init__()
            self.info = replace(self.info, dim=16)

    text = load_encoder(str(bert), "text", **options)  # type: ignore[arg-type]
    return AlignedModel.from_pretrained(
        saved_model(tmp_path / "model", Wide(), text), vision_encoder=Wide(), text_encoder=text
    )


@pytest.mark.parametrize(
    "options",
    [{"pooling": "mean"}, {"pooling": "first", "max_tokens": 9},
     {"pooling": "last", "prompt": "a big ", "layer": 1}],
)  # fmt: skip
def test_it_embeds_as_the_model_does(
    tmp_path: Path, bert_folder: Path, options: dict[str, object]
) -> None:
    model = aligned(tmp_path, bert_folder, precision="float32", **options)
    tower = TextTower.make(model, model.content_key)
    assert tower is not None
    np.testing.assert_allclose(tower.texts(TEXTS), model.encode_text(TEXTS).numpy(), atol=2e-6)
    np.testing.assert_allclose(
        tower.texts(TEXTS[:1]), model.encode_text(TEXTS[:1]).numpy(), atol=2e-6
    )
    again = TextTower.open(model.content_key)
    assert again is not None and again.folder == tower_folder(model.content_key)


@pytest.mark.parametrize("name", ["clip_folder", "siglip_folder"])
def test_that_of_a_plain_clip_does_too(name: str, request: pytest.FixtureRequest) -> None:
    model = open_model(request.getfixturevalue(name))
    tower = TextTower.make(model, model.content_key)
    assert tower is not None
    cosine = (tower.texts(TEXTS) * model.encode_text(TEXTS).numpy()).sum(1)
    assert cosine.min() > 0.9999


def test_where_there_can_be_none_that_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(saved_model(tmp_path / "model"))
    assert TextTower.make(model, "0" * 64) is None
    assert "is no plain transformers model" in (tower_folder("0" * 64) / "why.json").read_text()
    monkeypatch.setattr("lateen.model.graphs.write_text_graph", None)  # is not tried again
    assert TextTower.make(model, "0" * 64) is None


def test_one_that_embeds_otherwise_is_not_used(
    tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = aligned(tmp_path, bert_folder, pooling="mean")
    plain = AlignedModel.encode_text
    monkeypatch.setattr(AlignedModel, "encode_text", lambda *a, **k: plain(*a, **k).flip(1))
    assert TextTower.make(model, model.content_key) is None
    assert "differ" in (tower_folder(model.content_key) / "why.json").read_text()
    assert TextTower.open(model.content_key) is None
