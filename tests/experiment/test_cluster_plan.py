import json
from pathlib import Path
from typing import Any

import pytest
from test_run import recipe

import lateen
from lateen.errors import UsageError
from lateen.experiment import Recipe
from lateen.experiment.planning import ClusterTerms, StatedData, plan_cluster, training

PAPER = Recipe.load(Path("sail-dinov2-l-nv2-23m"))
MERGE = StatedData(23_000_000, image_dim=2048, text_dim=4096)
A100 = {"images_per_second": 830.0, "texts_per_second": (170.0, 25.0), "training_hours": 5.0}


def items(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["item"]: item for item in result["items"]}


def test_the_papers_numbers_come_out_of_what_is_stated() -> None:
    result = plan_cluster(PAPER, ClusterTerms(64, 2.0, restart_minutes=0), MERGE, **A100)
    assert json.loads(json.dumps(result)) == result
    assert list(items(result)) == ["encode images", "encode raw", "encode hq", "train the heads"]
    hours = {name: round(item["gpu_hours"], 1) for name, item in items(result).items()}
    assert list(hours.values()) == [7.7, 37.6, 255.6, 5.0]
    total = result["total"]
    assert total["bytes"] == 23_000_000 * (2048 + 2 * 4096) * 2  # 471 GB
    assert total["gpu_hours"] == pytest.approx(sum(each["gpu_hours"] for each in result["items"]))
    assert total["dollars"] == pytest.approx(2 * total["gpu_hours"])
    assert (total["failures"], total["lost_gpu_hours"]) == (0, 0)
    assert "no GPU fails" in result["assumed"]
    assert items(result)["encode hq"]["seconds"] == 44 * 8192 / 25  # slices are whole shards


def test_failures_cost_what_more_is_paid() -> None:
    never, often = (
        plan_cluster(PAPER, ClusterTerms(64, 2.0, hours), MERGE, **A100)["total"]
        for hours in (None, 8.0)
    )
    assert often["failures"] > 30
    assert often["gpu_hours"] == pytest.approx(never["gpu_hours"] + often["lost_gpu_hours"])
    assert often["seconds"] > never["seconds"]


def test_actors_are_paid_until_the_last_has_ended() -> None:
    result = plan_cluster(PAPER, ClusterTerms(64, 2.0, 24.0, on="ray"), MERGE, **A100)
    for item in result["items"]:
        assert item["gpu_hours"] == pytest.approx(item["seconds"] * item["gpus"] / 3600)


def test_what_is_not_given_is_said_and_left_out() -> None:
    result = plan_cluster(
        PAPER, ClusterTerms(5000), MERGE, images_per_second=830.0, texts_per_second=(25.0,)
    )
    assert "train the heads" not in items(result)
    assert "training (its hours were not given)" in result["not_included"]
    assert result["total"]["dollars"] is None
    assert items(result)["encode raw"]["rate"] == items(result)["encode hq"]["rate"] == 25
    assert "encode hq: shards for 2808 of 5000 GPUs" in result["assumed"]
    assert "a start takes 10 min, the first as any other" in result["assumed"]


def test_a_column_may_have_several_captions_an_image() -> None:
    data = StatedData(1000, 8, 4, captions_per_image=(1.0, 2.5))
    counts = {name: item["count"] for name, item in
              items(plan_cluster(PAPER, ClusterTerms(2), data, **A100)).items()}  # fmt: skip
    assert (counts["encode raw"], counts["encode hq"]) == (1000, 2500)


def test_what_is_planned_here_is_taken_where_nothing_is_given(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_STEPS", 2)
    monkeypatch.setattr(training, "_ENOUGH", 0.0)
    checked = Recipe.of(recipe(album))
    planned = lateen.plan(checked)
    terms = ClusterTerms(2, restart_minutes=0)
    here = plan_cluster(checked, terms, planned)
    images, captions, heads = here["items"]
    [planned_images] = [each for each in planned["items"] if each["item"] == "encode train images"]
    assert images["item"] == "encode train images"
    assert images["rate"] == pytest.approx(24 / planned_images["seconds"])
    assert captions["count"] == 48
    seconds = planned["seconds"]
    assert heads["seconds"] == pytest.approx(seconds["train"] + seconds["evaluate"])
    assert here["total"]["bytes"] == planned["disk"]["total"]
    assert "rates that are not given are those of this machine" in here["assumed"]
    given = plan_cluster(
        checked, terms, planned, images_per_second=6.0, texts_per_second=(4.0,), training_hours=3.0
    )
    assert [item["gpu_hours"] * 3600 for item in given["items"]] == pytest.approx([4, 12, 3 * 3600])
    assert not any("this machine" in sentence for sentence in given["assumed"])
    with pytest.raises(UsageError, match="gpu_texts_per_second has 2 numbers"):
        plan_cluster(checked, terms, planned, texts_per_second=(4.0, 2.0))


FAILING = [
    (0.15, "encode images never finishes: a GPU fails after 9 min on average, before a restart of "
     "10 min and the 0.041 min until anything new is on disk are over"),
    (0.5, "train the heads never finishes: a GPU fails after 30 min on average"),
]  # fmt: skip


@pytest.mark.parametrize(("hours", "message"), FAILING)
def test_gpus_that_fail_before_anything_is_on_disk_never_finish(hours: float, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_cluster(PAPER, ClusterTerms(64, None, hours), MERGE, **A100)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": 1, "price": -2.0}, "price_per_gpu_hour is -2"),
        ({"gpus": 1, "hours_to_failure": 0.0}, "hours_to_failure is 0"),
        ({"gpus": 1, "restart_minutes": -1.0}, "restart_minutes is -1"),
        ({"gpus": 1, "restart_minutes": float("nan")}, "restart_minutes is nan"),
    ],
)
def test_terms_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClusterTerms(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"texts_per_second": ()}, "gpu_texts_per_second is not given"),
        ({"images_per_second": None}, "gpu_images_per_second is not given"),
        ({"texts_per_second": (1.0, 2.0, 3.0)}, r"has 3 numbers for 2 caption columns \(raw, hq\)"),
        ({"texts_per_second": (1.0, 0.0)}, "texts_per_second is 0"),
        ({"training_hours": -5.0}, "training_hours is -5"),
    ],
)
def test_rates_that_are_missing_or_wrong_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_cluster(PAPER, ClusterTerms(64), MERGE, **{**A100, **wrong})


def test_captions_of_an_encoder_that_is_trained_cannot_be_stated() -> None:
    text = PAPER.text.model_copy(update={"train": True})
    with pytest.raises(UsageError, match=r"text\.train"):
        plan_cluster(PAPER.model_copy(update={"text": text}), ClusterTerms(64), MERGE, **A100)
