"""Commands around an index of photographs: ``index``, ``search``, ``duplicates``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lateen.cli.checks import check_inputs, check_model
from lateen.cli.keys import takes_hardware
from lateen.cli.models import BankPlace, TextPlace, VisionPlace
from lateen.cli.output import say, say_skipped, show_json, show_table
from lateen.errors import DataError, Faults, UsageError
from lateen.files import make_folder

if TYPE_CHECKING:
    from lateen.indexing import Found, Hit, Index, Query

_GROUPS_SHOWN = 20

Since = Annotated[
    str | None, Parameter(help="taken in that year, month or day or later: 2024, 2024-05-31")
]
Until = Annotated[str | None, Parameter(help="taken before its end")]
Folder = Annotated[str | None, Parameter(help="in that folder of the index, or below it")]
Where = Annotated[
    str | None,
    Parameter(help='true of their columns, in SQL: "width > 2000 AND rating >= 4"'),
]


@takes_hardware()
def index_command(
    source: str,
    /,
    *,
    model: Annotated[
        str, Parameter(help="folder of a model; or a CLIP or SigLIP by folder or hub id")
    ],
    out: Annotated[
        str, Parameter(help="the index: a folder, or an object store (s3://bucket/index)")
    ],
    images: Annotated[
        Path | None, Parameter(help="folder of the images that a table names")
    ] = None,
    captions: Annotated[
        list[str] | None, Parameter(help="caption columns of a table", consume_multiple=True)
    ] = None,
    split: Annotated[str | None, Parameter(help="of a source that has splits")] = None,
    bank: BankPlace = None,
    overwrite: Annotated[
        bool, Parameter(help="make it anew; what is known is not encoded again")
    ] = False,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Make an index of photographs, or bring it up to date: only what is new is encoded.

    Photographs that are moved or copied are not encoded again, those that are gone are removed.
    Killed at any point, the same command goes on. With the photographs are their size, place and
    date (EXIF), rating, captions, and every column of a table, to filter by.

    Parameters
    ----------
    source
        A folder of photographs, with its subfolders; or a table, shards or a hub id.
    """
    faults = Faults()
    check_model(faults, model)
    check_inputs(faults, sources=(source,), folders=(images,), out=_local(out))
    from lateen.indexing.building import update_index
    from lateen.indexing.contents import Contents
    from lateen.indexing.given_model import GivenModel

    given = GivenModel(model, vision_encoder=vision_encoder, text_encoder=text_encoder)
    contents = Contents.of(source, images=images, captions=captions or (), split=split)
    update = update_index(out, contents, given, bank=bank, overwrite=overwrite)
    if json:
        show_json({"index": out, **update.as_dict()})
        return
    moved = f" ({update.moved:,} known by another name)" if update.moved else ""
    say(
        f"{update.count:,} photographs: {update.added:,} added{moved}, {update.changed:,} changed, "
        f"{update.removed:,} removed"
    )
    say_skipped(update.unreadable)
    say(f'index  {out}   (lateen search {out} "..." finds, lateen serve {out} shows a page)')


