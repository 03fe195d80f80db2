import pytest
from page_reader import Reader
from tune_toys import results

from lateen.tuning.page import tune_figures, write_tune_page

EVIL = "<script>alert(1)</script>"


def page(found, folder) -> Reader:
    return Reader(write_tune_page(found, folder).read_text(encoding="utf-8"))


def test_the_verdict_stands_on_top_of_every_part(tmp_path):
    read = page(results(), tmp_path)

    head, _, body = read.text.partition("What it gained and what it cost")
    assert "tiny-clip tuned to mobilenet-v2" in head
    assert (
        "Gains 4.2 points of 10-NN (encoder; 95 % interval 2.9 to 5.5, 800 images) and 2.1 of "
        "zero-shot top-1, loses nothing measurable in retrieval, 10-NN (embedding) and MMVP-VLM "
        "pairs; stopped at step 90 of 94, step 80 kept." in head
    )
    for words in ("+4.2", "40.0 → 44.2 %; 95 % interval +2.9 to +5.5; 800 images", "0.920",
                  "mean cosine with the start", "33 %", "of the kernel term is left",
                  "Stopped at step 90. Retrieval lost 1.6 points, and 0.5 is the limit.",
                  "These images also decided at which step to stop",
                  "Not measured: no linear probe: eval.linear_probe is false."):  # fmt: skip
        assert words in head, words
    for words in ("Before and after", "Retrieval, each way", "How much the cosine with a text",
                  "The solid line marks step 80", "the dashed one step 90", "student's kernel",
                  "kernel polynomial, gamma 0.0032, coef0 0.191623, degree 3", "residual 0.0041",
                  "setting weight", "zero_shot 0.5, retrieval 0.5", "torch 2.9",
                  "abababababababab…"):  # fmt: skip
        assert words in body, words
    assert "setting patches" not in body  # which is not set
    assert read.tags.count("svg") == 5


def test_the_curves_are_the_checkpoints():
    figures = tune_figures(results())

    assert list(figures) == ["with-texts", "images-alone", "drift", "kernel", "loss"]
    with_texts = figures["with-texts"].axes[0]
    lines = {line.get_label(): line for line in with_texts.lines}
    assert lines["zero-shot top-1"].get_xdata().tolist() == [0, 40, 80, 90]
    assert lines["zero-shot top-1"].get_ydata().tolist() == [0, 1.0, 2.1, 2.2]
    assert list(lines["step 80, kept"].get_xdata()) == [80, 80]
    assert list(lines["step 90, stopped"].get_xdata()) == [90, 90]
    assert len(with_texts.collections) == 3  # the bands
    drift = {line.get_label(): line for line in figures["drift"].axes[0].lines}
    assert drift["mean"].get_ydata().tolist() == pytest.approx([1, 0.96, 0.92, 0.91])
    assert drift["5 % are below"].get_ydata().tolist() == pytest.approx([1, 0.92, 0.84, 0.82])
    kernel = figures["kernel"].axes[0].lines
    assert next(line for line in kernel if line.get_label() == "kernel term").get_ydata()[0] == 1
    loss = {line.get_label() for line in figures["loss"].axes[0].lines}
    assert {"loss", "kernel term", "distance from the start"} <= loss


def test_a_tuning_that_ran_to_its_end_speaks_of_no_stop(tmp_path):
    found = results(stopped=None, kept_step=94, verdict="gains nothing", settings={"stop": None})
    read = page(found, tmp_path)
    assert "topped at" not in read.text
    assert "decided at which step" not in read.text
    assert "step 94, stopped" not in read.text


def test_without_evaluation_data_the_rest_is_there(tmp_path):
    bare = {"step": 0, "measures": {}, "drift": {}, "left_out": [], "beware": []}
    found = results(
        before={}, after={}, drift={}, checkpoints=[bare, {**bare, "step": 80}], verdict="nothing"
    )
    read = page(found, tmp_path)
    assert "of the kernel term is left" in read.text
    assert list(tune_figures(found)) == ["kernel", "loss"]


def test_names_from_outside_are_text(tmp_path):
    found = results(student={"name": EVIL}, conditions={"note": EVIL}, verdict=EVIL)
    read = page(found, tmp_path)
    assert "script" not in read.tags
    assert EVIL in read.text


def test_the_page_names_no_folder_of_the_machine(tmp_path):
    found = results(student={"name": "/home/me/models/tiny-clip"})
    assert "/home/me" not in page(found, tmp_path).text
