"""A classification set made of captions: photographs whose captions all name one noun of a list.

A photograph is of the class whose noun, in the singular, stands in every one of its captions, if
none of them names another noun of the list, in the singular or the plural. OUT gets a folder for
each class, with links to its photographs, for ``lateen evaluate classification --images OUT``.

    python benchmarks/noun_classes.py CAPTIONS.csv IMAGES OUT dog man woman boy girl
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

PLURALS = {"man": "men", "woman": "women", "child": "children"}


def noun_of(captions: list[str], nouns: list[str]) -> str | None:
    """The noun that all captions name, and none of them another; ``None`` if there is none."""
    said = [set(re.findall(r"[a-z]+", caption.lower())) for caption in captions]
    everywhere = [noun for noun in nouns if all(noun in words for words in said)]
    named = {
        noun for noun in nouns for words in said if words & {noun, PLURALS.get(noun, f"{noun}s")}
    }
    return everywhere[0] if len(everywhere) == len(named) == 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="CSV file with the columns image and caption")
    parser.add_argument("images", type=Path, help="folder of the images")
    parser.add_argument("out", type=Path)
    parser.add_argument("nouns", nargs="+")
    given = parser.parse_args()
    captions: dict[str, list[str]] = defaultdict(list)
    with given.captions.open(newline="") as stream:
        for row in csv.DictReader(stream):
            captions[row["image"]].append(row["caption"])
    counts: Counter[str] = Counter()
    for name, texts in captions.items():
        noun = noun_of(texts, given.nouns)
        if noun is not None:
            folder = given.out / noun
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to((given.images / name).resolve())
            counts[noun] += 1
    print(", ".join(f"{noun} {count}" for noun, count in counts.most_common()))


if __name__ == "__main__":
    main()
