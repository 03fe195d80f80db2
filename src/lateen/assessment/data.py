"""What an assessment measures on: candidates, the pairs they share, and a labelled set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lateen.assessment.candidates import Candidate, Split, encode_candidates, named_apart
from lateen.assessment.labelled import LabelledStore, Labels, class_names, shared_labels
from lateen.assessment.recipe import AssessmentRecipe
from lateen.data.labels.forms import LabelledData, find_labelled
from lateen.data.labels.sets import SPLITS
from lateen.errors import DataError, Faults, PairingError, UsageError
from lateen.evaluation.from_embeddings import read_labels
from lateen.evaluation.labelled import train_split
from lateen.experiment.preflight import check_encoders, located, open_split, split_columns
from lateen.experiment.stages import default_holdout, training_pairs
from lateen.features import Pairs, Store, pair_grid
from lateen.training.inputs import check_trainable

LABELLED, LABELLED_TEST = "labelled", "labelled-test"
_FEWEST = {"train on": 2, "judge on": 4}  # two to contrast; four have all measures defined


@dataclass(frozen=True)
class AssessmentData:
    """Everything that is measured on.

    Attributes:
        vision: the vision candidates.
        text: the text candidates.
        train: pairs to train probes on, by vision and text candidate.
        judged: pairs to judge on, likewise; all with the same images.
        judged_on: the name of that split.
        labelled: for each vision candidate labelled features to learn from, and those to be judged,
            where they are others; empty where there is no labelled set.
        classes: the names of the labelled set's classes.
    """

    vision: list[Candidate]
    text: list[Candidate]
    train: list[list[Pairs]]
    judged: list[list[Pairs]]
    judged_on: str
    labelled: list[tuple[LabelledStore, LabelledStore | None]]
    classes: list[str]

    def check(self) -> None:
        """Look at all features before anything is trained on them.

        Raises:
            TrainingError: features that nothing can be learned from.
            DataError: too few images.
        """
        for grid, what in ((self.train, "train on"), (self.judged, "judge on")):
            if len(grid[0][0]) < _FEWEST[what]:
                raise DataError(
                    f"{len(grid[0][0])} images to {what} are too few: there must be "
                    f"{_FEWEST[what]}",
                    "Give more images with captions, in earnest hundreds, or another holdout.",
                )
        # Each candidate once, not each pair.
        for row in self.train:
            check_trainable(replace(row[0], texts=()))
        for column in self.train[0]:
            check_trainable(column)


def from_recipe(plan: AssessmentRecipe, folder: Path) -> AssessmentData:
    """Encode the recipe's candidates on its splits and its labelled set.

    Args:
        plan: the recipe.
        folder: of the stores; what is in it, by content, is not encoded again.

    Raises:
        DataError: a split or the labelled set cannot be read, or there are no captions.
        EncoderError: a candidate cannot be loaded.
    """
    data = plan.data
    judged_on = plan.judged_on
    splits, faults = [], Faults()
    for name in ("train", *(() if judged_on == "holdout" else (judged_on,))):
        with faults.note():
            dataset = open_split(data, getattr(data, name), name)
            splits.append(Split(name, dataset, split_columns(data, dataset)))
    sets: dict[str, LabelledData] = {}
    with faults.note():
        sets = _labelled_sets(plan)
    check_encoders(plan.encoders(), faults)
    class_splits = [Split(name, each.dataset) for name, each in sets.items()]
    labels: dict[str, Labels] = {name: each.labels for name, each in sets.items()}
    if labels:
        class_names(*labels.values())  # a fault is better told of before hours of encoding
    root = data.root
    vision = encode_candidates(plan.vision, "image", [*splits, *class_splits], root, folder)
    text = encode_candidates(plan.text, "text", splits, root, folder)
    grids = {split.name: _pairs_of_split(vision, text, split.name) for split in splits}
    if judged_on not in grids:
        share = data.holdout or default_holdout(len(grids["train"][0][0]))
        grids = _held_out(grids["train"], share, plan.measure.seed)
    train = [
        [training_pairs(pairs, data, plan.measure.seed) for pairs in row] for row in grids["train"]
    ]
    return AssessmentData(
        vision, text, train, grids[judged_on], judged_on, *_labelled_stores(vision, labels)
    )


def from_stores(
    images: Sequence[Store], texts: Sequence[Store], *, labels: Path | None, holdout: float,
    missing: Literal["error", "drop"], seed: int,
) -> AssessmentData:  # fmt: skip
    """Take features that are there already; a share of their images is held out to judge on.

    Args:
        images: one store for each vision candidate.
        texts: text stores; those of one encoder are caption columns of one candidate.
        labels: a CSV file with the columns id and label, of images in the stores.
        holdout: share of the images.
        missing: what to do with ids that only some stores know: ``error``, or ``drop`` them.
        seed: of the choice of images.

    Raises:
        PairingError: stores that do not describe the same images.
        DataError: labels that cannot be read or are of other images.
        UsageError: a holdout outside (0, 1), or no store on one side.
    """
    if not 0 < holdout < 1:
        raise UsageError(f"holdout is {holdout}", "Give a share of the images, such as 0.2.")
    if not images or not texts:
        raise UsageError("both images and texts are needed", "Give stores of each.")
    columns = _by_encoder(texts)
    vision = _candidates_of_stores([[store] for store in images])
    text = _candidates_of_stores(columns)
    grids = _held_out(pair_grid(images, columns, missing), holdout, seed)
    labelled: list[tuple[LabelledStore, LabelledStore | None]] = []
    classes: list[str] = []
    if labels is not None:
        shared = shared_labels(read_labels(labels), images)
        classes = class_names(shared)
        labelled = [(LabelledStore.of(store, shared, classes), None) for store in images]
    return AssessmentData(
        vision, text, grids["train"], grids["holdout"], "holdout", labelled, classes
    )


def _labelled_sets(plan: AssessmentRecipe) -> dict[str, LabelledData]:
    """The labelled set by part: what is learned from, and what is judged where that is another.

    Sources are those of the tasks kNN and linear probe. Where ``train`` alone is given and it has
    several parts, the part that tasks judge is judged, and learned is from its training part.
    """
    section = plan.labelled
    if section is None:
        return {}
    if section.test is not None:
        given = {LABELLED: section.train, LABELLED_TEST: section.test}
        return {name: _open_labels(plan, source) for name, source in given.items()}
    judged = _open_labels(plan, section.train)
    train = train_split(judged.splits, judged.split)
    if train is None or "#" in section.train:
        return {LABELLED: judged}
    return {LABELLED: _open_labels(plan, f"{section.train}#{train}"), LABELLED_TEST: judged}


def _open_labels(plan: AssessmentRecipe, source: str) -> LabelledData:
    """Labels in any form that tasks take."""
    where, split = located(plan.data.root, source)
    column = plan.labelled.column if plan.labelled else None
    return find_labelled(str(where), split=split, preferred=SPLITS, column=column)


def _labelled_stores(
    vision: Sequence[Candidate], labels: dict[str, Labels]
) -> tuple[list[tuple[LabelledStore, LabelledStore | None]], list[str]]:
    """Every vision candidate's labelled features, all of the same images; and the classes."""
    if not labels:
        return [], []
    shared = {
        name: shared_labels(of_part, [c.stores[name][0] for c in vision])
        for name, of_part in labels.items()
    }
    classes = class_names(*shared.values())
    parts = [
        {n: LabelledStore.of(c.stores[n][0], of_part, classes) for n, of_part in shared.items()}
        for c in vision
    ]
    return [(by_name[LABELLED], by_name.get(LABELLED_TEST)) for by_name in parts], classes


