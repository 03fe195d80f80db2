"""Embeddings that are on disk already, made by nobody knows what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark_toys import BlindEncoder, PaletteEncoder, check_intervals
from labelled_toys import class_folder

from lateen.data import open_dataset
from lateen.errors import DataError, PairingError
from lateen.evaluation import evaluate_embeddings
from lateen.features import Store, encode, import_features
from lateen.metrics import retrieval


def store(
    path: Path, rows: np.ndarray, ids: list[str], modality: str, encoder: str = "mine"
) -> Store:
    np.save(path.with_suffix(".npy"), rows.astype(np.float32))
    return import_features(
        path.with_suffix(".npy"), path, ids=ids, modality=modality, encoder=encoder, dtype="float32"
    )  # type: ignore[arg-type]


@pytest.fixture
def embeddings(tmp_path: Path) -> tuple[Store, Store]:
    """Twelve images and two texts of each, in another order and of other lengths."""
    generator = np.random.default_rng(0)
    image = generator.normal(size=(12, 5))
    owner = generator.permutation(np.repeat(np.arange(12), 2))
    text = 3 * image[owner] + generator.normal(size=(24, 5))
    ids = [f"{i}.jpg" for i in range(12)]
    return (
        store(tmp_path / "i", image, ids, "image"),
        store(tmp_path / "t", text, [ids[i] for i in owner], "text"),
    )


def test_retrieval_is_that_of_the_embeddings_joined_by_id(embeddings: tuple[Store, Store]) -> None:
    image, text = embeddings
    result = evaluate_embeddings(image, text)
    owner = torch.tensor([image.ids.index(i) for i in text.ids])
    expected = retrieval(F.normalize(image[:], dim=1), F.normalize(text[:], dim=1), owner)
    assert {way: result[way] for way in expected} == expected
    assert (result["images"], result["captions"]) == (12, 24)
    check_intervals(result)
    assert evaluate_embeddings(image.path, text.path, per_image=1)["captions"] == 12


def test_classes_are_texts_with_their_names_as_ids(tmp_path: Path) -> None:
    """Two prompts of `up` average to (0, 1); the third image lies nearer to the wrong class."""
    image = store(
        tmp_path / "i", np.array([[0, 2.0], [3, 1], [2, 3], [1, 1]]), list("abcd"), "image"
    )
    prompts = np.array([[0.6, 0.8], [1, 0], [-0.6, 0.8]])
    text = store(tmp_path / "t", prompts, ["up", "right", "up"], "text")
    (tmp_path / "l.csv").write_text("id,label\na,up\nb,right\nc,right\nz,up\n")
    result = evaluate_embeddings(image, text, labels=tmp_path / "l.csv")
    assert result["top1"] == pytest.approx(200 / 3)
    assert result["per_class"] == {"up": 100, "right": 50}
    assert (result["images"], result["unlabelled"], result["classes"]) == (3, 1, 2)
    (tmp_path / "l.csv").write_text("id,label\na,down\n")
    with pytest.raises(DataError, match="the label 'down' is no class among the texts"):
        evaluate_embeddings(image, text, labels=tmp_path / "l.csv")
    (tmp_path / "l.csv").write_text("id,label\na,up\na,right\n")
    with pytest.raises(DataError, match="of 'a' that it is 'up' and 'right'"):
        evaluate_embeddings(image, text, labels=tmp_path / "l.csv")
    (tmp_path / "l.csv").write_text("id,label\nx,up\n")
    with pytest.raises(DataError, match="none of the 4 images"):
        evaluate_embeddings(image, text, labels=tmp_path / "l.csv")


def test_embeddings_of_two_spaces_are_refused(
    embeddings: tuple[Store, Store], tmp_path: Path
) -> None:
    image, _ = embeddings
    other = store(tmp_path / "o", np.ones((12, 7)), image.ids, "text")
    with pytest.raises(PairingError, match=r"5 values and the texts' 7"):
        evaluate_embeddings(image, other)


def test_classes_of_one_data_set_are_the_same_data_for_every_model(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "images", ["red", "green"], count=2)
    encoders = [PaletteEncoder(), BlindEncoder()]
    stores = [encode(open_dataset(str(folder)), e, tmp_path / str(i))
              for i, e in enumerate(encoders)]  # fmt: skip
    text = store(tmp_path / "t", np.eye(2, stores[0].dim), ["red", "green"], "text")
    labels = tmp_path / "l.csv"
    labels.write_text("id,label\n" + "".join(f"{i},{i.split('/')[0]}\n" for i in stores[0].ids))
    one, two = (evaluate_embeddings(s, text, labels=labels)["conditions"] for s in stores)
    assert one["data"] == two["data"]
    assert one["model"] != two["model"]
    labels.write_text(labels.read_text().replace(",red", ",green"))
    assert evaluate_embeddings(stores[0], text, labels=labels)["conditions"]["data"] != one["data"]


def test_imported_embeddings_are_told_apart_by_who_made_them(tmp_path: Path) -> None:
    rows, ids = np.eye(3), list("abc")
    text = store(tmp_path / "t", rows, ids, "text")
    images = [store(tmp_path / name, rows, ids, "image", name) for name in ("clip", "siglip")]
    one, two = (evaluate_embeddings(image, text)["conditions"]["model"] for image in images)
    assert one != two
