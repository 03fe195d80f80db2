"""The model card of a multimodal language model: what it is made of, what was trained, and on
which tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNTRAINED, TRAINED = "untrained", "trained"
"""What a record calls a projector that no training has seen, and one that a training has."""
Record = Mapping[str, Any]


def model_card(name: str, record: Record) -> str:
    """The content of ``README.md``.

    Args:
        name: of the folder.
        record: what ``mllm.json`` says.
    """
    tower, llm = record["tower"], record["llm"]
    swaps = "".join(f"{paragraph}\n\n" for paragraph in _swaps(record))
    return (
        "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\ntags: [lateen]\n---\n\n"
        f"# {name}\n\nA multimodal language model: {llm['name']} sees an image as "
        f"{tower['tokens_per_image']} tokens of {tower['encoder']['id']} through a projector of "
        "two layers, put together by lateen as transformers' Llava.\n\n"
        f"{_projector(record)}\n\n{swaps}"
        "```python\nimport lateen  # tells transformers of the tower\n"
        "from transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        'model = AutoModelForImageTextToText.from_pretrained("path/to/this/folder")\n'
        'processor = AutoProcessor.from_pretrained("path/to/this/folder")\n```\n'
    )


def tower_of_projector(record: Record) -> Record:
    """The tower that the projector was last trained with, or made for.

    Args:
        record: with the swaps since, if there were any.
    """
    stages = len(record.get("stages") or ())
    since = [each for each in record.get("swapped") or () if each["stages"] == stages]
    tower: Record = since[0]["tower"] if since else record["tower"]
    return tower


def _projector(record: Record) -> str:
    if record.get("projector") == UNTRAINED:
        return "**Its projector is untrained**: its answers have nothing to do with the image."
    of = tower_of_projector(record)["encoder"]["id"]
    since = ", and on no other tower since" if record.get("swapped") else ""
    stages = "".join(f"\n* {_stage(stage)}" for stage in record.get("stages") or ())
    told = f"Its projector was trained on the tokens of {of}{since}."
    return f"{told}\n{stages}" if stages else told


def _stage(stage: Record) -> str:
    """What was learned in a stage."""
    data, check = stage["data"], stage["check"]
    tuned = f" ({stage['tune']})" if stage["tune"] else ""
    told = (
        f"Stage {stage['stage']}{tuned}: {stage['steps']:,} steps on {data['conversations']:,} "
        f"conversations about {data['images']:,} images of {data['name']}."
    )
    if not check:
        return told
    return (
        f"{told} Loss of a token on {check['n']:,} held-out images: {check['own']:.3f} under the "
        f"own image, {check['another']:.3f} under another's."
    )


def _swaps(record: Record) -> list[str]:
    """What was put in place of what, without training."""
    swaps = record.get("swapped") or ()
    after = [*(each["tower"] for each in swaps[1:]), record["tower"]]
    return [
        f"**Its tower was swapped without training**: {now['encoder']['id']} (weights "
        f"{each['tower_weights']['after'][:12]}) in place of {each['tower']['encoder']['id']} "
        f"({each['tower_weights']['before'][:12]}). Language model and projector are unchanged, by "
        f"the hash of their weights: {each['language_model'][:12]} and {each['projector'][:12]}."
        for each, now in zip(swaps, after, strict=False)
    ]
