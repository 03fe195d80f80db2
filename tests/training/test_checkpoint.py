from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.errors import TrainingError
from lateen.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.optim import build_optimizer
from lateen.training.trainable import Trainable

IDENTITY = {"train": {"lr": 0.001, "batch": 4}, "data": {"pairs": "a" * 64, "validation": None}}


def checkpoint(**values: Any) -> Checkpoint:
    heads = {"vision.norm.weight": torch.arange(3.0), "logit_scale": torch.tensor(2.5)}
    best = {name: tensor + 1 for name, tensor in heads.items()}
    fields: dict[str, Any] = {
        "identity": IDENTITY, "step": 7, "finished": False, "best_step": 5,
        "best_metrics": {"text_to_image": {"R@10": 12.5}}, "heads": heads, "best": best,
        "optimizer": {"0.step": torch.tensor(7.0)},
    }  # fmt: skip
    return Checkpoint(**{**fields, **values})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", checkpoint())
    loaded = load_checkpoint(tmp_path / "c", IDENTITY)
    assert loaded is not None
    for name in ("identity", "step", "finished", "best_step", "best_metrics"):
        assert getattr(loaded, name) == getattr(checkpoint(), name)
    for group in ("heads", "best", "optimizer"):
        torch.testing.assert_close(getattr(loaded, group), getattr(checkpoint(), group))


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", checkpoint())
    save_checkpoint(tmp_path / "b", checkpoint(heads=dict(reversed(checkpoint().heads.items()))))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "c", IDENTITY) is None


def test_other_settings_and_data_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", checkpoint())
    wanted = {"train": {"lr": 0.002, "batch": 4}, "data": {"pairs": "b" * 64, "validation": None}}
    with pytest.raises(TrainingError) as caught:
        load_checkpoint(tmp_path / "c", wanted)
    assert "train.lr: 0.001 there, 0.002 now" in caught.value.message
    assert "data.pairs: aaaaaaaaaaaa… there, bbbbbbbbbbbb… now" in caught.value.message
    assert "batch" not in caught.value.message
    assert "--out" in caught.value.remedy


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c"
    save_checkpoint(path, checkpoint())
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-4], "foreign": b"PK" + whole, "empty": b""}[damage])
    with pytest.raises(TrainingError, match="not a whole training checkpoint"):
        load_checkpoint(path, IDENTITY)


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"features": torch.zeros(2)}, tmp_path / "c")
    with pytest.raises(TrainingError, match="not a whole training checkpoint"):
        load_checkpoint(tmp_path / "c", IDENTITY)


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_a_restored_optimizer_goes_on_exactly(name: str) -> None:
    settings = TrainSection.model_validate({"optimizer": name})

    def start() -> tuple[AlignmentHeads, torch.optim.Optimizer]:
        torch.manual_seed(0)
        heads = AlignmentHeads(HeadSection(dropout=0.0, name="glu", dim=4), 5, 6)
        return heads, build_optimizer(heads, settings)

    def step(heads: AlignmentHeads, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for p in heads.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()

    heads, optimizer = start()
    step(heads, optimizer, 1)
    saved = {key: tensor.clone() for key, tensor in optimizer_tensors(optimizer).items()}
    weights = {key: tensor.clone() for key, tensor in heads.state_dict().items()}
    step(heads, optimizer, 2)

    other, restored = start()
    other.load_state_dict(weights)
    restore_optimizer(restored, saved)
    step(other, restored, 2)
    assert all(map(torch.equal, heads.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_a_restored_optimizer_of_a_convolution_with_channels_last_goes_on_exactly(
    name: str, tmp_path: Path
) -> None:
    settings = TrainSection.model_validate({"optimizer": name, "lr": 0.1})

    class Convolution(Trainable):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.network = torch.nn.Conv2d(3, 4, 2)
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(module: Convolution, optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for p in module.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator))
        optimizer.step()

    module, plain = Convolution(), Convolution()
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimizer, others = build_optimizer(module, settings), build_optimizer(plain, settings)
    step(module, optimizer, 1)
    state = Checkpoint(IDENTITY, 1, False, 0, None, module.state_dict(),
                       optimizer=optimizer_tensors(optimizer))  # fmt: skip
    save_checkpoint(tmp_path / "c", state)
    step(module, optimizer, 2)
    for seed in (1, 2):
        step(plain, others, seed)
    assert torch.equal(module.network.weight, plain.network.weight)

    saved, other = load_checkpoint(tmp_path / "c", IDENTITY), Convolution()
    assert saved is not None
    restored = build_optimizer(other, settings)
    other.load_state_dict(saved.heads)
    restore_optimizer(restored, saved.optimizer)
    step(other, restored, 2)
    assert torch.equal(other.network.weight, module.network.weight)
