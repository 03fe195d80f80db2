"""Forward selection beside a plain one that tries every candidate, each fitted from nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.features import pair
from lateen.metrics.retrieval import cross_ranks
from lateen.training.canonical import canonical_maps, normed
from lateen.training.selection import SideFeatures, select_features

from .conftest import write_store

IMAGES, EACH, LATENTS = 150, 2, 9
# Which latent directions a feature has, and how much noise beside them.
VISION = [((0, 1, 2), 0.3), ((0, 1), 1.0), ((3, 4, 5), 0.3), ((6, 7), 0.6), ((), 1.0)]
TEXT = [((0, 1, 2, 3), 0.3), ((4, 5, 6), 0.4), ((), 1.0)]


def toy_features(images: int, seed: int) -> SideFeatures:
    mixing, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    latent = torch.randn(images, LATENTS, generator=noise)
    owner = torch.arange(images).repeat_interleave(EACH)

    def feature(seen: tuple[int, ...], share: float, rows: Tensor, dim: int) -> Tensor:
        mix = torch.randn(len(seen), dim, generator=mixing)
        return rows[:, list(seen)] @ mix + share * torch.randn(len(rows), dim, generator=noise)

    vision = [feature(seen, share, latent, 12 + i) for i, (seen, share) in enumerate(VISION)]
    texts = [feature(seen, share, latent[owner], 10 + i) for i, (seen, share) in enumerate(TEXT)]
    return SideFeatures(vision, texts, owner)


@pytest.fixture
def halves() -> tuple[SideFeatures, SideFeatures]:
    return toy_features(IMAGES, 1), toy_features(60, 2)


def plain_score(
    fit: SideFeatures, judged: SideFeatures, chosen: dict[str, list[int]], folder: Path
) -> Tensor:
    """The same score of each judged image, by the maps that training uses."""

    def joined(half: SideFeatures, side: str) -> Tensor:
        return torch.cat([normed(getattr(half, side)[part]) for part in chosen[side]], dim=1)

    name = "-".join(str(part) for side in ("vision", "text") for part in [*chosen[side], side])
    ids = [f"{i:03d}" for i in range(len(fit.vision[0]))]
    images = write_store(folder / f"i{name}", "image", joined(fit, "vision"), ids, None)
    texts = write_store(
        folder / f"t{name}", "text", joined(fit, "text"), [ids[i] for i in fit.owner], "c"
    )
    image, text = canonical_maps(pair(images, texts), 512)
    x, y = (F.normalize(m(joined(judged, s)), dim=1)
            for m, s in ((image, "vision"), (text, "text")))  # fmt: skip
    by_text, by_image = cross_ranks(x, y, judged.owner)
    recall = torch.zeros(len(by_image))
    for k in (1, 5, 10):
        recall += (by_image <= k).float() / 6
        recall += (by_text <= k).float().view(-1, EACH).mean(1) / 6
    return 100 * recall


def test_what_joins_is_what_a_search_of_all_candidates_finds(
    halves: tuple[SideFeatures, SideFeatures], tmp_path: Path
) -> None:
    begun, steps = select_features(
        *halves, (0, 0), sides=("vision", "text"), errors=1.0, most=8, longest=4096
    )
    chosen: dict[str, list[int]] = {"vision": [0], "text": [0]}
    scores = plain_score(*halves, chosen, tmp_path)
    assert begun == pytest.approx(scores.mean().item())
    for step in steps:
        trials = {}
        for side, count in (("vision", len(VISION)), ("text", len(TEXT))):
            for index in set(range(count)) - set(chosen[side]):
                more = {**chosen, side: [*chosen[side], index]}
                trials[side, index] = plain_score(*halves, more, tmp_path)
        best = max(trials, key=lambda each: trials[each].mean().item())
        assert step.joined == best
        gain = trials[best] - scores
        assert step.gain == pytest.approx(gain.mean().item(), abs=1e-4)
        assert step.error == pytest.approx(gain.std().item() / len(gain) ** 0.5, abs=1e-4)
        scores = trials[best]
        assert step.score == pytest.approx(scores.mean().item(), abs=1e-4)
        chosen[best[0]].append(best[1])
    assert {step.joined for step in steps} >= {("vision", 2), ("text", 1)}


def test_noise_does_not_join(halves: tuple[SideFeatures, SideFeatures]) -> None:
    _, steps = select_features(
        *halves, (0, 0), sides=("vision", "text"), errors=2.0, most=8, longest=4096
    )
    joined = {step.joined for step in steps}
    assert joined
    assert not joined & {("vision", 4), ("text", 2)}
    assert all(step.gain > 2 * step.error for step in steps)


def test_a_side_that_is_decided_and_one_that_is_full_get_no_more(
    halves: tuple[SideFeatures, SideFeatures],
) -> None:
    _, steps = select_features(
        *halves, (0, 0), sides=("vision",), errors=-99.0, most=3, longest=4096
    )
    assert [step.joined[0] for step in steps] == ["vision", "vision"]
    _, steps = select_features(
        *halves, (0, 0), sides=("vision", "text"), errors=-99.0, most=2, longest=4096
    )
    assert sorted(step.joined[0] for step in steps) == ["text", "vision"]


def test_what_would_make_a_side_too_long_does_not_join(
    halves: tuple[SideFeatures, SideFeatures],
) -> None:
    dims = [x.shape[1] for x in halves[0].vision]
    longest = dims[0] + min(dims[1:])
    _, steps = select_features(
        *halves, (0, 0), sides=("vision",), errors=-99.0, most=8, longest=longest
    )
    chosen = [0, *(step.joined[1] for step in steps)]
    assert len(chosen) > 1
    assert sum(dims[index] for index in chosen) <= longest
    _, none = select_features(
        *halves, (0, 0), sides=("vision",), errors=-99.0, most=8, longest=dims[0]
    )
    assert none == []
