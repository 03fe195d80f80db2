import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from lateen.config import keys_of
from lateen.errors import UsageError
from lateen.report.tables import signed
from lateen.tuning.checks import EvalSection, Stop


def measure(value: float, interval: list[float] | None, told: bool | None) -> dict[str, Any]:
    return {
        "label": "zero-shot top-1", "value": 50.0 + value, "interval": [45, 55], "n": 100,
        "of": "images", "chance": 10.0,
        "difference": {"value": value, "interval": interval, "told": told},
    }  # fmt: skip


def check(**measures: dict[str, Any]) -> dict[str, Any]:
    return {"step": 20, "measures": measures, "left_out": ["no retrieval: not given"]}


def test_a_loss_beyond_the_limit_is_told_with_how_sure_it_is():
    stop = Stop(zero_shot=0.5)
    sure = check(zero_shot=measure(-1.2, [-2.0, -0.4], True))
    unsure = check(zero_shot=measure(-1.2, [-3.0, 0.6], False))

    assert not stop.held(sure)
    assert stop.broken(sure) == [
        "Zero-shot top-1 lost 1.2 points, and 0.5 is the limit (95 % interval of the difference "
        "−2.0 to −0.4: more than other images would explain)."
    ]
    assert "−3.0 to +0.6: other images may explain it" in stop.broken(unsure)[0]


@pytest.mark.parametrize("value", [2.0, 0.0, -0.5])
def test_up_to_its_limit_a_measure_holds(value):
    assert Stop(zero_shot=0.5).held(check(zero_shot=measure(value, [-1, 1], False)))


def test_without_a_limit_anything_holds():
    assert Stop().held(check(zero_shot=measure(-40, [-50, -30], True)))
    assert Stop().limits == {}


@pytest.mark.parametrize(
    ("measures", "sentence"),
    [
        ({}, "zero_shot could not be measured."),
        ({"zero_shot": measure(float("nan"), None, None)}, "lost nan points"),
        ({"zero_shot": measure(-3, None, None)}, "not the same images were measured"),
    ],
)
def test_what_cannot_be_told_does_not_hold(measures, sentence):
    [said] = Stop(zero_shot=0.5).broken(check(**measures))
    assert sentence in said


def test_a_limit_on_what_is_not_measured_is_an_error_at_the_start():
    start = check(zero_shot=measure(0, [0, 0], False))
    Stop(zero_shot=1).require(start)
    with pytest.raises(UsageError, match=r"stop\.retrieval is a limit on what is not") as error:
        Stop(zero_shot=1, retrieval=0.5).require(start)
    assert "no retrieval: not given" in error.value.message
    assert "eval.captions and eval.images" in error.value.remedy
    assert "zero_shot" in error.value.remedy
    with pytest.raises(UsageError) as error:
        Stop(mmvp=2).require(check())
    assert error.value.remedy == "Give its data (eval.mmvp)."


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf"), "much"])
def test_a_limit_is_no_number_of_points(limit):
    with pytest.raises(ValidationError):
        Stop(zero_shot=limit)


def test_every_key_is_explained():
    for section in (EvalSection, Stop):
        for key in keys_of(section):
            assert key.meaning, key.path
            assert key.kind in ("text", "number", "whole number", "true | false"), key


def test_settings_are_read_without_torch():
    code = "import sys, lateen.tuning.checks; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_differences_have_their_sign():
    assert [signed(v) for v in (1.25, -0.44, 0.04, -0.04)] == ["+1.2", "−0.4", "0.0", "0.0"]
