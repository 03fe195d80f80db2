"""Tables of evaluation results, one function for each task; plain data in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from lateen.evaluation.results import subject_and_split
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    classification_table,
    per_class_table,
    retrieval_table,
)

Result = Mapping[str, Any]


_MOST_CLASSES = 25  # with a table of their own


_MOST_CONFUSED = 10


_FEATURES = {"encoder": "frozen encoder", "embedding": "aligned embedding"}


_METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}


def result_tables(result: Result) -> list[TableData]:
    """The tables of one task's result, with the levels of chance and baselines that it has.

    A task that is not known here gets a table of the numbers that stand first in its result.

    Args:
        result: what :func:`lateen.evaluation.evaluate` gives.
    """
    return list(_TABLES.get(str(result.get("task")), _generic)(result))


def _title(what: str, result: Result) -> str:
    on = subject_and_split(result)
    return f"{what}: {on}" if on and on != what.lower() else what


def _left_out(result: Result) -> str:
    """What could not be used, as the end of a note."""
    counts = {"skipped": "skipped", "left_out": "left out", "unlabelled": "without a label"}
    found = [f"{result[key]:,} {word}" for key, word in counts.items() if result.get(key)]
    return f" {', '.join(found).capitalize()}." if found else ""


def _retrieval(result: Result) -> Iterator[TableData]:
    table = retrieval_table(result, _title("Retrieval", result))
    total = f" rsum {result['rsum']:.1f} of 600." if "rsum" in result else ""
    first = f" The first {result['per_image']} captions." if result.get("per_image") else ""
    yield _noted(table, first + total + _left_out(result))
    if folds := result.get("folds"):
        counts = {key: max(1, result[key] // folds["count"]) for key in ("images", "captions")}
        table = retrieval_table({**folds, **counts}, f"Mean over {folds['count']} parts")
        yield _noted(table, f" In each part, that is; rsum {folds['rsum']:.1f} of 600.")


def _classification(result: Result) -> Iterator[TableData]:
    table = classification_table(result, _title("Zero-shot classification", result))
    own = ""
    if result.get("set") and result.get("metric") in _METRICS:
        own = f" The metric of {result['set']} is {_METRICS[result['metric']]}."
    if result.get("same_name"):
        own += f" {len(result['same_name'])} names are those of several classes, and count wrong."
    yield _noted(table, own + _left_out(result))
    if len(result["per_class"]) <= _MOST_CLASSES:
        yield per_class_table(result["per_class"], _MOST_CLASSES)
    if pairs := result.get("most_confused"):
        yield _confused(pairs)


def _confused(pairs: list[Result]) -> TableData:
    rows: list[list[Cell]] = [
        [pair["class"], pair["taken_for"], pair["percent"], pair["images"]]
        for pair in pairs[:_MOST_CONFUSED]
    ]
    columns = [
        Column("class"), Column("taken for"), Column("of its images (%)", 1), Column("images", 0)
    ]  # fmt: skip
    return TableData("What is confused most", columns, rows)


def _knn(result: Result) -> Iterator[TableData]:
    of = [name for name in _FEATURES if name in result]
    ks = list(result[of[0]])
    rows: list[list[Cell]] = [[_FEATURES[name], *(result[name][k] for k in ks)] for name in of]
    rows.append(["chance", *(result["chance"] for _ in ks)])
    left = result.get("k_left_out")
    more = f" Too few images for k = {', '.join(map(str, left))}." if left else ""
    yield TableData(
        _title("Nearest neighbours", result),
        [Column("features of the"), *(Column(f"k = {k} (%)", 1) for k in ks)],
        rows, _learned(result) + more + _left_out(result), reference=(len(of),),
    )  # fmt: skip


def _linear_probe(result: Result) -> Iterator[TableData]:
    of = [name for name in _FEATURES if name in result]
    rows: list[list[Cell]] = [
        [_FEATURES[name], result[name]["accuracy"], _strengths(result[name]["c"])] for name in of
    ]
    rows.append(["chance", result["chance"], None])
    yield TableData(
        _title("Linear probe", result),
        [Column("features of the"), Column("top-1 (%)", 1), Column("C")],
        rows, _learned(result) + _left_out(result), reference=(len(of),),
    )  # fmt: skip


def _strengths(c: float | Sequence[float]) -> str:
    """The chosen C, of several folds each of them once."""
    chosen = dict.fromkeys(c if isinstance(c, Sequence) else [c])
    return ", ".join(f"{each:g}" for each in chosen)


def _learned(result: Result) -> str:
    images = f"{result['images']:,} images, {result['classes']:,} classes"
    if result.get("train"):
        return f"{images}; learned from {result['train_images']:,} images of {result['train']}."
    how = f"{result['folds']} folds" if "folds" in result else "each by all others"
    return f"{images}; {how}."


def _winoground(result: Result) -> Iterator[TableData]:
    keys = ("text", "image", "group")

    def row(name: str, scores: Result, count: int | None) -> list[Cell]:
        return [name, *(scores[key] for key in keys), count]

    tags = result.get("by_tag", {}).get("collapsed_tag", {})
    yield TableData(
        _title("Winoground", result),
        [Column(""), *(Column(f"{key} (%)", 1) for key in keys), Column("examples", 0)],
        [
            row("all", result, result["examples"]), row("chance", result["chance"], None),
            *(row(tag, scores, scores["examples"]) for tag, scores in tags.items()),
        ],
        ("By what the captions swap. " if tags else "") + _left_out(result).strip(),
        reference=(1,),
    )  # fmt: skip


def _caption_choice(result: Result) -> Iterator[TableData]:
    parts = result["categories"]
    rows: list[list[Cell]] = [
        [name, part["accuracy"], part["chance"], part["examples"]] for name, part in parts.items()
    ]
    if len(parts) > 1:
        rows.append(["mean", result["accuracy"], result["chance"], result["examples"]])
    macro = [part.get("macro_accuracy") for part in parts.values()]
    columns = [Column(""), Column("accuracy (%)", 1), Column("chance (%)", 1)]
    if any(value is not None for value in macro):
        columns.append(Column("mean over groups (%)", 1))
        for row, value in zip(rows, [*macro, None], strict=False):
            row.insert(3, value)
    yield TableData(
        _title("Right caption against wrong ones", result), [*columns, Column("examples", 0)],
        rows, _left_out(result).strip(),
    )  # fmt: skip


def _mmvp(result: Result) -> Iterator[TableData]:
    keys = ("pair_accuracy", "statement_accuracy")
    rows: list[list[Cell]] = [
        ["mean", *(result[key] for key in keys), result["pairs"]],
        ["chance", result["chance"], result["chance"], None],
        *([name, *(part[key] for key in keys), part["pairs"]]
          for name, part in result["patterns"].items()),
    ]  # fmt: skip
    yield TableData(
        _title("MMVP-VLM", result),
        [Column("pattern"), Column("pairs solved (%)", 1), Column("by statement (%)", 1),
         Column("pairs", 0)],
        rows,
        "Solved: each image picks its own statement. By statement: each statement picks its image, "
        "as the released code has it." + _left_out(result),
        reference=(1,),
    )  # fmt: skip
    numbers = ("min", "q25", "median", "q75", "max")
    heads = ("lowest", "lower quarter", "median", "upper quarter", "highest")
    yield TableData(
        "Cosine of the two images of a pair",
        [Column(""), *(Column(head, 3) for head in heads)],
        [
            [name, *(values[key] for key in numbers)]
            for name, values in result["similarity"].items()
        ],
        "Near 1, the encoder takes the images for alike.",
    )


def _segmentation(result: Result) -> Iterator[TableData]:
    constant = result["best_constant"]
    rows: list[list[Cell]] = [
        ["zero-shot", result["miou"], result["pixel_accuracy"]],
        [f"always {constant['class']!r}", constant["miou"], constant["pixel_accuracy"]],
        ["chance", result["chance"]["miou"], result["chance"]["pixel_accuracy"]],
    ]
    yield TableData(
        _title("Open-vocabulary segmentation", result),
        [Column(""), Column("mIoU (%)", 1), Column("pixel accuracy (%)", 1)],
        rows,
        f"{result['images']:,} images, {result['classes']:,} classes, short side "
        f"{result['short_side']}, window {result['window']}, stride {result['stride']}, "
        f"{result['attention']} attention"
        f"{'' if result['residual'] else ' without residual'}.{_left_out(result)}",
        reference=(1, 2),
    )
    if len(result["per_class"]) <= _MOST_CLASSES:
        yield _by_class("IoU by class", "IoU (%)", result["per_class"])


def _patch_probe(result: Result) -> Iterator[TableData]:
    rows: list[list[Cell]] = []
    for name, words in (("local", "local: a patch's classes"), ("global", "global: the image's")):
        part = result[name]
        usual = part["baseline"]
        rows += [
            [words, part["macro_recall"], part["macro_precision"], part["rows_tested"]],
            ["usual classes, always", usual["macro_recall"], usual["macro_precision"], None],
        ]
    yield TableData(
        _title("Patch probing", result),
        [Column(""), Column("macro recall (%)", 1), Column("macro precision (%)", 1),
         Column("rows judged", 0)],
        rows,
        f"{result['images_tested']:,} of {result['images']:,} images held out, "
        f"{result['classes']:,} classes.{_left_out(result)}",
        reference=(1, 3),
    )  # fmt: skip
    if len(result["local"]["per_class"]) <= _MOST_CLASSES:
        yield _by_class("Local recall by class", "recall (%)", result["local"]["per_class"])


def _attention(result: Result) -> Iterator[TableData]:
    yield TableData(
        _title("Attention", result),
        [Column("encoder"), Column("heads", 0), Column("patches"), Column("evenness (%)", 1)],
        [
            [PurePath(part["encoder"]).name, part["heads"], "×".join(map(str, part["grid"])),
             part["entropy"]]
            for part in result["encoders"]
        ],
        f"{result['images']:,} images, block {result['layer']}. Evenness is 100 % where every "
        f"patch gets the same.{_left_out(result)}",
    )  # fmt: skip


def _by_class(title: str, unit: str, values: Mapping[str, float]) -> TableData:
    ranked = sorted(values.items(), key=lambda item: item[1])
    return TableData(title, [Column("class"), Column(unit, 1)], ranked)


def _generic(result: Result) -> Iterator[TableData]:
    rows: list[list[Cell]] = [
        [key.replace("_", " "), float(value)]
        for key, value in result.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    title = _title(str(result.get("task", "result")), result)
    yield TableData(title, [Column(""), Column("value", 2)], rows, _left_out(result).strip())


def _noted(table: TableData, more: str) -> TableData:
    """The table with more in its note."""
    return TableData(table.title, table.columns, table.rows, table.note + more, table.reference)


_TABLES: dict[str, Callable[[Result], Iterator[TableData]]] = {
    "retrieval": _retrieval,
    "classification": _classification,
    "knn": _knn,
    "linear-probe": _linear_probe,
    "winoground": _winoground,
    "caption-choice": _caption_choice,
    "mmvp": _mmvp,
    "segmentation": _segmentation,
    "patch-probe": _patch_probe,
    "attention": _attention,
}
