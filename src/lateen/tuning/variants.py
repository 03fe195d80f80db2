"""The variants of a ladder of tunings: what each sets in the recipe that they share.

Nothing of it needs torch, so that a command can refuse a variant before anything is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lateen.errors import Faults, RecipeError, UsageError, choices, nearest
from lateen.files import content_key
from lateen.tuning.config import TuneRecipe

BASELINES = "baselines"
"""The word for KUEA's own comparison."""

_METHOD, _FRACTION = "tune.method", "tune.fraction"
_METHODS = TuneRecipe.known_keys()[_METHOD].choices
_KUEA = ("kernel", "feature", "projection", "25%", "50%", "100%")
_FREE = "tune."  # what a variant may set, as far as all are judged alike
_SHARED = {
    "tune.seed": "Repeat every variant with --seeds 0,1,2.",
    "tune.holdout": "It decides on which images the kernel term is measured: give it to all as an "
    "option of the command.",
}
_COMMA = re.compile(r",(?![^\[]*\])")  # outside brackets
_PLUS = re.compile(r"\+(?=\s*(?:[A-Za-z]|[\d.]+\s*%))")  # 1e+3 is a number
_SHARE = re.compile(r"([\d.]+)\s*%")
_FORMS = (
    f"Give {', '.join(_METHODS)}, a share of the images such as 25%, or settings such as "
    f"tune.weight=3, with + between them; {BASELINES} stands for {', '.join(_KUEA)}."
)
_NO_FILE_NAME = re.compile(r"[^A-Za-z0-9._=+-]")
_LONGEST = 60


@dataclass(frozen=True)
class Variant:
    """One way to tune.

    Attributes:
        name: as tables show it.
        settings: what it sets, by dotted key.
        plan: its whole recipe.
    """

    name: str
    settings: dict[str, Any]
    plan: TuneRecipe

    @property
    def seeded(self) -> bool:
        """Whether a seed decides anything: a map in closed form of all images has none."""
        return self.plan.tune.method != "projection" or self.plan.tune.fraction < 1

    def folder(self, seed: int, usual: int) -> str:
        """The name of the folder of its tuning with a seed.

        Args:
            seed: of the tuning.
            usual: the shared recipe's, which is not named.
        """
        name = self.name.replace("%", "-percent").replace(" + ", "+")
        short = _NO_FILE_NAME.sub("-", name)[:_LONGEST]
        if short != name:
            short += f"-{content_key(self.name)[:8]}"
        return short if seed == usual else f"{short}-seed-{seed}"


def read_variants(
    text: str | Sequence[str], plan: TuneRecipe, seeds: Sequence[int] | None = None
) -> tuple[list[Variant], list[int]]:
    """The variants of a ladder, and its seeds.

    Args:
        text: as the command takes it, or the variants one by one.
        plan: the recipe that they share.
        seeds: of every variant; the recipe's own if not given.

    Raises:
        RecipeError: an unknown key, or a value that does not fit.
        UsageError: no variant at all, the same one twice, a key that all share, or bad seeds.
    """
    words = _COMMA.split(text) if isinstance(text, str) else list(text)
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise UsageError("the ladder has no variant", _FORMS)
    variants: list[Variant] = []
    faults = Faults()
    for word in words:
        with faults.note():
            variants += _baselines(plan) if word == BASELINES else [_variant(word, plan)]
    faults.raise_all()
    _refuse_twins(variants)
    return variants, _checked(seeds, plan)


def _baselines(plan: TuneRecipe) -> list[Variant]:
    """Those of the paper, each once: all of the images is the tuning itself."""
    variants: list[Variant] = []
    for name in _KUEA:
        share = {} if name in _METHODS else {_METHOD: "kernel"}
        variant = _variant(name, plan, share)
        if not any(variant.plan.tune == other.plan.tune for other in variants):
            variants.append(variant)
    return variants


def _variant(word: str, plan: TuneRecipe, below: Mapping[str, str] | None = None) -> Variant:
    """A variant from its words.

    Args:
        word: parts with ``+`` between them.
        plan: the shared recipe.
        below: settings that it has in addition.
    """
    settings = dict(below or {})
    names = []
    for part in map(str.strip, _PLUS.split(word)):
        key, value, name = _setting(part)
        if key in settings:
            raise UsageError(f"the variant {word!r} sets {key} twice", "Leave one of them out.")
        settings[key] = value
        names.append(name)
    read = TuneRecipe.above(plan, settings)
    if read.tune.method == "projection" and (idle := set(settings) - {_METHOD, _FRACTION}):
        raise UsageError(
            f"{min(idle)} changes nothing of the variant {word!r}, in which nothing is trained",
            "Leave it out.",
        )
    values = read.tune.model_dump(mode="json")
    as_read = {key: values[key.removeprefix(_FREE)] for key in settings}
    return Variant(" + ".join(names), as_read, read)


def _setting(part: str) -> tuple[str, str, str]:
    """What a part of a variant sets: key, value, and how it is called.

    Raises:
        RecipeError: there is no such key.
        UsageError: it is none of the forms, or a key that all variants share.
    """
    if part in _METHODS:
        return _METHOD, part, part
    if share := _SHARE.fullmatch(part):
        return _FRACTION, f"{float(share[1]) / 100:.10g}", f"{share[1]}%"
    key, is_setting, value = (side.strip() for side in part.partition("="))
    if not is_setting:
        near = nearest(part, (*_METHODS, BASELINES))
        hint = f"Did you mean {near!r}? " if near else ""
        raise UsageError(f"a variant cannot be {part!r}", f"{hint}{_FORMS}")
    keys = TuneRecipe.known_keys()
    if key not in keys:
        free = [path for path in keys if path.startswith(_FREE) and path not in _SHARED]
        raise RecipeError(f"unknown recipe key {key!r}", choices(key, free))
    if not key.startswith(_FREE):
        raise UsageError(
            f"a variant cannot set {key}: what is not of tune is the same for all, so that all are "
            "judged alike", f"Give it to all, as --{key}.",
        )  # fmt: skip
    if key in _SHARED:
        raise UsageError(f"a variant cannot set {key}", _SHARED[key])
    return key, value, f"{key.removeprefix(_FREE)}={value}"


def _refuse_twins(variants: Sequence[Variant]) -> None:
    """See that no two variants are the same tuning.

    Raises:
        UsageError: two are.
    """
    for at, variant in enumerate(variants):
        for other in variants[:at]:
            if variant.plan.tune == other.plan.tune:
                same = variant.name == other.name
                both = "is there twice" if same else f"is the same tuning as {other.name!r}"
                raise UsageError(f"the variant {variant.name!r} {both}", "Leave one of them out.")


def _checked(seeds: Sequence[int] | None, plan: TuneRecipe) -> list[int]:
    if seeds is None:
        return [plan.tune.seed]
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(
            f"seeds cannot be {', '.join(map(str, seeds)) or 'none'}",
            "Give whole numbers from 0 on, each once.",
        )
    return list(seeds)
