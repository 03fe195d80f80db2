from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from lateen.encoders import Encoder, ViewedEncoder, load_encoder, load_views
from lateen.errors import EncoderError, UsageError

IMAGES = [Image.new("RGB", (50, 40), colour) for colour in ("red", "green", "navy")]
TEXTS = ["a dog", "two cats on a mat by the sea"]
VISION = [("cls", None), ("mean", None), ("cls+mean", 1), ("mean", 0), ("pooler", None)]
TEXT = [("mean", None), ("first", 1), ("last", 0)]


def assert_same(views: list[Encoder], alone: list[Encoder], items: list[object]) -> None:
    """Views are the encoders that one gets one by one, and their one pass gives the same bits."""
    first = views[0]
    assert isinstance(first, ViewedEncoder)
    prepared = first.prepare(items)
    together = first.encode_views(prepared, views)
    for view, other, features in zip(views, alone, together, strict=True):
        assert view.info == other.info
        assert view.info.key == other.info.key
        assert torch.equal(features, other.encode(prepared))
        assert torch.equal(view.encode(prepared), features)


def test_vision_views_are_the_encoders_loaded_one_by_one(vit_folder: Path) -> None:
    views = load_views(str(vit_folder), "image", VISION)
    alone = [load_encoder(str(vit_folder), "image", pooling=p, layer=n) for p, n in VISION]
    assert len({view.info.key for view in views}) == len(VISION)
    assert_same(views, alone, list(IMAGES))


def test_text_views_are_the_encoders_loaded_one_by_one(bert_folder: Path) -> None:
    views = load_views(str(bert_folder), "text", TEXT)
    alone = [load_encoder(str(bert_folder), "text", pooling=p, layer=n) for p, n in TEXT]
    assert_same(views, alone, list(TEXTS))


def test_views_of_a_sentence_model_leave_its_normalisation_to_its_own_output(
    sentence_folder: Path,
) -> None:
    asked: list[tuple[str | None, int | None]] = [(None, None), (None, 1), ("mean", None)]
    views = load_views(str(sentence_folder), "text", asked)
    alone = [load_encoder(str(sentence_folder), "text", pooling=p, layer=n) for p, n in asked]
    assert_same(views, alone, list(TEXTS))


def test_the_network_runs_once_for_all_views(
    vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = load_views(str(vit_folder), "image", VISION)
    calls = []
    network = views[0].network.model  # type: ignore[attr-defined]
    network.register_forward_hook(lambda *_: calls.append(1))
    assert isinstance(views[0], ViewedEncoder)
    views[0].encode_views(views[0].prepare(IMAGES), views)
    assert len(calls) == 1


def test_a_view_that_is_not_there_is_refused_with_the_choices(vit_folder: Path) -> None:
    with pytest.raises(EncoderError, match="hidden layers 0 \\(embeddings\\) to 3, not 9"):
        load_views(str(vit_folder), "image", [("cls", None), ("cls", 9)])
    with pytest.raises(EncoderError, match="no pooling 'last'"):
        load_views(str(vit_folder), "image", [("cls", None), ("last", None)])


def test_an_encoder_of_ones_own_has_one_view() -> None:
    assert [e.info.dim for e in load_views("toys:ColourEncoder", "image", [(None, None)])] == [6]
    with pytest.raises(UsageError, match="takes no options"):
        load_views("toys:ColourEncoder", "image", [(None, None), (None, 2)])


def test_untrained_weights_are_random_repeatable_and_known_by_their_content(
    vit_folder: Path, bert_folder: Path
) -> None:
    for folder, modality, items in ((vit_folder, "image", IMAGES), (bert_folder, "text", TEXTS)):
        pooling = "mean"
        trained = load_encoder(str(folder), modality, pooling=pooling)  # type: ignore[arg-type]
        first, second = (
            load_encoder(str(folder), modality, pooling=pooling, untrained=True)  # type: ignore[arg-type]
            for _ in range(2)
        )
        assert first.info.key == second.info.key != trained.info.key
        features = first.encode(first.prepare(items))
        assert torch.equal(features, second.encode(second.prepare(items)))
        assert not torch.equal(features, trained.encode(trained.prepare(items)))
        again = load_encoder(modality=modality, **first.info.load)  # type: ignore[arg-type]
        assert again.info == replace(first.info, id=again.info.id)


def test_making_untrained_weights_leaves_the_random_state_alone(vit_folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_encoder(str(vit_folder), "image", pooling="cls", untrained=True)
    assert torch.equal(torch.rand(2), expected)
