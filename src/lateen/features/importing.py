"""Features that were computed elsewhere, as a store: ``.npy``, ``.pt`` (weights-only), safetensors,
Parquet."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lateen.data.samples import sample_id
from lateen.data.text import read_list
from lateen.errors import StoreError, UsageError, reason
from lateen.features.manifest import Description, FeatureDtype
from lateen.features.store import Store
from lateen.features.writer import StoreWriter, refuse_no_store
from lateen.files import content_key, file_sha256, folder_lock
from lateen.objects import to_path
from lateen.progress import bar

_SUFFIXES = (".npy", ".pt", ".pth", ".safetensors", ".parquet")
_FEATURE_NAMES = ("features", "feature", "embeddings", "embedding", "vector", "image_features",
                  "text_features")  # fmt: skip
_ID_NAMES = ("id", "ids", "image_id", "image_ids", "text_id", "text_ids", "sample_id", "sample_ids",
             "image", "key", "keys", "filename", "filenames", "path", "paths")  # fmt: skip
SHARD_ROWS = 8192


def import_features(
    features: str | Path,
    out: str | Path,
    *,
    ids: str | Path | Sequence[str] | None = None,
    modality: Literal["image", "text"],
    encoder: str,
    column: str | None = None,
    dtype: FeatureDtype = "float16",
    overwrite: bool = False,
) -> Store:
    """Make a store from ready features.

    Rows with NaN or infinity are left out and recorded in ``skipped.jsonl``.

    Args:
        features: a ``.npy`` array ``[n, dim]``; a ``.pt`` tensor, or dict with one under
            ``features`` (and perhaps ``ids``); a safetensors file with one tensor; a Parquet file
            with a list column and an id column.
        out: the store's folder.
        ids: the sample id of every row: a sequence, or a text file with one id per line (or a JSON
            list). Ids join features to captions, written as
            :func:`~lateen.data.samples.sample_id` writes them; row order never does.
        modality: what the features are of.
        encoder: what made them, as a name.
        column: the caption column, for texts (``caption`` if not given).
        dtype: of the features on disk.
        overwrite: replace a store made differently.

    Raises:
        StoreError: a file that is not what its suffix says, the wrong shape or number of ids, or
            a torch file that holds more than tensors.
        DataError: the id file is not UTF-8.
        UsageError: no ids, or a suffix that is not known.
    """
    path, folder = Path(features), to_path(out)
    array, own_ids = _read(path)
    given = _given_ids(ids) if ids is not None else own_ids
    if given is None:
        raise UsageError(
            f"{path} does not say which sample each row is of",
            "Give --ids: a text file with one id per line.",
        )
    names = _as_ids(given, path if ids is None else ids)
    if array.ndim != 2:
        raise StoreError(
            f"{path} has shape {list(array.shape)}, features must be [rows, dim]", "Reshape it."
        )
    if len(names) != len(array):
        raise StoreError(
            f"{path} has {len(array)} rows but there are {len(names)} ids",
            "Give one id per row, in row order.",
        )
    _check_ids(names, modality)
    info = {"id": encoder, "modality": modality, "imported": path.suffix}
    description = Description(
        modality=modality, dim=int(array.shape[1]), encoder=info, encoder_key=content_key(info),
        source=path.name, fingerprint=content_key([file_sha256(path), names]),
        column=(column or "caption") if modality == "text" else None, dtype=dtype,
        shard_items=SHARD_ROWS,
    )  # fmt: skip
    refuse_no_store(folder)
    with folder_lock(folder):
        writer = StoreWriter(folder, description, overwrite=overwrite)
        if not writer.finished:
            _write(array, names, writer)
    return Store.open(folder)


def _check_ids(names: Sequence[str], modality: str) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not name.strip():
            raise StoreError(f"the id of row {row} is empty", "Give every row its sample's id.")
        if modality == "image" and name in first:
            raise StoreError(
                f"the image id {name!r} stands twice, in rows {first[name]} and {row}",
                "Ids join images to captions; give every image its own.",
            )
        first[name] = row


def _write(array: np.ndarray[Any, Any], names: list[str], writer: StoreWriter) -> None:
    with bar(len(array), "importing", "row", initial=writer.done) as progress:
        for start, rows in _shards(array, writer.done):
            finite = np.isfinite(rows).all(axis=1)
            ids = names[start : start + len(rows)]
            skipped = [
                {"id": ids[i], "reason": "NaN or infinity", "source": f"row {start + i}",
                 "sample": False, "column": writer.description.column}
                for i in np.flatnonzero(~finite)
            ]  # fmt: skip
            good = [name for name, is_good in zip(ids, finite, strict=True) if is_good]
            writer.write(torch.from_numpy(rows[finite]), good, skipped, len(rows))
            progress.update(len(rows))
    writer.finish()


def _shards(
    array: np.ndarray[Any, Any], begin: int
) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.float32]]]]:
    for start in range(begin, len(array), SHARD_ROWS):
        yield start, np.asarray(array[start : start + SHARD_ROWS], dtype=np.float32)


def _given_ids(ids: str | Path | Sequence[Any]) -> Any:
    if not isinstance(ids, str | Path):
        return ids
    path = Path(ids)
    if not path.is_file():
        raise UsageError(f"there is no id file {path}", "Give a text file, one id per line.")
    if path.suffix.lower() == ".npy":
        return _load_npy(path)
    return read_list(path)


def _as_ids(given: Any, source: object) -> list[str]:
    """Ids in their normal form, from texts or whole numbers, in whatever list or array they are.

    Raises:
        StoreError: one is neither.
    """
    values = given.tolist() if isinstance(given, torch.Tensor | np.ndarray) else list(given)
    ids = []
    for row, value in enumerate(values):
        whole = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if isinstance(whole, float | np.floating) and float(whole).is_integer():
            whole = int(whole)  # as pandas writes a column of numbers in which one is missing
        is_whole = isinstance(whole, int | np.integer) and not isinstance(whole, bool)
        if not is_whole and not isinstance(whole, str):
            what = source if isinstance(source, str | Path) else "the list of ids"
            raise StoreError(
                f"the id of row {row} in {what} is {whole!r}, neither text nor a whole number",
                "Give ids as texts or whole numbers.",
            )
        ids.append(sample_id(str(whole)))
    return ids


def _read(path: Path) -> tuple[np.ndarray[Any, Any], Sequence[Any] | None]:
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"cannot import {path.name}: unknown suffix {path.suffix!r}",
            f"Known are {', '.join(_SUFFIXES)}.",
        )
    if not path.is_file():
        raise StoreError(f"there is no file {path}", "Check the path.")
    readers = {".npy": _read_npy, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    return readers.get(path.suffix.lower(), _read_torch)(path)


def _load_npy(path: Path) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StoreError(
            f"{path} is not a plain NumPy array ({reason(error)})",
            "Save it with numpy.save, features as floats, ids as texts or whole numbers.",
        ) from error
    return array


def _read_npy(path: Path) -> tuple[np.ndarray[Any, Any], None]:
    array = _load_npy(path)
    if array.dtype.kind != "f":
        raise StoreError(f"{path} holds {array.dtype}, features are floats", "Convert it.")
    return array, None


def _read_torch(path: Path) -> tuple[np.ndarray[Any, Any], Sequence[Any] | None]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be loaded as tensors alone: it is damaged, or it holds other Python "
            "objects, which lateen never unpickles",
            "Save the feature tensor alone with torch.save, or as .npy.",
        ) from error
    ids = None
    if isinstance(content, dict):
        ids = next((content[k] for k in _ID_NAMES if k in content), None)
        content = next((content[k] for k in _FEATURE_NAMES if k in content), content)
    if not isinstance(content, torch.Tensor):
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise StoreError(
            f"{path} holds no feature tensor ({keys})",
            "Save a tensor, or a dict with one under 'features'.",
        )
    return content.float().numpy(), ids


def _read_safetensors(path: Path) -> tuple[np.ndarray[Any, Any], None]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{path} is not a readable safetensors file ({reason(error)})", "Write it again."
        ) from error
    named = [name for name in tensors if name in _FEATURE_NAMES] or list(tensors)
    if len(named) != 1:
        raise StoreError(
            f"{path} has {len(named)} tensors ({', '.join(named) or 'none'})",
            f"Name the features one of: {', '.join(_FEATURE_NAMES)}.",
        )
    return tensors[named[0]].float().numpy(), None


def _read_parquet(path: Path) -> tuple[np.ndarray[Any, Any], Sequence[Any] | None]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{path} is not a readable Parquet file ({error})", "Write it again."
        ) from error
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    lists = [
        field.name for field in table.schema
        if any(kind(field.type) for kind in kinds)
    ]  # fmt: skip
    named = [name for name in lists if name in _FEATURE_NAMES] or lists
    if len(named) != 1:
        raise StoreError(
            f"{path} has {len(lists)} list columns ({', '.join(lists) or 'none'})",
            f"Name the features column one of: {', '.join(_FEATURE_NAMES)}.",
        )
    rows = table[named[0]].combine_chunks()
    lengths = sorted(set(pc.list_value_length(rows).fill_null(0).to_pylist()))
    if len(lengths) != 1:
        raise StoreError(
            f"{path} has feature rows of different lengths: {lengths[:4]}", "Correct them."
        )
    values = rows.flatten().to_numpy(zero_copy_only=False)
    ids = next((table[n].to_pylist() for n in _ID_NAMES if n in table.column_names), None)
    return values.reshape(len(rows), -1), ids
