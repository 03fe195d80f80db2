"""A ladder of tunings that never was."""

from __future__ import annotations

from typing import Any

from tune_toys import check, results

from lateen.tuning.config import TuneRecipe
from lateen.tuning.variants import read_variants

BASE = {"model": "models/tiny-clip", "images": "photographs", "target": {"encoder": "mobilenet-v2"}}


def plan(**values: Any) -> TuneRecipe:
    """A whole recipe."""
    return TuneRecipe.build({**BASE, **values})


def run(seed: int = 0, *, step: int = 80, left: float = 0.4, **changes: float) -> dict[str, Any]:
    """A tuning in which measures changed by so much."""
    after = check(step, **changes)
    kernel = {"start": 0.006, "end": 0.006 * left}
    found = results(after=after["measures"], drift=after["drift"], kernel=kernel, kept_step=step,
                    stopped=None, verdict=f"verdict of seed {seed}")  # fmt: skip
    kept = ("images", "before", "after", "drift", "kernel", "kept_step", "steps", "stopped",
            "verdict", "seconds")  # fmt: skip
    return {"seed": seed, "folder": f"folder-{seed}", **{name: found[name] for name in kept},
            "left_out": ["no linear probe: eval.linear_probe is false"], "beware": []}  # fmt: skip


def failed(seed: int = 0) -> dict[str, Any]:
    """A tuning that ended with an error."""
    return {"seed": seed, "folder": f"folder-{seed}", "error": "the loss is nan. Lower tune.lr."}


def ladder(runs: dict[str, list[dict[str, Any]]], seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """The content of ``ladder.json``, of variants in words with their tunings."""
    base = plan()
    variants, _ = read_variants(list(runs), base, seeds)
    return {
        "task": "tuning ladder", "model": base.model, "target": base.target.encoder,
        "seeds": list(seeds), "base": base.model_dump(mode="json"),
        "variants": [
            {"name": variant.name, "set": variant.settings,
             "tune": variant.plan.tune.model_dump(mode="json", exclude={"seed"}), "runs": done}
            for variant, done in zip(variants, runs.values(), strict=True)
        ],
    }  # fmt: skip
