"""The loop trains whatever embeds what a source yields: here pixels, through a small tower."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lateen.training import loop
from lateen.training.batches import Batch, BatchRows
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.loop import TrainResult, fit
from lateen.training.step import StepParts, TrainState, add_gradients

IMAGES, STEPS = 12, 6


@dataclass(frozen=True)
class Pictures:
    """Which pictures a part holds."""

    numbers: Tensor
    rows: BatchRows


class PixelSource:
    """Pictures drawn from their number when they are asked for, with a feature for each text."""

    def __init__(self, micro: int = IMAGES) -> None:
        self.steps, self._micro = STEPS, micro
        self.drawn = 0

    def epoch(self, step: int) -> int:
        return step

    def rows(self, step: int) -> Sequence[BatchRows]:
        starts = range(0, IMAGES, self._micro)
        return [BatchRows(0, step, i, min(self._micro, IMAGES - i)) for i in starts]

    def parts(self, step: int) -> Sequence[Pictures]:
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(step))
        return [Pictures(order[r.first : r.first + r.count], r) for r in self.rows(step)]

    def stream(self, parts: Iterable[Pictures]) -> Generator[Batch]:
        for part in parts:
            self.drawn += len(part.numbers)
            yield Batch(pixels(part.numbers), [words(part.numbers)], part.rows)


def pixels(numbers: Tensor) -> Tensor:
    """``[n, 3, 4, 4]`` in bytes, as decoded pictures are."""
    drawn = [
        torch.randint(256, (3, 4, 4), generator=torch.Generator().manual_seed(int(n)))
        for n in numbers
    ]
    return torch.stack(drawn).to(torch.uint8)


def words(numbers: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(numbers, IMAGES).float()


class PixelTower(nn.Module):
    """Pixels to embeddings: a convolution that is trained, then the head."""

    whole_batch = False

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.network = nn.Conv2d(3, 5, 4)
        self.head = head

    def forward(self, images: Tensor, rows: BatchRows | None = None) -> Tensor:
        features = self.network(images.to(self.network.weight.dtype) / 255).flatten(1)
        embeddings: Tensor = self.head(features, rows)
        return embeddings


def module(**head: Any) -> AlignmentHeads:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = {"name": "linear", "dim": 6, "dropout": 0.3, **head}
        heads = AlignmentHeads(HeadSection.model_validate(values), 5, IMAGES)
        heads.vision = PixelTower(heads.vision)
    return heads


def section(**values: Any) -> TrainSection:
    return TrainSection.model_validate(
        {"precision": "float32", "lr": 0.01, "checkpoints": STEPS, **values}
    )


def trained(out: Path, source: PixelSource, **values: Any) -> TrainResult:
    return fit(module, lambda: source, section(**values), out, identity={"data": {"pixels": "v1"}})


@pytest.mark.parametrize("loss", ["sigmoid", "infonce"])
def test_pixels_in_parts_have_the_gradient_of_the_plain_loss(loss: str) -> None:
    settings = section(loss=loss)
    plain = module(dropout=0.0).double()
    [whole] = PixelSource().stream(PixelSource().parts(0))
    image = plain.embed_image(whole.image)
    text = plain.embed_text(whole.texts[0].double())
    expected = plain.loss(image, [text], settings)
    expected.backward()  # type: ignore[no-untyped-call]
    heads = module(dropout=0.0).double()
    source = PixelSource(micro=5)
    parts = [
        Batch(b.image, [t.double() for t in b.texts], b.rows)
        for b in source.stream(source.parts(0))
    ]
    loss_of_parts = add_gradients(heads, StepParts.of(parts), settings)
    torch.testing.assert_close(loss_of_parts, expected.detach())
    wanted = dict(plain.named_parameters())
    for name, parameter in heads.named_parameters():
        if wanted[name].grad is not None:
            torch.testing.assert_close(parameter.grad, wanted[name].grad)
    assert heads.vision.network.weight.grad.abs().max() > 0


def test_a_tower_on_pixels_is_trained_killed_and_resumed_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tmp_path / "whole", PixelSource(micro=5))
    step = loop.training_step

    def interrupted(state: TrainState, *rest: Any) -> Mapping[str, float]:
        if state.step == 4:
            raise KeyboardInterrupt
        return step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut", PixelSource(micro=5))
    again = trained(tmp_path / "cut", source := PixelSource(micro=5))
    assert again.resumed_from == 4
    assert source.drawn == 2 * 2 * IMAGES  # two steps, each gone over twice
    expected = whole.heads.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in again.heads.state_dict().items())
    assert not torch.equal(expected["vision.network.weight"], module().vision.network.weight)
    finished = trained(tmp_path / "cut", untouched := PixelSource())
    assert (finished.skipped, untouched.drawn) == (True, 0)


def test_a_step_refuses_the_batch_of_another() -> None:
    source = PixelSource()
    batches = source.stream(source.parts(1))
    with pytest.raises(RuntimeError, match="first pass of step 0"):
        add_gradients(module(), StepParts(source.rows(0), batches), section())
