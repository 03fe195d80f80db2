"""The loss of a tuned tower, in parts and among processes, against that of a whole batch."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from tuner_toys import own_cache, photographs, prepared

from lateen.errors import TrainingError
from lateen.training.batches import Batch
from lateen.training.loop import fit
from lateen.training.ranks import ALONE, Ranks
from lateen.training.step import StepParts, TrainState, add_gradients, training_step
from lateen.tuning.alignment import TunedTower, linear_map, start_term
from lateen.tuning.kernels import Cosine
from lateen.tuning.preparation import Preparation

Prepare = Callable[..., Preparation]
Gradients = dict[str, Tensor]

# Softmax takes out a key's bias: its gradient is rounding, of which AdamW makes whole steps.
_CANCELLED = re.compile(r"k_proj\.(base_layer\.)?bias$")
VARIANTS: dict[str, dict[str, Any]] = {
    "chosen": {},
    "published": {
        "tune.diagonal": "include", "tune.pull": "mean", "tune.space": "raw", "tune.weight": 0.5,
    },
    "mixed": {"tune.diagonal": "include", "tune.drift": 3.0, "tune.degree": 2},
    "gaussian": {"tune.kernel": "gaussian", "tune.space": "raw"},
    "cosine": {"tune.kernel": "cosine", "tune.drift": 0.0},
    "as fitted": {"tune.learn_kernel": False},
    "feature": {"tune.method": "feature"},
    "patches": {"tune.patches": True},
    "patches, mean": {"tune.patches": True, "tune.pull": "mean", "tune.diagonal": "include"},
}  # fmt: skip


@pytest.fixture(scope="module")
def prepare(
    clip_folder: Path, vit_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepare]:
    images = photographs(tmp_path_factory.mktemp("photographs"))

    def make(**settings: Any) -> Preparation:
        return prepared(clip_folder, vit_folder, images, **settings)

    with own_cache(tmp_path_factory.mktemp("cache")):
        yield make


def moved(prepared: Preparation) -> TunedTower:
    """What is trained, some steps from its start."""
    module, _ = prepared.fitted()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return module


def batches(prepared: Preparation, ranks: Ranks = ALONE) -> list[Batch]:
    """The parts of the second step."""
    source = prepared.source(ranks)
    return list(source.stream(source.parts(1)))


def gradients_of(module: TunedTower) -> Gradients:
    named = module.named_parameters()
    return {n: p.grad for n, p in named if p.grad is not None and not _CANCELLED.search(n)}


# -- the plain twin -------------------------------------------------------------------------------


def matrix(x: Tensor, name: str, values: Sequence[Tensor], degree: int) -> Tensor:
    """A kernel matrix as METHODS §2 writes it."""
    if name == "polynomial":
        gamma, coef0 = values
        raw = (gamma * x @ x.T + coef0) ** degree
        return raw / (raw.diagonal()[:, None] * raw.diagonal()[None]).sqrt()
    if name == "gaussian":
        squares = (x[:, None] - x[None]).square().sum(-1)
        return (-squares / (2 * values[0] ** 2)).exp()
    unit = x / x.norm(dim=1, keepdim=True)
    return unit @ unit.T


def distance(x: Tensor, y: Tensor, student: Any, target: Any, section: Any) -> Tensor:
    """mean_ij (k_f − k_g)²."""
    of = [[log.exp() for log in kernel.parameters()] for kernel in (student, target)]
    sides = [
        matrix(side, section.kernel, values, section.degree)
        for side, values in zip((x, y), of, strict=True)
    ]
    squares = (sides[0] - sides[1]).square()
    if section.diagonal == "include":
        return squares.mean()
    return squares[~torch.eye(len(x), dtype=torch.bool)].mean()


def plain_loss(module: TunedTower, prepared: Preparation, batch: Batch) -> Tensor:
    section = prepared.plan.tune
    reference = batch.texts[0]
    dim, wide = prepared.start.config.head_settings.dim or 0, prepared.target.info.dim
    target, start = reference[:, :wide], reference[:, wide : wide + dim]
    features = module.vision.network(batch.image)
    embeddings = module.vision.head(features)
    a: Any = module.alignment
    relative = section.pull == "relative"
    first, first_patches = module._start_terms if relative else (1.0, 1.0)
    if section.method == "feature":
        away = (embeddings @ a.map.weight.T + a.map.bias - target).square().sum(1).mean()
        loss = section.weight * away / a.spread / first
    else:
        loss = section.weight * distance(embeddings, target, a.student, a.target, section) / first
    now, before = embeddings, start
    if section.space == "unit":
        now, before = F.normalize(now, dim=1), F.normalize(before, dim=1)
    loss = loss + section.drift * (now - before).square().sum(1).mean()
    if section.patches:
        clip: Any = module.vision.network.dual
        tokens = clip.vision_model(pixel_values=batch.image).last_hidden_state[:, 1:]
        patches = clip.visual_projection(clip.vision_model.post_layernorm(tokens))
        # 2 × 2 patches of 16 pixels beside 4 × 4 of 8: four neighbours are averaged.
        wanted = reference[:, wide + dim :].view(len(target), 2, 2, 2, 2, -1).mean((2, 4))
        each = [
            distance(x, y, a.patch_student, a.patch_target, section)
            for x, y in zip(patches, wanted.flatten(1, 2), strict=True)
        ]
        loss = loss + section.weight * torch.stack(each).mean() / first_patches
    return loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_have_the_gradient_of_the_plain_loss(prepare: Prepare, variant: str) -> None:
    settings = VARIANTS[variant]
    whole = prepare(**settings)
    module = moved(whole)
    plain = copy.deepcopy(module)
    [batch] = batches(whole)
    expected = plain_loss(plain, whole, batch)
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = gradients_of(plain)

    divided = prepare(**settings, **{"tune.micro_batch": 4})
    parts = batches(divided)
    assert [part.rows.count for part in parts] == [4, 2]
    for each in ([batch], parts):
        module.zero_grad()
        loss = add_gradients(module, StepParts.of(each), divided.plan.tune)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
        found = gradients_of(module)
        assert found.keys() == wanted.keys()
        for name, gradient in found.items():
            scale = float(wanted[name].abs().max())
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-4 * scale + 1e-8)
    tower = [name for name in wanted if name.startswith("vision.network.dual.vision_model")]
    assert any(float(wanted[name].abs().max()) > 1e-5 for name in tower)


@pytest.mark.parametrize(
    ("variant", "learned"),
    [
        ("chosen", {"student.log_gamma", "student.log_coef0"}),
        ("gaussian", {"student.log_sigma"}),
        ("cosine", set()), ("as fitted", set()), ("feature", {"map.weight", "map.bias"}),
    ],
)  # fmt: skip
def test_the_distance_learns_what_it_is_to_learn(
    prepare: Prepare, variant: str, learned: set[str]
) -> None:
    this = prepare(**VARIANTS[variant], **{"tune.micro_batch": 5})
    module = moved(this)
    before = copy.deepcopy(module.state_dict())
    state = TrainState(module, this.plan.tune)
    training_step(state, StepParts.of(batches(this)), 1e-3, this.plan.tune)
    after = module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    prefix = "alignment."
    assert {n.removeprefix(prefix) for n in changed if n.startswith(prefix)} == learned
    assert "vision.network.dual.visual_projection.weight" in changed
    assert not any("logit" in name for name in changed)


def test_a_kernel_has_a_rate_of_its_own_and_no_decay(prepare: Prepare) -> None:
    this = prepare(tune__kernel_lr=0.05, tune__lr=1e-4, tune__weight_decay=0.1)
    module = moved(this)
    state = TrainState(module, this.plan.tune)
    before = module.alignment.student.log_coef0.item()
    training_step(state, StepParts.of(batches(this)), 1e-4, this.plan.tune)
    # AdamW's first step is the rate itself.
    assert abs(module.alignment.student.log_coef0.item() - before) == pytest.approx(0.05, rel=1e-2)


# -- several processes ----------------------------------------------------------------------------


@dataclass
class Board:
    """What threads that stand for processes tell each other."""

    barrier: threading.Barrier
    values: dict[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Thread(Ranks):
    """A process that is a thread."""

    board: Board = field(default_factory=lambda: Board(threading.Barrier(1)))

    def agree(self, value: Any) -> list[Any]:
        self.board.values[self.rank] = value
        self.board.barrier.wait()
        values = [self.board.values[rank] for rank in range(self.size)]
        self.board.barrier.wait()
        return values

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self.agree(tensor.clone())).sum(0))

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        every = self.agree(rows.clone())
        assert [len(each) for each in every] == list(counts)
        return torch.cat(every)

    def wait(self) -> None:
        self.board.barrier.wait()


def among(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """What each of so many processes gives back."""
    board = Board(threading.Barrier(size, timeout=60))
    results: dict[int, Any] = {}

    def run(rank: int) -> None:
        try:
            results[rank] = work(Thread(rank, size, board))
        except Exception as error:  # noqa: BLE001 - raised again below
            results[rank] = error
            board.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [each for each in results.values() if isinstance(each, Exception)]
    for error in sorted(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error  # the first that is not of one that waited for another
    return [results[rank] for rank in range(size)]


@pytest.mark.parametrize("variant", ["chosen", "published", "gaussian", "feature", "patches"])
def test_three_processes_have_the_gradient_of_one(prepare: Prepare, variant: str) -> None:
    this = prepare(**VARIANTS[variant], **{"tune.micro_batch": 2})
    alone = moved(this)
    copies = [copy.deepcopy(alone) for _ in range(3)]
    whole = add_gradients(alone, StepParts.of(batches(this)), this.plan.tune)

    def work(ranks: Ranks) -> Tensor:
        parts = StepParts.of(batches(this, ranks))
        return add_gradients(copies[ranks.rank], parts, this.plan.tune, ranks)

    for loss in among(3, work):
        torch.testing.assert_close(loss, whole)
    each = [gradients_of(one) for one in copies]
    for name, gradient in gradients_of(alone).items():
        total = torch.stack([one[name] for one in each]).sum(0)
        scale = float(gradient.abs().max())
        torch.testing.assert_close(total, gradient, rtol=1e-3, atol=1e-4 * scale + 1e-8)


@pytest.mark.parametrize("parameters", ["whole", "lora"])
def test_two_processes_end_with_the_weights_of_one(
    prepare: Prepare, tmp_path: Path, parameters: str
) -> None:
    this = prepare(tune__parameters=parameters, tune__lr=1e-3, tune__epochs=2)
    new = {size: [this.fitted()[0] for _ in range(size)] for size in (1, 2)}

    def work(ranks: Ranks) -> dict[str, Tensor]:
        out = tmp_path / str(ranks.size)
        result = fit(
            lambda: new[ranks.size][ranks.rank], lambda: this.source(ranks), this.plan.tune,
            out, identity={"data": {}}, ranks=ranks,
        )  # fmt: skip
        return result.heads.state_dict()

    [alone] = among(1, work)
    alone = {name: tensor for name, tensor in alone.items() if not _CANCELLED.search(name)}
    for weights in among(2, work):
        torch.testing.assert_close({n: weights[n] for n in alone}, alone, rtol=0, atol=1e-5)
    start = this.fitted()[0].state_dict()
    assert any(not torch.allclose(alone[name], start[name], atol=1e-4) for name in alone)


class Falling:
    """A validation that keeps step 2 and says at step 4 that it is enough."""

    def measure(self, module: TunedTower, step: int) -> dict[str, Any]:
        return {"step": step}

    def better(self, metrics: Any, best: Any) -> bool:
        return bool(metrics["step"] == 2)

    def enough(self, metrics: Any) -> bool:
        return bool(metrics["step"] == 4)


def test_processes_stop_where_the_one_that_measures_says(prepare: Prepare, tmp_path: Path) -> None:
    this = prepare(tune__epochs=2, tune__validations=3, tune__lr=1e-2)
    new = [this.fitted()[0] for _ in range(2)]

    def work(ranks: Ranks) -> tuple[int, int, Tensor]:
        result = fit(
            lambda: new[ranks.rank], lambda: this.source(ranks), this.plan.tune, tmp_path / "out",
            identity={"data": {}}, ranks=ranks, validation=Falling(),
        )  # fmt: skip
        weight = result.heads.vision.network.dual.visual_projection.weight
        return result.steps, result.best_step, weight

    (steps, best, first), (others, best_of_others, second) = among(2, work)
    assert (steps, best) == (others, best_of_others) == (4, 2)
    assert torch.equal(first, second)


def test_processes_that_were_given_other_data_stop(prepare: Prepare, tmp_path: Path) -> None:
    this = prepare()
    new = [this.fitted()[0] for _ in range(2)]

    def work(ranks: Ranks) -> None:
        identity = {"data": {"images": str(ranks.rank)}}
        fit(lambda: new[ranks.rank], lambda: this.source(ranks), this.plan.tune,
            tmp_path / "out", identity=identity, ranks=ranks)  # fmt: skip

    with pytest.raises(TrainingError, match="process 1 of 2 has other settings or data"):
        among(2, work)


# -- start values ---------------------------------------------------------------------------------


def test_a_linear_map_is_that_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=generator)
    y = x @ torch.randn(5, 3, generator=generator) + 2 + 0.1 * torch.randn(40, 3)
    weight, bias = linear_map(x, y, ridge=1e-9)
    ones = torch.cat([x, torch.ones(40, 1)], 1)
    expected = torch.linalg.lstsq(ones, y).solution
    torch.testing.assert_close(weight, expected[:5].T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, expected[5], rtol=1e-4, atol=1e-5)


def test_sides_that_agree_already_have_nothing_to_learn() -> None:
    x = torch.eye(6)
    same = lambda a, b: (Cosine()(a) - Cosine()(b)).square().mean()  # noqa: E731
    with pytest.raises(TrainingError, match=r"nothing to learn\. Give another target"):
        start_term(same, x, x, 3)
    assert start_term(lambda a, b: torch.tensor(float(len(a) + len(b))), x, x, 3) == 6.0


def test_the_start_of_a_linear_map_is_that_of_images_it_was_not_fitted_on(
    prepare: Prepare,
) -> None:
    this = prepare(tune__method="feature", tune__fit_images=2)
    student, target = this.sample()
    assert len(student) == len(this.train)  # 8 for each of 8 dims, as far as there are
    module, _ = this.fitted()
    weight, bias = linear_map(student, target)
    torch.testing.assert_close(module.alignment.map.weight.detach(), weight)
    away = this.held_out.targets(slice(None)) - this.embeddings(this.held_out) @ weight.T - bias
    spread = (target - target.mean(0)).square().sum(1).mean()
    expected = float(away.square().sum(1).mean() / spread)
    assert module._start_terms[0] == pytest.approx(expected, rel=1e-4)
