from __future__ import annotations

import json
from pathlib import Path

import dense_toys
import numpy as np
import pytest
import torch
from benchmark_toys import check_intervals
from dense_toys import Collapsed, stripes
from PIL import Image

from lateen.errors import DataError, UsageError
from lateen.evaluation import TASKS
from lateen.evaluation.tasks.patch_probe import linear_multilabel, patch_labels


def test_classes_of_cells_by_hand() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 2, 1, 9], [3, 3, 3, 3], [3, 3, 3, -1]])
    cells = patch_labels(labels, 2, 4)
    assert [torch.nonzero(cell).flatten().tolist() for cell in cells] == [[0, 2], [1], [3], [3]]


def test_only_the_middle_square_counts() -> None:
    labels = np.array([[7, 0, 1, 7], [7, 2, 3, 7]])
    assert patch_labels(labels, 2, 8).int().argmax(1).tolist() == [0, 1, 2, 3]
    assert patch_labels(labels.T, 2, 8).int().argmax(1).tolist() == [0, 2, 1, 3]
    assert patch_labels(labels, 2, 8).sum() == 4


def test_cells_need_not_divide_the_mask() -> None:
    cells = patch_labels(np.arange(25).reshape(5, 5), 2, 25)
    assert torch.nonzero(cells[0]).flatten().tolist() == [0, 1, 5, 6]
    assert cells.sum() == 25


def test_a_linear_layer_learns_what_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 8, generator=generator)
    train, test = (torch.randn(n, 8, generator=generator) * 5 + 2 for n in (2000, 500))
    found = linear_multilabel(train.half(), train @ weight.T > 3, test)
    assert (found == (test @ weight.T > 3)).float().mean() > 0.95
    assert torch.equal(found, linear_multilabel(train.half(), train @ weight.T > 3, test))


def test_constant_features_say_what_most_rows_have() -> None:
    labels = torch.tensor([[True, False]] * 7 + [[False, True]] * 3)
    assert (
        linear_multilabel(torch.ones(10, 4), labels, torch.ones(2, 4)).tolist()
        == [[True, False]] * 2
    )


def probe(places: dict[str, Path], vision: object | None = None, **options: object):  # type: ignore[no-untyped-def]
    given = {**places, "window": 32, **options}
    result = TASKS["patch-probe"].measure(dense_toys.model(vision), given)
    assert json.loads(json.dumps(result)) == result
    return result


def test_colours_are_read_out_of_patches(tmp_path: Path) -> None:
    places = stripes(tmp_path, count=24)
    result = probe(places)
    assert (result["images"], result["images_tested"], result["grid"]) == (24, 5, 8)
    assert result["local"]["macro_recall"] == pytest.approx(100)
    assert result["local"]["macro_precision"] == pytest.approx(100)
    assert result["local"]["baseline"]["macro_recall"] == 0
    assert result["local"]["rows_tested"] == 5 * 64
    assert result["global"]["rows"] == 19
    check_intervals(result)
    assert probe(places) == result
    assert probe(places, seed=1)["local"]["rows"] == result["local"]["rows"]


def test_features_that_have_collapsed_do_no_better_than_the_baseline(tmp_path: Path) -> None:
    result = probe(stripes(tmp_path, count=12), Collapsed())
    for kind in ("local", "global"):
        assert result[kind]["macro_recall"] == result[kind]["baseline"]["macro_recall"]


def test_patches_and_images_without_labels_are_left_out(tmp_path: Path) -> None:
    places = stripes(tmp_path, count=4)
    half = np.full((32, 64), 255, np.uint8)
    Image.fromarray(half).save(places["masks"] / "0.png")
    half[:, 16:32] = 1
    for name in ("1", "2", "3"):
        Image.fromarray(half).save(places["masks"] / f"{name}.png")
    result = probe(places)
    assert [skip["id"] for skip in result["skips"]] == ["0"]
    assert (result["local"]["rows"], result["local"]["rows_tested"]) == (2 * 32, 32)


@pytest.mark.parametrize("share", [0.0, 1.0, -1])
def test_a_share_that_leaves_nothing(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="cannot be held out"):
        probe(stripes(tmp_path), holdout=share)


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 1 images of .* can be used, and a probe needs two"):
        probe(stripes(tmp_path, count=1))


def test_bare_patches_are_probed_where_the_pooling_has_none(
    vit_folder: Path,
) -> None:
    from lateen.encoders import load_encoder
    from lateen.evaluation.tasks.patch_probe import _with_patches

    pooled = load_encoder(str(vit_folder), "image", pooling="pooler")
    assert _with_patches(pooled).info.pooling == "mean"
    both = load_encoder(str(vit_folder), "image", pooling="cls+mean")
    assert _with_patches(both) is both


def test_pixels_that_are_not_counted_are_told(tmp_path: Path) -> None:
    places = stripes(tmp_path)
    labels = np.asarray(Image.open(places["masks"] / "0.png")).copy()
    labels[0, :10], labels[1, :4] = 255, 77
    Image.fromarray(labels).save(places["masks"] / "0.png")
    result = probe(places)
    assert (result["ignored_pixels"], result["unknown_indices"]) == (10, {"77": 4})


def test_no_image_that_can_be_used_names_the_first(tmp_path: Path) -> None:
    places = stripes(tmp_path)
    for path in places["images"].iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"0 of 3 images .*\(the first left out: 0: the file is em"):
        probe(places)


def test_of_a_ready_clip_the_bare_patches_are_probed(tmp_path: Path, clip_folder: Path) -> None:
    import lateen

    result = lateen.evaluate(clip_folder, "patch-probe", **stripes(tmp_path), holdout=0.5)
    assert (result["pooling"], result["images"], result["grid"]) == ("mean", 3, 2)
