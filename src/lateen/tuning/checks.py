"""What is measured at every checkpoint, and how much of it may be lost: two sections of settings.

Nothing of it needs torch, so that a command can read its options without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from lateen.config import Section
from lateen.errors import UsageError, choices

Check = Mapping[str, Any]
"""One checkpoint's numbers, as :meth:`lateen.tuning.compatibility.Compatibility.check` gives
them."""

_Points = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EvalSection(Section):
    """The data on which every checkpoint is measured; what is not given is left out, and said."""

    captions: str | None = Field(
        None, description="table of captions, or another source of pairs: retrieval both ways"
    )
    images: str | None = Field(
        None, description="folder of the images that the captions name; or pairs themselves"
    )
    column: str | None = Field(None, description="caption column (the first if not given)")
    classes: str | None = Field(
        None, description="labelled images, such as one folder per class: zero-shot, nearest "
        "neighbours, linear probe"
    )  # fmt: skip
    mmvp: str | None = Field(None, description="folder of MMVP-VLM, with its Questions.csv")
    k: int = Field(10, gt=0, description="nearest neighbours that vote")
    linear_probe: bool = Field(
        True, description="also logistic regression, the slowest of the measures"
    )


class Stop(Section):
    """The most points of percent that a measure may lose against the start; without one, any.

    A checkpoint that loses more ends the training, and the last one that held is kept.
    """

    zero_shot: _Points | None = Field(None, description="points of zero-shot top-1")
    retrieval: _Points | None = Field(
        None, description="points of the mean of R@1, R@5 and R@10 both ways"
    )
    knn_encoder: _Points | None = Field(
        None, description="points of nearest neighbours on the tower's features"
    )
    knn_embedding: _Points | None = Field(
        None, description="points of nearest neighbours on embeddings"
    )
    linear_probe_encoder: _Points | None = Field(
        None, description="points of a linear probe on the tower's features"
    )
    linear_probe_embedding: _Points | None = Field(
        None, description="points of a linear probe on embeddings"
    )
    mmvp: _Points | None = Field(None, description="points of MMVP-VLM's pairs")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by measure."""
        return {name: limit for name, limit in self.model_dump().items() if limit is not None}

    def require(self, start: Check) -> None:
        """See that every limit has its measure, before anything is trained.

        Args:
            start: the check of the start.

        Raises:
            UsageError: the data of a limit's measure are not given.
        """
        there = [name for name in type(self).model_fields if name in start["measures"]]
        for name in self.limits:
            if name not in there:
                why = "; ".join(start.get("left_out", ()))
                others = choices(name, there)
                raise UsageError(
                    f"stop.{name} is a limit on what is not measured{f' ({why})' if why else ''}",
                    f"Give its data ({_DATA[name]})"
                    + (f", or {others[:1].lower()}{others[1:]}" if there else "."),
                )

    def held(self, check: Check) -> bool:
        """Whether no measure lost more than its limit."""
        return not self.broken(check)

    def broken(self, check: Check) -> list[str]:
        """A sentence for each measure that lost more than its limit, or can no longer be told.

        The value counts, be its loss beyond what other images could bring about or not; which of
        the two it is, is said.

        Args:
            check: of a checkpoint.
        """
        sentences = []
        for name, limit in self.limits.items():
            measure = check["measures"].get(name)
            if measure is None or measure["difference"] is None:
                sentences.append(f"{name} could not be measured.")
            elif not measure["difference"]["value"] >= -limit:  # of NaN, too
                sentences.append(_loss(measure, limit))
        return sentences


# Where the data of each measure are given.
_DATA = {
    "zero_shot": "eval.classes", "retrieval": "eval.captions and eval.images",
    "knn_encoder": "eval.classes", "knn_embedding": "eval.classes",
    "linear_probe_encoder": "eval.classes and eval.linear_probe true",
    "linear_probe_embedding": "eval.classes and eval.linear_probe true", "mmvp": "eval.mmvp",
}  # fmt: skip


def _loss(measure: Mapping[str, Any], limit: float) -> str:
    """One measure's loss beside its limit and the interval of the difference."""
    difference, label = measure["difference"], measure["label"]
    lost = f"{label[:1].upper()}{label[1:]} lost {-difference['value']:.1f} points"
    text = f"{lost}, and {limit:g} is the limit"
    if difference["interval"] is None:
        return f"{text} (how sure that is cannot be told: not the same images were measured)."
    from lateen.report.tables import signed  # which loads numpy, and `lateen --help` does not

    low, high = (signed(end) for end in difference["interval"])
    sure = (
        "more than other images would explain" if difference["told"]
        else "other images may explain it"
    )  # fmt: skip
    return f"{text} (95 % interval of the difference {low} to {high}: {sure})."
