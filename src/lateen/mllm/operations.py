"""Floating point operations of a stage, by the usual count: two for each weight and token of a
forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_EACH = 2  # operations of a weight and a token: a product and a sum


@dataclass(frozen=True)
class Weights:
    """How many weights a token goes through in a part of a model, and how many of them learn."""

    all: int
    learn: int

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter]) -> Weights:
        """Of parameters."""
        every = list(parameters)
        return cls(sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad))

    def step(self, tokens: float, *, again: bool = False) -> float:
        """Operations of a training step.

        As many as of the forward pass are those of the gradients of activations, and of the
        gradients of the weights that learn.

        Args:
            tokens: that go through.
            again: the forward pass is done twice (gradient checkpointing).
        """
        return _EACH * tokens * ((2 + again) * self.all + self.learn)


@dataclass(frozen=True)
class Operations:
    """What a stage computes with.

    Attributes:
        language: the layers of the language model.
        head: its output layer, which sees the tokens that are learned alone.
        projector: that sees the tokens of images.
        image: operations of one image's forward pass through the tower.
        tower: how many passes of the tower a step has for an image in it, the backward pass
            counted in; 0 where tokens are stored.
        again: the language model's layers are computed anew in the backward pass.
    """

    language: Weights
    head: Weights
    projector: Weights
    image: int
    tower: int
    again: bool = False

    def step(
        self, tokens: float, learned: float, images: float, per_image: int
    ) -> dict[str, float]:
        """Operations of a step, or of any number of conversations, by part.

        Args:
            tokens: of the conversations, those of images among them.
            learned: how many of them have a label.
            images: in the conversations.
            per_image: tokens of an image.
        """
        language = self.language.step(tokens, again=self.again) + self.head.step(learned)
        return {
            "language_model": language,
            "projector": self.projector.step(images * per_image),
            "tower": float(images * self.image * self.tower),
        }


def operations_of(model: Any, *, image: int, tower: int, again: bool) -> Operations:
    """Of a Llava whose parameters that learn require gradients; what peft added counts.

    Args:
        model: transformers' Llava.
        image: see :class:`Operations`.
        tower: likewise.
        again: likewise.
    """
    table = model.get_input_embeddings()
    looked_up = {id(each) for each in table.parameters()}  # which multiplies nothing
    language = [p for p in model.model.language_model.parameters() if id(p) not in looked_up]
    # Beside the projector that learns peft keeps the old one.
    projector = [p for p in model.model.multi_modal_projector.parameters() if p.requires_grad]
    return Operations(
        Weights.of(language), Weights.of(model.get_output_embeddings().parameters()),
        Weights.of(projector), image, tower, again,
    )  # fmt: skip


@torch.no_grad()
def forward_operations(module: nn.Module, inputs: Tensor) -> int:
    """Of a forward pass: two for each weight of a linear layer or a convolution and place that it
    is applied to. Norms, and attention's products of tokens with tokens, are not counted.

    Args:
        module: a network.
        inputs: that it takes.
    """
    total = 0

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal total
        total += _EACH * layer.weight.numel() * (output.numel() // layer.weight.shape[0])

    hooks = [
        each.register_forward_hook(count) for each in module.modules()
        if isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d)
    ]  # fmt: skip
    try:
        module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total
