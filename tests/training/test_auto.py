import pytest

from lateen.training.auto import MANY, TrainingSize, suited
from lateen.training.config import PRESETS, HeadSection, TrainSection


def size(images: int, **changes: int) -> TrainingSize:
    values = {"captions": 5 * images, "image_dim": 1280, "text_dim": 384, **changes}
    return TrainingSize(images, **values)


def test_fewer_pairs_get_larger_ridges_and_more_of_the_closed_form() -> None:
    few, many = (suited(HeadSection(), TrainSection(), size(n))[1] for n in (300, 5400))
    assert few.cca is not None and many.cca is not None
    assert few.cca > many.cca > 0
    assert few.cca_ridge == (17.0, 2.0)
    assert many.cca_ridge == (0.95, 0.11)


def test_ridges_go_by_features_and_rows() -> None:
    _, one, _ = suited(HeadSection(), TrainSection(), size(1000))
    _, other, _ = suited(HeadSection(), TrainSection(), size(1000, image_dim=640, captions=1000))
    assert one.cca_ridge is not None and other.cca_ridge is not None
    assert other.cca_ridge[0] == pytest.approx(one.cca_ridge[0] / 2, rel=0.05)
    assert other.cca_ridge[1] == pytest.approx(one.cca_ridge[1] * 5, rel=0.05)


def test_what_the_user_gives_stands_above_what_is_chosen() -> None:
    head = HeadSection(dropout=0.1)
    train = TrainSection.model_validate({"cca": 0.3, "lr": 1e-3})
    suited_head, suited_train, told = suited(head, train, size(300))
    assert (suited_head.dropout, suited_head.text_dropout) == (0.1, 0.1)
    assert (suited_train.cca, suited_train.lr) == (0.3, 1e-3)
    assert suited_train.cca_ridge == (17.0, 2.0)
    assert "cca_ridge 17.0 / 2.0" in told
    assert "train.cca 0.3" not in told and "dropout" not in told


def test_what_was_chosen_is_told_with_its_reason() -> None:
    told = suited(HeadSection(), TrainSection(), size(300))[2]
    assert "300 images with 1,500 captions" in told and "docs/results.md" in told
    assert "not measured" not in told
    assert "not measured" in suited(HeadSection(), TrainSection(), size(30_000))[2]


def test_what_is_chosen_once_is_not_chosen_again() -> None:
    head, train, _ = suited(HeadSection(), TrainSection(), size(300))
    again = suited(head, train, size(5000))
    assert again[:2] == (head, train)
    assert "all that it chooses is given" in again[2]


def test_between_what_was_measured_and_millions_regularisation_falls() -> None:
    heads = [suited(HeadSection(), TrainSection(), size(n))[0] for n in (6000, 60_000, MANY - 1)]
    assert heads[0].dropout > heads[1].dropout > heads[2].dropout == 0
    head, train, _ = suited(HeadSection(), TrainSection(), size(MANY))
    assert head.name == PRESETS["sail"]["head"]["name"]
    assert train.batch == PRESETS["sail"]["train"]["batch"]


def test_long_features_have_no_closed_form_unless_asked() -> None:
    _, train, told = suited(HeadSection(), TrainSection(), size(300, image_dim=8192))
    assert (train.cca, train.cca_ridge) == (0.0, None)
    assert "train.cca 0.0 (the closed form takes features of up to 4,096 values)" in told


def test_a_ridge_that_nobody_gave_is_not_in_the_key_of_a_training() -> None:
    assert "cca_ridge" not in TrainSection().model_dump(mode="json")
    given = TrainSection(cca_ridge=(2.0, 0.1)).model_dump(mode="json")
    assert given["cca_ridge"] == [2.0, 0.1]
    assert "seed" not in TrainSection().model_dump(mode="json", exclude={"seed"})
