import pytest
from tune_toys import check, measure, results, untold

from lateen.tuning.summary import tune_tables, verdict


def said(measures, **other):
    before = check(0)["measures"]
    return verdict(before, measures, **{"kept_step": 80, "steps": 94, **other})


STOPPED = {"step": 90, "why": []}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"knn_encoder": (3.1, 1.25), "retrieval": (-0.4, 1.0)},
            "gains 3.1 points of 10-NN (encoder; 95 % interval 1.9 to 4.3, 800 images), loses "
            "nothing measurable in retrieval",
        ),
        (
            {"knn_encoder": (3.0, 1.0), "zero_shot": (5.0, 1.0), "retrieval": (-2.0, 1.5)},
            "gains 5.0 points of zero-shot top-1 (95 % interval 4.0 to 6.0, 800 images) and 3.0 of "
            "10-NN (encoder), loses 2.0 points of retrieval (95 % interval 0.5 to 3.5, 800 images)",
        ),
        (
            {"knn_encoder": (3.0, 1.0), "zero_shot": (-5.0, 1.0), "mmvp": (2.0, 3.0)},
            "gains 3.0 points of 10-NN (encoder; 95 % interval 2.0 to 4.0, 800 images), loses 5.0 "
            "points of zero-shot top-1 (95 % interval 4.0 to 6.0, 800 images), nothing measurable "
            "changes in MMVP-VLM pairs",
        ),
        (
            {"retrieval": (-2.0, 1.0), "knn_embedding": (1.0, 2.0), "zero_shot": (0.5, 2.0)},
            "gains nothing measurable in zero-shot top-1 and 10-NN (embedding), loses 2.0 points "
            "of retrieval (95 % interval 1.0 to 3.0, 800 images)",
        ),
        (
            {"retrieval": (-2.0, 2.5), "zero_shot": (0.5, 2.0)},
            "gains and loses nothing measurable in zero-shot top-1 and retrieval",
        ),
        (
            {"knn_encoder": (3.0, 1.0)},
            "gains 3.0 points of 10-NN (encoder; 95 % interval 2.0 to 4.0, 800 images), loses "
            "nothing measurable",
        ),
    ],
)  # fmt: skip
def test_the_verdict_names_only_what_is_beyond_chance(changes, sentence):
    after = {name: measure(name, value, half) for name, (value, half) in changes.items()}
    before = {name: check(0)["measures"][name] for name in changes}
    told = verdict(before, after, kept_step=94, steps=94)
    assert told == f"{sentence}; all 94 steps done"


def test_a_part_and_a_cosine_are_no_gain():
    after = {
        "text_to_image.R@1": measure("text_to_image.R@1", 9),
        "mmvp_cosine": measure("mmvp_cosine", -0.5, 0.1),
    }
    assert verdict(after, after, kept_step=94, steps=94) == (
        "gains and losses were not measured; all 94 steps done"
    )


@pytest.mark.parametrize(
    ("how", "end"),
    [
        ({"stopped": STOPPED}, "stopped at step 90 of 94, step 80 kept"),
        ({"kept_step": 80}, "step 80 of 94 kept"),
        ({"kept_step": 94}, "all 94 steps done"),
    ],
)
def test_where_it_ended(how, end):
    assert said(check(80)["measures"], **how).endswith(f"; {end}")


def test_where_no_checkpoint_held_the_start_is_kept():
    assert said(check(0)["measures"], kept_step=0, stopped=STOPPED) == (
        "keeps the model as it was: stopped at step 90 of 94, as no checkpoint held"
    )


def test_what_cannot_be_compared_is_said():
    after = {"zero_shot": measure("zero_shot", 4.0), "retrieval": untold("retrieval")}
    before = {name: check(0)["measures"][name] for name in ("zero_shot", "retrieval", "mmvp")}
    told = verdict(before, after, kept_step=80, steps=94, stopped=STOPPED)
    assert "loses nothing measurable, cannot be compared in retrieval and MMVP-VLM pairs;" in told


def test_the_tables_have_every_number_with_its_interval():
    main, ways, moved, texts = tune_tables(results())

    cells = main.cells()
    rows = {row[0]: (row, below) for row, below in zip(cells[::2], cells[1::2], strict=True)}
    knn, interval = rows["10-NN, encoder"]
    assert knn == ["10-NN, encoder", "+4.2", "gain", "40.0", "44.2", "800", "10.0"]
    assert interval == ["95 % interval", "+2.9 to +5.5", "", "37.0–43.0", "41.2–47.2", "", ""]
    assert rows["retrieval"][0][1:3] == ["−0.4", "nothing measurable"]
    cosine, interval = rows["cosine within MMVP-VLM's pairs"]
    assert cosine[1:5] == ["−0.100", "nothing measurable", "0.900", "0.800"]
    assert main.reference == [1, 3, 5, 7, 9, 11]
    assert [row[0] for row in ways.rows] == ["text → image R@1", "95 % interval"]
    assert moved.cells()[0] == ["cosine", "0.9200", "0.6800", "0.7600", "0.8400", "0.9200", "–"]
    assert [row[0] for row in texts.rows] == [
        "bound, for any text", "largest change measured", "measured / bound"
    ]  # fmt: skip
    for table in (main, ways, moved, texts):
        assert table.markdown()


def test_a_bound_that_did_not_hold_is_told():
    found = results()
    found["drift"] = {**found["drift"], "violations": 3, "lost": 2}
    *_, moved, texts = tune_tables(found)
    assert "2 images have none any more" in moved.note
    assert "3 images are above the bound, which is a mistake in lateen" in texts.note


def test_a_measure_that_is_gone_or_not_comparable_has_no_difference():
    found = results()
    after = {"zero_shot": untold("zero_shot")}
    main = next(iter(tune_tables({**found, "after": after})))
    rows = {row[0]: row for row in main.cells()}
    assert rows["zero-shot top-1"][1:3] == ["+1.0", "not comparable"]
    assert rows["10-NN, encoder"][1:5] == ["–", "not comparable", "40.0", "–"]


def test_without_data_there_are_no_tables():
    assert list(tune_tables({**results(), "before": {}, "after": {}, "drift": {}})) == []
