"""Files that are no SAIL checkpoint, a faulty one, or a dangerous one: refused, in one line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sail_files import State, released, write

from lateen.errors import ModelError
from lateen.model import AlignedModel


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("way", ["torch", "legacy", "pickle", "protocol 4"])
def test_code_in_a_file_is_named_and_not_run(way: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "a.pt", tmp_path / "ran"
    content = {"state_dict": released(), "optimizer": Attack(mark)}
    if way in ("torch", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=way == "torch")
    else:
        path.write_bytes(pickle.dumps(Attack(mark), protocol=2 if way == "pickle" else 4))
    named = "other Python objects" if way == "protocol 4" else r"the Python object posix\.system"
    with pytest.raises(ModelError, match=named) as refused:
        AlignedModel.from_sail_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_objects_of_other_libraries_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released(), optimizer=Path("x"))
    with pytest.raises(ModelError, match=r"the Python object pathlib\.PosixPath"):
        AlignedModel.from_sail_checkpoint(path)


def without(key: str) -> State:
    return {k: v for k, v in released().items() if k != key}


def changed(key: str, value: object) -> State:
    return {**released(), key: value}


NAN = torch.full((6,), float("nan"))
FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: without("text_mapping_network.g.bias"), r"lacks the key 'text_mapping_network\.g\.b"),
    (lambda: without("logit_scale"), "lacks the key 'logit_scale'"),
    (lambda: without("vision_mapping_network.f1.weight"), r"lacks .*'vision_.*f1\.weight'"),
    (
        lambda: {**without("text_layer_norm.bias"), "text_layer_norm.bais": torch.ones(6)},
        r"unknown key 'text_layer_norm\.bais'\. Did you mean 'text_layer_norm\.bias'\?",
    ),
    (lambda: changed("vision_mapping_network.proj.0.bias", NAN), r"unknown key .*proj\.0\.bias'"),
    (
        lambda: changed("text_layer_norm.bias", torch.ones(5)),
        r"'text_l.*bias' has shape \[5\], not",
    ),
    (lambda: changed("vision_mapping_network.f1.weight", NAN), r"shape \[6\], not \[out, in\]"),
    (lambda: changed("vision_mapping_network.g.weight", torch.ones(0, 12)), r"shape \[0, 12\]"),
    (
        lambda: changed("vision_mapping_network.f2.weight", torch.ones(6, 6)),
        r"f2\.weight.*\[12, 6\]",
    ),
    (lambda: changed("vision_mapping_network.f1.weight", torch.ones(11, 6)), "no whole multiple"),
    (lambda: changed("logit_scale", torch.ones(2)), r"'logit_scale' has shape \[2\]"),
    (lambda: changed("text_layer_norm.bias", NAN), r"'text_layer_norm\.bias' has NaN.* earlier"),
    (lambda: changed("logit_scale", 3.0), r"'logit_scale' is no dense float tensor \(float\)"),
    (lambda: changed("logit_bias", torch.tensor([1])), r"'logit_bias' is no .*\(torch\.int64\)"),
    (
        lambda: changed("text_layer_norm.bias", NAN.to_sparse()),
        "'text_layer_norm.bias' is no dense",
    ),
    (lambda: released(widths=(2, 4)), "the width of its heads differs: 2, 4"),
    (
        lambda: changed("text_mapping_network.g.weight", torch.ones(4, 12)),
        "the output length of its heads differs: 3, 4",
    ),
    (dict, "not a SAIL checkpoint: its state_dict has no vision_mapping_network"),
    (lambda: {"visual.proj": torch.ones(3, 3)}, "not a SAIL checkpoint"),
    (lambda: [1], r"has no 'state_dict' \(epoch, name"),
]


@pytest.mark.parametrize(("state", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_fault_is_one_line_that_names_the_file_and_the_key(
    state: Callable[[], object], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.pt", state())
    with pytest.raises(ModelError, match=message) as refused:
        AlignedModel.from_sail_checkpoint(path)
    assert str(path) in refused.value.message
    assert refused.value.remedy
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"no torch file", b"PK\x03\x04 no archive"])
def test_a_file_of_another_kind_is_explained(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be loaded as tensors alone"):
        AlignedModel.from_sail_checkpoint(tmp_path / "a.pt")


def test_a_truncated_file_is_explained(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ModelError, match="damaged"):
        AlignedModel.from_sail_checkpoint(path)


def test_a_bare_tensor_and_an_absent_file_are_explained(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"not a SAIL checkpoint: .* \(Tensor\)"):
        AlignedModel.from_sail_checkpoint(tmp_path / "a.pt")
    with pytest.raises(ModelError, match="there is no file"):
        AlignedModel.from_sail_checkpoint(tmp_path / "b.pt")
