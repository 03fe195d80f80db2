"""Commands that make and show feature stores: ``encode``, ``fuse``, ``inspect``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from lateen.cli.checks import check_encoder_name, check_inputs
from lateen.cli.output import say, show_json, show_table
from lateen.errors import Faults, UsageError

if TYPE_CHECKING:
    from lateen.features import Store

_RAY = Group("On a cluster")


def encode_command(
    source: str,
    /,
    *,
    encoder: Annotated[
        str, Parameter(help="hub id, folder, package.module:factory, or one behind a server: "
                       "openai+http://HOST/v1#MODEL")
    ],
    out: Annotated[Path, Parameter(help="folder of the feature store")],
    pooling: Annotated[
        str | None, Parameter(help="cls, mean, cls+mean, pooler, projection; texts: mean, first, "
                              "last, pooler (the encoder's own if known)")
    ] = None,
    layer: Annotated[int | None, Parameter(help="hidden layer, 0 = embeddings (last)")] = None,
    modality: Annotated[
        Literal["image", "text"] | None, Parameter(help="for encoders that have a tower for each")
    ] = None,
    column: Annotated[str | None, Parameter(help="caption column, if there are several")] = None,
    images: Annotated[Path | None, Parameter(help="folder of the images in a caption file")] = None,
    image_column: Annotated[str | None, Parameter(help="image column (guessed)")] = None,
    split: Annotated[str | None, Parameter(help="split of a dataset that has splits")] = None,
    texts_only: Annotated[
        bool, Parameter(help="captions whose image files are not here, as where image features are "
                        "there already: no image is looked for")
    ] = False,
    prompt: Annotated[str | None, Parameter(help="before every text, or around it at {}")] = None,
    max_tokens: Annotated[int | None, Parameter(help="cut longer texts (encoder's own)")] = None,
    dtype: Annotated[Literal["float16", "float32"], Parameter(help="on disk")] = "float16",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Parameter(help="of the forward pass; auto = bfloat16 where the processor has it"),
    ] = "auto",
    batch_size: Annotated[
        int | None, Parameter(help="images, or thousands of tokens, per forward pass "
                              "(CPU: 16 images, 1 k tokens; GPU: 256, 64 k)")
    ] = None,
    workers: Annotated[
        int | None, Parameter(help="threads that decode and prepare (one per core, at most 8)")
    ] = None,
    shard_items: Annotated[
        int | None, Parameter(help="per shard file (2,048 images or 8,192 captions)")
    ] = None,
    device: Annotated[
        str, Parameter(help="auto, cpu, cuda, ...; several with commas have a process each")
    ] = "auto",
    slice: Annotated[
        str | None,
        Parameter(help="of how many slices which: 3/16 encodes the third of sixteen into a folder "
                  "of its own, anywhere; `lateen merge` makes one store of all"),
    ] = None,
    on: Annotated[
        Literal["ray"] | None,
        Parameter(group=_RAY, help="ray: on a Ray cluster, whose machines all see SOURCE, the "
                  "encoder and --out by these names"),
    ] = None,
    address: Annotated[
        str | None,
        Parameter(group=_RAY, help="of the cluster: auto, ray://host:10001 (one on this machine)"),
    ] = None,
    actors: Annotated[
        int | None, Parameter(group=_RAY, help="processes that encode, anywhere in it (2)")
    ] = None,
    gpus_per_actor: Annotated[
        float | None, Parameter(group=_RAY, help="of each; 0.5 for two on one (0)")
    ] = None,
    cpus_per_actor: Annotated[
        float | None, Parameter(group=_RAY, help="of each, and threads of torch (1)")
    ] = None,
    revision: Annotated[str | None, Parameter(help="hub branch, tag or commit")] = None,
    trust_remote_code: Annotated[bool, Parameter(help="run a model repository's code")] = False,
    python: Annotated[
        str | None, Parameter(help="ENVIRONMENT/bin/python: the encoder runs there, with the torch "
                              "and transformers of that environment (this one)")
    ] = None,
    overwrite: Annotated[bool, Parameter(help="replace a store made differently")] = False,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:  # fmt: skip
    """Encode images or captions once, into a feature store that training reads.

    What cannot be read is left out and recorded in STORE/skipped.jsonl. A killed encode goes on
    when called again; a finished one is left as it is. With --slice it encodes a part of the data,
    as a job of an array does; merged, the parts are the store of one process, to the byte.

    Parameters
    ----------
    source
        Folder of images, class folder, caption file (CSV, TSV, JSONL, Parquet, COCO JSON),
        WebDataset shards, or the name of a Hugging Face dataset.
    """
    place = None if slice is None else _slice(slice)
    asked = {"--address": address, "--actors": actors, "--gpus-per-actor": gpus_per_actor,
             "--cpus-per-actor": cpus_per_actor}  # fmt: skip
    _check_where(on, slice, device, asked)
    faults = Faults()
    check_encoder_name(faults, encoder, revision, python)
    check_inputs(faults, sources=(source,), out=out, objects=True)
    from lateen.encoders import EncoderOptions
    from lateen.features import EncodeInputs, Share, encode, encode_slice
    from lateen.features.on_ray import Cluster, encode_on_ray

    options = EncoderOptions(
        pooling=pooling, layer=layer, prompt=prompt, max_tokens=max_tokens, revision=revision,
        precision=precision, trust_remote_code=trust_remote_code, python=python,
    )  # fmt: skip
    inputs = EncodeInputs(
        source, encoder, modality, column, images, image_column, split=split,
        texts_only=texts_only, options=options,
    )  # fmt: skip
    if place is not None:
        encode_slice(
            inputs, out, Share(*place), dtype=dtype, batch_size=batch_size,
            shard_items=shard_items, workers=workers, overwrite=overwrite, device=device,
        )  # fmt: skip
        _show_slice(out, slice, json)
        return
    if on is not None:
        cluster = Cluster(address, actors or 2, gpus_per_actor or 0, cpus_per_actor or 1)
        store = encode_on_ray(
            inputs, out, cluster, dtype=dtype, batch_size=batch_size, shard_items=shard_items,
            workers=workers, overwrite=overwrite,
        )  # fmt: skip
        summary(store, json)
        return
    store = encode(
        source, encoder, out, modality=modality, column=column, images=images,
        image_column=image_column, split=split, texts_only=texts_only, dtype=dtype,
        batch_size=batch_size, workers=workers, shard_items=shard_items, overwrite=overwrite,
        pooling=pooling, layer=layer, prompt=prompt, max_tokens=max_tokens, precision=precision,
        device=device, revision=revision, trust_remote_code=trust_remote_code, python=python,
    )  # fmt: skip
    summary(store, json)


def _check_where(
    on: str | None, slice: str | None, device: str, asked: Mapping[str, int | float | str | None]
) -> None:
    """See that what is said of where to encode is of one way.

    Raises:
        UsageError: it is of two, or there are fewer than one actor.
    """
    given = [name for name, value in asked.items() if value is not None]
    if on is None and given:
        raise UsageError(f"{given[0]} belongs to --on ray", "Give both, or neither.")
    if on is not None and slice is not None:
        raise UsageError("--on ray makes slices of its own", "Leave --slice out.")
    if on is not None and device != "auto":
        raise UsageError(f"--on ray takes no --device {device}", "Give --gpus-per-actor instead.")
    if slice is not None and "," in device:
        raise UsageError("a slice is encoded on one device", "Give more slices, and one device.")
    actors = asked["--actors"]
    if isinstance(actors, int) and actors < 1:
        raise UsageError(f"--actors is {actors}", "It must be at least 1.")


def _slice(text: str) -> tuple[int, int]:
    """``3/16`` as which slice, from 0, of how many.

    Raises:
        UsageError: it is not of that form, or there is no such slice.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise UsageError(f"--slice is {text!r}", "Give which of how many, such as 3/16.")
    index, of = int(match[1]), int(match[2])
    if not 1 <= index <= of:
        raise UsageError(f"there is no slice {text}", "Slices count from 1: 1/16 to 16/16.")
    return index - 1, of


