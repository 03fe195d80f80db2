"""The functions that lateen_shapes.yaml names."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw


def draw(colour: str, shape: str) -> Image.Image:
    picture = Image.new("RGB", (64, 64), "white")
    pen = ImageDraw.Draw(picture)
    if shape == "triangle":
        pen.polygon([(32, 8), (8, 56), (56, 56)], fill=colour)
    else:
        (pen.ellipse if shape == "circle" else pen.rectangle)([8, 8, 56, 56], fill=colour)
    return picture


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    return [draw(*each) for each in doc["pictures"]]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, str]) -> str:
    ends = lmms_eval_specific_kwargs
    return f"{ends['pre_prompt']}{doc['question']}{ends['post_prompt']}"


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    words = results[0].lower().split()
    said = "yes" if words and words[0].startswith("yes") else "no"
    return {"accuracy": float(said == doc["answer"]), "said_yes": float(said == "yes")}
