"""How many photographs of other things `classify --none` finds, and how many right labels it costs.

    python benchmarks/none_of_these.py runs/f8k/model path/to/imagenette-mini

Of a class folder, half of the classes at a time are given as labels (twenty random halves); the
photographs of the other half are of none of them.
"""

import argparse
import random

from lateen.data.prompts import class_name
from lateen.indexing.labels import NONE, classify
from lateen.model import open_model
from lateen.report.tables import Column, TableData

HALVES = 20
PERCENTS = (0, 50, 80, 90, 95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--bank", help="query bank, or none (the model's own, if it carries one)")
    given = parser.parse_args()
    model = open_model(given.model)
    ids = [p.id for p in classify(model, given.images, ["a", "b"], bank=given.bank).photographs]
    classes = sorted({name.partition("/")[0] for name in ids})
    halves = [random.Random(i).sample(classes, len(classes) // 2) for i in range(HALVES)]
    sums = {percent: [0, 0, 0, 0, 0] for percent in PERCENTS}
    for half in halves:
        labels = [class_name(name) for name in half]
        found = classify(model, given.images, labels, none=0, bank=given.bank).photographs
        for percent in PERCENTS:
            counts = sums[percent]
            for photograph in found:
                true = class_name(photograph.id.partition("/")[0])
                none = photograph.fit is not None and photograph.fit <= percent
                best = photograph.runner_up if photograph.label == NONE else photograph.label
                known = true in labels
                counts[0] += known
                counts[1] += known and best == true
                counts[2] += known and best == true and none
                counts[3] += not known
                counts[4] += not known and none
    rows = [
        [percent, 100 * c[1] / c[0], 100 * c[2] / c[1], 100 * c[4] / c[3]]
        for percent, c in sums.items()
    ]
    columns = [Column("--none-percent", 0), Column("labels right before (%)", 1),
               Column("right labels lost (%)", 1), Column("other things found (%)", 1)]  # fmt: skip
    print(TableData("None of these", columns, rows).markdown())


if __name__ == "__main__":
    main()