def _show_slice(folder: Path, name: str | None, as_json: bool) -> None:
    from lateen.objects import to_path

    out = to_path(folder)
    shards = len(list(out.glob("shard-*.safetensors")))
    if as_json:
        show_json({"path": str(out), "slice": name, "shards": shards})
        return
    say(f"slice   {name} in {out}, {shards} {'shard' if shards == 1 else 'shards'}")
    say("next    when all are there: lateen merge SLICES --out STORE")


def merge_command(
    *slices: Path,
    out: Annotated[Path, Parameter(help="folder of the feature store")],
    overwrite: Annotated[bool, Parameter(help="replace a store made differently")] = False,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Make one store of the slices that `lateen encode --slice` made: that of one process.

    The slices stay; on one file system their shards are linked and take no further space.

    Parameters
    ----------
    slices
        The folders of all slices, in any order, or a pattern: 's3://bucket/slices/*'.
    """
    if not slices:
        raise UsageError("there are no slices to merge", "Give the folders of all of them.")
    check_inputs(Faults(), out=out, objects=True)
    from lateen.features import merge

    summary(merge(slices, out, overwrite=overwrite), json)


def fuse_command(
    *stores: Path,
    out: Annotated[Path, Parameter(help="folder of the fused store")],
    weights: Annotated[
        str | None, Parameter(help="of each store, with commas: 1,0.5 (1 each)")
    ] = None,
    dtype: Annotated[Literal["float16", "float32"], Parameter(help="on disk")] = "float16",
    overwrite: Annotated[bool, Parameter(help="replace a store made differently")] = False,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Join the features of several encoders, layers or poolings into one store.

    Rows are joined by id; every part is normalised, times its weight, and put beside the others.

    Parameters
    ----------
    stores
        Two or more feature stores of the same images (or of the same caption column).
    """
    numbers = _numbers(weights)
    check_inputs(Faults(), stores=stores, out=out, objects=True)
    from lateen.features import fuse

    summary(fuse(stores, out, weights=numbers, dtype=dtype, overwrite=overwrite), json)


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--weights cannot be {text!r}", "Give numbers with commas, such as 1,0.5."
        ) from error


