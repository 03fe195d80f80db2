"""Commands that use a model on what the user has: ``classify``, ``embed``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lateen.cli.checks import check_inputs, check_model
from lateen.cli.keys import takes_hardware
from lateen.cli.models import BankPlace, TextPlace, VisionPlace
from lateen.cli.output import say, say_skipped, show_json, show_table
from lateen.errors import Faults, UsageError
from lateen.files import check_file, write_text

if TYPE_CHECKING:
    from lateen.indexing import Labelling
    from lateen.indexing.labels import LabelledPhotograph
    from lateen.report.tables import TableData

_ON_SHEET = 6  # photographs of a label: so many of the surest, and of the least sure
_MOST_LABELS = 40  # on a page
_RANKING = (
    "A confidence ranks the labels that were given; it is no probability that the label is true."
)


@takes_hardware()
def classify_command(
    model: Path,
    /,
    *,
    images: Annotated[Path, Parameter(help="folder of photographs, with its subfolders")],
    labels: Annotated[
        str, Parameter(help='with commas, "a dog,a cat"; or a text file with one a line')
    ],
    templates: Annotated[
        str | None,
        Parameter(
            help='a sentence with {} for the label, such as "a photo of {}."; a file with one a '
            "line; openai: the published ones; or the name of lateen's own for a kind of picture: "
            "sketch, small, food, scene, ... (eight for photographs)"
        ),
    ] = None,
    none: Annotated[
        bool,
        Parameter(
            help='also tell the photographs of "none of these": whose best label fits no better '
            "than --none-percent of 100 everyday words (CIFAR-100's class names). A test, not a "
            "probability: with many labels, more pass it by chance"
        ),
    ] = False,
    none_percent: Annotated[
        float | None,
        Parameter(help="from which a label is believed: higher, and fewer are labelled (90)"),
    ] = None,
    bank: BankPlace = None,
    out: Annotated[
        Path | None, Parameter(help="write a row for every photograph: a CSV file")
    ] = None,
    page: Annotated[
        Path | None,
        Parameter(help="write a contact sheet, the surest and least sure of each label: HTML"),
    ] = None,
    overwrite: Annotated[bool, Parameter(help="replace these files")] = False,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Label photographs: each gets the one of your labels that fits best.

    A confidence (0 to 1) is the label's share in a softmax over your labels, with the model's own
    scale. It ranks the labels you gave and is no probability of being true: a photograph of
    something else has a confident label, too. --none asks for more than being the best of a few.

    Parameters
    ----------
    model
        Folder of a model, such as runs/f8k/model; or a CLIP or SigLIP by folder or hub id.
    """
    if none_percent is not None and not none:
        raise UsageError("--none-percent belongs to --none", "Give both, or neither.")
    for file in (out, page):
        check_file(file, overwrite)
    faults = Faults()
    check_model(faults, model)
    check_inputs(faults, folders=(images,))
    from lateen.indexing import classify
    from lateen.model import open_model

    ready = open_model(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
    level = none if none_percent is None else none_percent
    labelling = classify(ready, images, labels, templates=templates, none=level, bank=bank)
    if out is not None:
        write_text(out, labelling.csv())
    if page is not None:
        _write_page(labelling, images, page)
    if json:
        show_json(labelling.as_dict())
        return
    show_table(_summary(labelling))
    say_skipped(labelling.skipped)
    for what, file in (("labels", out), ("page", page)):
        if file is not None:
            say(f"{what:<7}  {file}")


@takes_hardware()
def embed_command(
    target: str,
    /,
    *,
    images: Annotated[
        str | None,
        Parameter(help="a folder of photographs, with its subfolders; a table, shards or a hub id"),
    ] = None,
    texts: Annotated[
        Path | None,
        Parameter(help="a text file, one text a line; or a table or COCO JSON with captions"),
    ] = None,
    column: Annotated[str | None, Parameter(help="caption column of a table (its first)")] = None,
    out: Annotated[
        Path,
        Parameter(
            help="X.parquet with id, embedding and what is known of each row (path, captions, "
            "...); or float32 [rows, dim] with the ids one a line in X.ids.txt beside it: X.npy, "
            "X.safetensors (tensor embeddings), X.usearch or X.hnswlib (inner products, keys are "
            "rows from 0)"
        ),
    ],
    thumbnails: Annotated[
        int | None,
        Parameter(
            help="put pictures of so many pixels into X.parquet, as viewers may not read files: 160"
        ),
    ] = None,
    raw: Annotated[
        bool, Parameter(help="as the head gives them, instead of at unit length")
    ] = False,
    bank: Annotated[
        str,
        Parameter(
            help="put two values behind each embedding, so that inner products are cosines less "
            "hubness: model, for the bank that the model carries, or a file of `lateen bank`"
        ),
    ] = "none",
    overwrite: Annotated[bool, Parameter(help="replace the files")] = False,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Write the embeddings of images or texts, with their ids, for other tools.

    It says what opens the file: embedding-atlas shows a Parquet file as a map, which it makes
    itself. `lateen import` reads what this writes as numbers.

    Parameters
    ----------
    target
        Folder of a model, such as runs/f8k/model; a CLIP or SigLIP by folder or hub id; or an index
        (`lateen index`), whose embeddings are there: nothing is encoded.
    """
    from lateen.indexing.photo_index import is_index

    if not (indexed := is_index(target)):
        faults = Faults()
        check_model(faults, target)
        check_inputs(faults, sources=(images, texts))
    from lateen.indexing.vector_files import check_thumbnails, opening, output_files

    for file in output_files(out):
        check_file(file, overwrite)
    check_thumbnails(out, thumbnails)
    if thumbnails is not None and texts is not None:
        raise UsageError("there are no pictures of texts", "Leave --thumbnails out.")
    if indexed and (vision_encoder or text_encoder):
        raise UsageError(
            "an index needs no encoder here", "Leave --vision.encoder and the like out."
        )
    from lateen.indexing.embeddings import embed
    from lateen.model import open_model

    opened = target if indexed else open_model(
        target, vision_encoder=vision_encoder, text_encoder=text_encoder
    )  # fmt: skip
    embeddings = embed(opened, images=images, texts=texts, column=column, raw=raw, bank=bank)
    files = embeddings.save(out, thumbnails=thumbnails)
    opens = opening(embeddings, out, thumbnails=thumbnails is not None)
    rows, dim = embeddings.values.shape
    if json:
        show_json({
            "files": [str(file) for file in files], "rows": rows, "dim": dim,
            "unit_length": not raw and bank == "none", "bank": bank, "open": opens,
            "skipped": embeddings.skipped,
        })  # fmt: skip
        return
    say(
        f"{rows:,} embeddings of {dim} values, {'as the head gives them' if raw else 'unit length'}"
        + (" but for the last two, which are of hubness" if bank != "none" else "")
    )
    for skip in embeddings.skipped[:1]:
        say(f"{len(embeddings.skipped)} left out, the first: {skip['id']}: {skip['reason']}")
    for file, what in zip(files, ("embeddings", "ids"), strict=False):
        say(f"{what:<10}  {file}")
    say(f"{'to open':<10}  {opens}")


@takes_hardware()
def bank_command(
    model: Path,
    /,
    *,
    captions: Annotated[
        str, Parameter(help="images with captions: a table, COCO JSON, shards ...")
    ],
    images: Annotated[
        Path | None, Parameter(help="folder of the images (beside the table)")
    ] = None,
    column: Annotated[str | None, Parameter(help="caption column (the first)")] = None,
    split: Annotated[str | None, Parameter(help="of a source that has splits")] = None,
    size: Annotated[
        int | None, Parameter(help="images, and captions, all if there are fewer (2048)")
    ] = None,
    out: Annotated[Path | None, Parameter(help="the file (in the model's folder)")] = None,
    overwrite: Annotated[bool, Parameter(help="replace the file")] = False,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Give a model a query bank: known images and captions by which hubs are told.

    A few photographs are near to almost every sentence. With a bank, search, classify and the
    rankings of evaluate take off how near each is to captions that are known. What `lateen run` and
    `lateen train` make carries one; a CLIP gets one here. Take no images that will be judged.

    Parameters
    ----------
    model
        Folder of a model, such as runs/f8k/model; or a CLIP or SigLIP by folder or hub id.
    """
    check_file(out, overwrite)
    faults = Faults()
    check_model(faults, model)
    check_inputs(faults, sources=(captions, images), out=out and out.parent)
    from lateen.indexing.embeddings import BANK_SIZE, bank_file, build_bank
    from lateen.model import open_model

    ready = open_model(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
    if out is None:
        out = bank_file(ready, model)
        check_file(out, overwrite)
    bank = build_bank(
        ready,
        captions,
        images=images,
        column=column,
        split=split,
        size=BANK_SIZE if size is None else size,
        out=out,
    )
    if json:
        show_json({
            "file": str(out), "images": len(bank.images), "captions": len(bank.texts),
            "temperature": bank.temperature,
        })  # fmt: skip
        return
    say(f"{bank}, temperature {bank.temperature:.3f}")
    say(f"bank  {out}")


def _summary(labelling: Labelling) -> TableData:
    from lateen.report.tables import Column, TableData

    total = len(labelling.photographs)
    rows: list[list[Any]] = []
    for label, count in labelling.counts.items():
        sure = [p.confidence for p in labelling.of(label) if p.confidence is not None]
        median = statistics.median(sure) if sure else None
        rows.append([label, count, 100 * count / total, median])
    columns = [Column("label"), Column("photographs", 0), Column("%", 1), Column("confidence", 2)]
    note = f"{total:,} photographs; each label's median confidence. {_RANKING}"
    if labelling.conditions["bank"]:
        note += f" The labels' hubness is taken off (query bank: {labelling.conditions['bank']})."
    if labelling.conditions["none"]:
        note += f" None of these: {labelling.conditions['none']}."
    return TableData("Labels", columns, rows, note)


def _write_page(labelling: Labelling, images: Path, page: Path) -> None:
    from lateen.indexing.labels import NONE
    from lateen.report.page import Page
    from lateen.report.sheet import SheetHit, SheetRow

    def gallery(title: str, photographs: Sequence[LabelledPhotograph], *, doubted: bool) -> None:
        hits = [SheetHit(p.path, _caption(p, doubted), p.confidence) for p in photographs]
        sheet.gallery(SheetRow(title, hits))

    sheet = Page(f"Labels: {images.resolve().name}", _RANKING)
    sheet.table(_summary(labelling))
    by_count = sorted(labelling.counts.items(), key=lambda item: -item[1])
    shown = {label for label, count in by_count[:_MOST_LABELS] if count}
    for label in (label for label in labelling.labels if label in shown):
        photographs = labelling.of(label)
        sheet.section(f"{label} ({len(photographs):,})")
        none = label == NONE
        if len(photographs) <= 2 * _ON_SHEET:
            order = "worst fit first" if none else "the surest first"
            gallery(f"All of them, {order}", photographs, doubted=none)
            continue
        first, last = ("Fit worst", "Fit best") if none else ("Surest", "Least sure")
        gallery(first, photographs[:_ON_SHEET], doubted=none)
        gallery(last, photographs[: -_ON_SHEET - 1 : -1], doubted=True)
    if len(labelling.counts) > len(shown):
        left = len(labelling.counts) - len(shown)
        sheet.text(f"{left} labels have no photograph, or fewer than those above.")
    sheet.section("How the labels were given")
    facts = {
        name.replace("_", " "): "; ".join(value) if isinstance(value, list) else value
        for name, value in labelling.conditions.items()
    }
    scale = facts.pop("logit scale")
    sheet.facts({
        **{name: value for name, value in facts.items() if value is not None},
        "logit scale": f"{scale:.4g}", "could not be read": len(labelling.skipped),
    })  # fmt: skip
    sheet.save(page)


def _caption(photograph: LabelledPhotograph, doubted: bool) -> str:
    """The photograph's name; where its label is in doubt behind what else it might be."""
    if not doubted or photograph.runner_up is None:
        return photograph.id
    return f"or {photograph.runner_up} {photograph.runner_up_confidence:.2f} · {photograph.id}"