@takes_hardware()
def search_command(
    target: str,
    /,
    *query: str,
    image: Annotated[
        Path | None,
        Parameter(help="look for photographs like this one, beside the words if any"),
    ] = None,
    like: Annotated[
        str | None, Parameter(help="look for photographs like one of the index, by its id")
    ] = None,
    images: Annotated[
        Path | None, Parameter(help="folder of photographs, if MODEL is given instead of an index")
    ] = None,
    k: Annotated[int, Parameter(name="--k", help="how many to find at most")] = 12,
    since: Since = None,
    until: Until = None,
    folder: Folder = None,
    where: Where = None,
    cut_off: Annotated[
        float | None,
        Parameter(
            help="leave out what shows it with a smaller probability, in percent; 0 leaves out "
            "nothing (the model's own, by its calibration, if it has one)"
        ),
    ] = None,
    bank: BankPlace = None,
    out: Annotated[Path | None, Parameter(help="also write a contact sheet (PNG)")] = None,
    copy_to: Annotated[Path | None, Parameter(help="also copy what is found to a folder")] = None,
    link_to: Annotated[Path | None, Parameter(help="also make links to it in a folder")] = None,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Find the photographs that a sentence describes, or that are like an image.

    Words and pictures can be put together and weighed: `2:golden retriever + pool.jpg - fruit`. A
    sign has a space on both sides; "..." is a sentence as it stands. What likely shows nothing of
    it is left out.
    An index is asked as it is; of MODEL with --images DIR, lateen keeps an index by itself and
    looks for what is new. With a query bank, photographs that are near to every sentence stand
    further back: they are ordered by their score less their hubness. A photograph that is the
    query itself, to the byte, is no hit, and told.

    Parameters
    ----------
    target
        An index (`lateen index`); or with --images, a model's folder, such as runs/f8k/model, or a
        CLIP or SigLIP by folder or hub id.
    query
        What to look for, in words.
    """
    asked = _query(query, image, like)
    index, skipped = _opened(target, images, bank, (vision_encoder, text_encoder), out)
    from lateen.indexing import Filters

    cut: bool | float = True if cut_off is None else cut_off / 100
    found = index.search(
        asked, k=k, filters=Filters(since, until, folder, where), cut=cut or False,
        bank=str(bank) != "none",
    )  # fmt: skip
    if out is not None:
        _write_sheet(asked, found, out)
    if copy_to is not None or link_to is not None:
        _gather(found.hits, copy_to, link_to)
    if json:
        show_json({**found.as_dict(), "skipped": skipped})
        return
    _show(found, index, asked)
    say_skipped(skipped)
    for what, place in (("contact sheet", out), ("copies", copy_to), ("links", link_to)):
        if place is not None:
            say(f"{what:<13}  {place}")


@takes_hardware()
def duplicates_command(
    target: str,
    /,
    *,
    images: Annotated[
        Path | None, Parameter(help="folder of photographs, if MODEL is given instead of an index")
    ] = None,
    near: Annotated[float | None, Parameter(help="cosine from which on two count (0.9)")] = None,
    vision_encoder: VisionPlace = None,
    text_encoder: TextPlace = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Find photographs that are nearly the same: copies, other sizes, shots of one burst.

    Every photograph is compared with every other one, and nothing is removed. A group begins with
    its largest picture.

    Parameters
    ----------
    target
        An index (`lateen index`); or with --images, a model's folder.
    """
    index, _ = _opened(target, images, None, (vision_encoder, text_encoder), None)
    from lateen.indexing.duplicates import NEAR, find_duplicates
    from lateen.report.tables import duplicates_table

    level = NEAR if near is None else near
    groups = [group.as_dict() for group in find_duplicates(index, near=level)]
    if json:
        show_json({"near": level, "among": len(index), "groups": groups})
        return
    show_table(duplicates_table(groups, len(index), level, limit=_GROUPS_SHOWN))


def with_minus(words: list[str]) -> list[str]:
    """The words of ``search`` with a minus sign for a lone hyphen, which would be an option."""
    if words[:1] != ["search"]:
        return words
    return [f"−{word[1:]}" if word == "-" or word.startswith("- ") else word for word in words]


def _query(words: Sequence[str], image: Path | None, like: str | None) -> Query:
    """What is looked for.

    Raises:
        UsageError: nothing.
        DataError: a picture that is not there.
    """
    from lateen.indexing import Query, Term

    text = " ".join(words)
    if words and not text.strip():
        raise UsageError("the query is empty", "Say in a few words what to look for.")
    if not words and image is None and like is None:
        raise UsageError(
            "there is nothing to look for", "Give a sentence, --image FILE or --like ID."
        )
    terms = list(Query.parse(text, files=True).terms) if words else []
    if image is not None:
        if not image.is_file():
            raise DataError(f"there is no image {image}", "Check the path of the query.")
        terms.append(Term(1.0, image=image))
    if like is not None:
        terms.append(Term(1.0, id=like))
    return Query(tuple(terms))


def _opened(
    target: str, images: Path | None, bank: str | None, encoders: tuple[str | None, str | None],
    out: Path | None,
) -> tuple[Index, list[dict[str, str]]]:  # fmt: skip
    """The index, and what could not be read of a folder that was looked through.

    Raises:
        LateenError: something is not there.
    """
    from lateen.indexing.given_model import GivenModel
    from lateen.indexing.photo_index import Index, is_index

    faults = Faults()
    if is_index(target):
        check_inputs(faults, out=out and out.parent)
        if images is not None:
            raise UsageError(
                f"{target} is an index, which knows its photographs", "Leave --images out."
            )
        if bank not in (None, "none", "model"):
            raise UsageError(
                f"the hubness in {target} is by its own query bank",
                "Leave --bank out, or say none; lateen index ... --bank FILE makes another.",
            )
        index = Index.open(target)
        if encoders != (None, None):
            vision, text = encoders
            moved = GivenModel(index.about.model, vision_encoder=vision, text_encoder=text)
            index = Index.open_for(target, moved)
        return index, []
    if images is None:
        raise UsageError(
            f"{target} is no index, and no photographs are given to search",
            "Give --images DIR beside a model; or make one: lateen index DIR --model MODEL --out "
            "INDEX.",
        )
    check_model(faults, target)
    check_inputs(faults, folders=(images,), out=out and out.parent)
    from lateen.indexing.folders import folder_index

    vision, text = encoders
    given = GivenModel(target, vision_encoder=vision, text_encoder=text)
    index, update = folder_index(given, images, bank=bank)
    return index, update.unreadable


def _show(found: Found, index: Index, asked: Query) -> None:
    from lateen.report.tables import hits_table

    if found.nothing and found.nearest is not None and found.cut_off is not None:
        say(
            f"nothing like that among {found.among:,} photographs: the nearest, "
            f"{found.nearest.id}, shows it with a probability of "
            f"{100 * (found.nearest.probability or 0):.1f} %, and the cut-off is "
            f"{100 * found.cut_off:.1f} %. --cut-off 0 shows the nearest anyway."
        )
        return
    title = f"like {asked.terms[0]}" if not asked.texts and len(asked.terms) == 1 else found.query
    show_table(hits_table([hit.as_dict() for hit in found.hits], title=title))
    left = "" if found.cut_off is None else f"; cut-off {100 * found.cut_off:.1f} %"
    say(f"among {found.among:,} photographs, as of {index.about.updated[:16]}{left}")
    if found.same:
        say(f"left out, as it is the query itself: {', '.join(found.same)}")


def _local(out: str) -> Path | None:
    return None if "://" in out else Path(out)


def _gather(hits: Sequence[Hit], copy_to: Path | None, link_to: Path | None) -> None:
    """Copies of, and links to, what was found, numbered by rank; what is there stays."""
    digits = len(str(len(hits)))
    for folder, put in ((copy_to, shutil.copy2), (link_to, os.symlink)):
        for rank, hit in enumerate(hits, start=1):
            if folder is None or not hit.path.is_file():
                continue
            place = make_folder(folder) / f"{rank:0{digits}d}-{hit.path.name}"
            if place.exists() or place.is_symlink():
                raise UsageError(f"{place} exists", "Give a folder without results of a search.")
            put(hit.path.absolute(), place)


def _write_sheet(query: Query, found: Found, out: Path) -> None:
    from lateen.report.sheet import SheetHit, SheetRow, contact_sheet, save_png

    shown = [
        SheetHit(hit.path, hit.id, hit.score if hit.adjusted is None else hit.adjusted)
        for hit in found.hits
    ]
    shown = [*(SheetHit(image, "the query") for image in query.images), *shown]
    save_png(contact_sheet([SheetRow(found.query, shown)]), out)