def inspect_command(
    store: Path,
    /,
    *,
    verify: Annotated[bool, Parameter(help="read every byte and check its SHA-256")] = False,
    near: Annotated[
        Path | None,
        Parameter(
            help="list samples that are nearly the same as one in this store of "
            "the same encoder, such as another split; or in itself"
        ),
    ] = None,
    above: Annotated[
        float, Parameter(help="cosine from which on samples are nearly the same")
    ] = 0.95,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
) -> None:
    """Show what a feature store holds and how it was made.

    Parameters
    ----------
    store
        Folder of a feature store.
    """
    check_inputs(Faults(), stores=(store, near))
    from lateen.features import Store

    opened = Store.open(store, verify=verify)
    if near is None:
        summary(opened, json, verified=verify)
        return
    from lateen.features.store import near_duplicates
    from lateen.report.tables import near_table

    other = None if near.resolve() == store.resolve() else Store.open(near)
    found = near_duplicates(opened, other, above=above)
    if json:
        show_json({"path": str(store), "near": str(near), "above": above,
                   "pairs": [pair._asdict() for pair in found]})  # fmt: skip
    else:
        show_table(near_table([pair._asdict() for pair in found], len(opened), above, str(near)))


def summary(store: Store, as_json: bool, *, verified: bool = False) -> None:
    """Print what a store holds: a table, or its manifest as JSON."""
    if as_json:
        show_json({"path": str(store.path), **store.manifest.as_dict()})
        return
    from lateen.report.tables import inspect_table

    show_table(inspect_table(_facts(store, verified), title=str(store.path)))
    if store.skipped:
        first = store.skipped[0]
        say(f"skipped {len(store.skipped)}, the first: {first['source']}: {first['reason']}")
        say(f"all of them: {store.path / 'skipped.jsonl'}")


def _facts(store: Store, verified: bool) -> dict[str, Any]:
    manifest, description = store.manifest, store.manifest.description
    encoder = description.encoder
    size = sum(shard.bytes for shard in manifest.shards)
    facts: dict[str, Any] = {
        "modality": description.modality,
        "rows": len(store),
        "samples": len(set(store.ids)),
        "dim": store.dim,
        "encoder": encoder["id"],
        "pooling": encoder.get("pooling"),
        "layer": "last" if encoder.get("layer") is None else encoder["layer"],
        "precision": encoder.get("precision"),
        "weights (SHA-256)": str(encoder.get("weights"))[:16],
        "source": description.source,
        "column": description.column,
        "on disk": f"{description.dtype}, {len(manifest.shards)} shards, {size / 1e6:.1f} MB",
        "skipped": manifest.skipped,
        **manifest.notes,
        "first ids": ", ".join(store.ids[:3]),
        "key": description.key[:16],
        "versions": ", ".join(f"{k} {v}" for k, v in manifest.versions.items()),
    }
    if verified:
        facts["verified"] = "every byte matches its SHA-256"
    return {name: value for name, value in facts.items() if value is not None}