def _pairs_of_split(
    vision: Sequence[Candidate], text: Sequence[Candidate], split: str
) -> list[list[Pairs]]:
    return pair_grid([c.stores[split][0] for c in vision], [c.stores[split] for c in text])


def _held_out(grid: list[list[Pairs]], share: float, seed: int) -> dict[str, list[list[Pairs]]]:
    """The same images held out of every pair, for they all have the same ids."""
    halves = [[pairs.holdout(share, seed) for pairs in row] for row in grid]
    return {
        # What was left out is counted once, with those held out.
        "train": [[replace(train, dropped=0) for train, _ in row] for row in halves],
        "holdout": [[judged for _, judged in row] for row in halves],
    }


def _by_encoder(texts: Sequence[Store]) -> list[list[Store]]:
    """The text stores of each encoder, all with the same caption columns in the same order.

    Raises:
        PairingError: an encoder with a column twice, or with other columns than the first has.
    """
    by_encoder: dict[str, dict[str, Store]] = {}
    for store in texts:
        columns = by_encoder.setdefault(store.manifest.description.encoder_key, {})
        if store.name in columns:
            raise PairingError(
                f"{columns[store.name].path} and {store.path} are of one encoder and one caption "
                f"column, {store.name!r}",
                "Give each once; features of other encoders or captions are imported under other "
                "names (lateen import --encoder, --column).",
            )
        columns[store.name] = store
    first, *others = by_encoder.values()
    for other in others:
        # A single column has no order to mistake, and may be called something else.
        if len(first) != len(other) or (len(first) > 1 and set(first) != set(other)):
            raise PairingError(
                f"one text encoder has the caption columns {', '.join(first)} and another "
                f"{', '.join(other)}",
                "Give stores of the same columns for every text encoder.",
            )
    names = list(first)
    return [[c[n] for n in names] if len(names) > 1 else [*c.values()] for c in by_encoder.values()]


def _candidates_of_stores(groups: Sequence[Sequence[Store]]) -> list[Candidate]:
    """A candidate of each group; where encoders are called the same, their folders are named."""
    candidates = []
    for stores in groups:
        encoder: dict[str, Any] = dict(stores[0].manifest.description.encoder)
        name = Path(str(encoder["id"])).name
        views = encoder.get("pooling"), encoder.get("layer")
        candidates.append(Candidate(name, "", *views, {"all": tuple(stores)}))
    count = Counter((c.name, c.pooling, c.layer) for c in candidates)
    return named_apart(
        [
            replace(c, name=f"{c.name} ({c.stores['all'][0].path.name})")
            if count[c.name, c.pooling, c.layer] > 1 else c
            for c in candidates
        ]
    )  # fmt: skip
