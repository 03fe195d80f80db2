"""What "nothing like that here" loses and what it spares, on photographs with captions.

    python benchmarks/cut_off.py runs/f8k/model path/to/flickr8k/dev.csv --images path/to/images

Of sentences that describe one of the photographs (their own captions), how many are told that there
is nothing; and of things that no caption mentions, how many are. The things are class names that
come with lateen, those that some caption mentions beside them. What is in a picture and in none of
its captions counts as absent here, so that the true share is higher.
"""

import argparse
import csv
import re
import tempfile
from pathlib import Path

from scipy.stats import binomtest

from lateen.data.labels.names import packaged_class_names
from lateen.indexing import Index, index
from lateen.report.tables import Column, TableData

SETS = ("cifar100", "imagenet")
ONE_IN = 512
CUTS = (0, 4, 8, 16, 32)  # times as likely as any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    given = parser.parse_args()
    with given.captions.open(encoding="utf-8") as file:
        said = [(row["image"], row["caption"].lower()) for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as place:
        found = index(given.captions, given.model, Path(place) / "index", images=given.images)
        things = sorted({name.words.lower() for s in SETS for name in packaged_class_names(s)})
        text = "\n".join(caption for _, caption in said)
        there = [bool(re.search(rf"\b{re.escape(thing)}(s|es)?\b", text)) for thing in things]
        groups = {
            "own captions": [caption for _, caption in said],
            "things mentioned": [t for t, yes in zip(things, there, strict=True) if yes],
            "things not mentioned": [t for t, yes in zip(things, there, strict=True) if not yes],
        }
        likely = {name: best(found, texts) for name, texts in groups.items()}
        rows = []
        for times in CUTS:
            cut = times / ONE_IN
            row: list[object] = [times]
            for values in likely.values():
                lost = sum(value < cut for value in values)
                bounds = binomtest(lost, len(values)).proportion_ci(method="wilson")
                share, low, high = (100 * x for x in (lost / len(values), bounds.low, bounds.high))
                row.append(f"{share:.1f} ({low:.1f}–{high:.1f})")
            rows.append(row)
    columns = [Column("times as likely", 0)]
    columns += [Column(f"{name}, n = {len(values):,} (%)") for name, values in likely.items()]
    print(TableData(f"Told that there is nothing, {len(found):,} photographs", columns, rows)
          .markdown())  # fmt: skip


def best(found: Index, texts: list[str]) -> list[float]:
    """The highest probability among the twelve that are shown for each text."""
    return [
        max(hit.probability or 0.0 for hit in found.search(text, cut=False).hits) for text in texts
    ]


if __name__ == "__main__":
    main()
