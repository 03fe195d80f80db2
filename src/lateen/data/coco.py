"""COCO captions and Karpathy's splits, both JSON."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lateen.data.captions import CaptionDataset
from lateen.data.samples import PEEK, Skip, find_image_files, refuse_split, sample_id
from lateen.data.text import read_json
from lateen.errors import DataError, UsageError, choices


class _Image(NamedTuple):
    sample: str
    captions: Any
    source: str


class CocoCaptions(CaptionDataset):
    """Captions in one JSON file of COCO's form (``images`` and ``annotations``) or Karpathy's.

    Karpathy's (``dataset_coco.json``, ``dataset_flickr30k.json``, …: ``images`` with
    ``sentences``) divides the images into splits. The id is the ``file_name``, or ``filename``
    behind ``filepath`` where there is one. The caption column is ``caption``; there is none where
    the file has no captions at all, as for COCO's test images.

    Args:
        path: the JSON file.
        images: the folder that file names are relative to; if not given, where the files are found
            beside the JSON file or its folder.
        split: for Karpathy's, ``train``, ``restval``, ``val``, ``test``, or several joined by
            ``+``; every image if not given.

    Raises:
        DataError: the file is not of these forms, or not one of its images is there.
        UsageError: there is no such split.
    """

    def __init__(
        self, path: Path | str, *, images: Path | str | None = None, split: str | None = None
    ) -> None:
        content = _read(Path(path))
        try:
            entries, skips = _parse(content, split, str(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not of COCO's or Karpathy's form: an entry is malformed ({error!r})",
                "Download it again.",
            ) from error
        names = [entry.sample for entry in itertools.islice(entries, PEEK)]
        files = find_image_files(images, _usual_folders(Path(path)), names)
        columns = ("caption",) if any(entry.captions for entry in entries) else ()
        super().__init__(str(path), columns, files, merge=False)
        self.why_no_captions = "its annotations are empty, as those of test images are"
        for entry in entries:
            self.add_file(files, entry.sample, {"caption": entry.captions}, entry.source)
        for skip in skips:
            self.skip(skip)
        self.require_image(files)


def _usual_folders(path: Path) -> list[Path]:
    """Where COCO's and other sets keep the images of ``annotations/captions_val2017.json``."""
    above = path.parent.parent
    split = path.stem.rpartition("_")[2]
    folders = [path.parent, path.parent / "images", above / split, above / "images", above]
    return [*folders, path.parent / split]


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images or not all(isinstance(i, dict) for i in images):
        raise DataError(
            f"{path} is neither COCO captions nor Karpathy's splits: it has no list of images",
            "Give such a file, or the captions as CSV, TSV, JSON lines (.jsonl) or Parquet.",
        )
    return dict(content)


def _parse(
    content: Mapping[str, Any], split: str | None, path: str
) -> tuple[list[_Image], list[Skip]]:
    if any("sentences" in image for image in content["images"]):
        return _karpathy(content["images"], split, path), []
    refuse_split(path, split)
    return _coco(content, path)


def _karpathy(images: list[dict[str, Any]], split: str | None, path: str) -> list[_Image]:
    known = list(dict.fromkeys(str(image.get("split")) for image in images))
    chosen = known if split is None else split.split("+")
    for name in chosen:
        if name not in known:
            raise UsageError(f"{path} has no split {name!r}", choices(name, known))
    return [
        _Image(
            sample_id(posixpath.join(image.get("filepath", ""), image["filename"])),
            [sentence["raw"] for sentence in image["sentences"]],
            f"{path}:images[{index}]",
        )
        for index, image in enumerate(images)
        if str(image.get("split")) in chosen
    ]


def _coco(content: Mapping[str, Any], path: str) -> tuple[list[_Image], list[Skip]]:
    annotations = content.get("annotations", [])
    if annotations and not any("caption" in annotation for annotation in annotations):
        raise DataError(
            f"the annotations in {path} are not captions", "Give the captions_*.json file."
        )
    # A number and its text are the same id, as scripts write one here and the other there.
    captions: dict[str, list[Any]] = {str(image["id"]): [] for image in content["images"]}
    skips = []
    for index, annotation in enumerate(annotations):
        image = annotation.get("image_id")
        if str(image) in captions:
            captions[str(image)].append(annotation.get("caption"))
        else:
            reason = f"there is no image with the id {image!r}"
            source = f"{path}:annotations[{index}]"
            skips.append(Skip(str(image), reason, source, sample=False))
    images = [
        _Image(sample_id(image["file_name"]), captions[str(image["id"])], f"{path}:images[{index}]")
        for index, image in enumerate(content["images"])
    ]
    if annotations and len(skips) == len(annotations):
        raise DataError(
            f"not one of the {len(annotations)} annotations in {path} is of an image in it: the "
            f"first has the image_id {annotations[0].get('image_id')!r}, and the first image the "
            f"id {content['images'][0]['id']!r}",
            "Give the file whose images and annotations belong together.",
        )
    return images, skips
