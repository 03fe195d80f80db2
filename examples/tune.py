"""Tune: a better image tower, pulled to a stronger encoder on images alone.

For those who have a CLIP, a SigLIP or a model of lateen, and images without captions. Its text side
stays as it is; every checkpoint says what was gained and what it cost.
"""

# %%
# The model: here a small untrained convolution with heads, as a stand-in that needs no download.
# `"openai/clip-vit-base-patch16"`, or a folder of yours, goes in the place of `model`.
from pathlib import Path

import torch
from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

import lateen
from lateen.demo import generate_world

data = generate_world(Path("demo-out/small-world"), train=400, test=100).folder
torch.manual_seed(0)
sizes = ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic")
ResNetModel(sizes).save_pretrained("runs/tower")
ConvNextImageProcessorPil(size={"shortest_edge": 64}, crop_pct=1.0).save_pretrained("runs/tower")

recipe = {
    "data": {"root": data, "train": "train.jsonl", "test": "test.jsonl", "captions": ["short"]},
    "vision": {"encoder": "runs/tower"},
    "text": {"encoder": "sentence-transformers/all-MiniLM-L6-v2"},
}
lateen.run(recipe, out="runs/start")
model = "runs/start/model"

# %%
# The target is any vision encoder, such as `facebook/dinov2-with-registers-large`. `eval` names
# what is measured on the way; with `"stop.retrieval": 0.5`, losing more than half a point ends it.
tuned = lateen.tune(
    model,
    "lateen.demo.descriptor:describe",
    data / "images",
    out="runs/tuned",
    settings={
        "eval.captions": str(data / "test.jsonl"),
        "eval.images": str(data / "images"),
        "eval.classes": str(data / "unseen-colour"),
        "eval.linear_probe": False,
        "tune.epochs": 10,
        "tune.lr": 1e-3,
    },
)

# %%
# The page is `runs/tuned/report.html`; the model has the form that it came in.
print(tuned.results["verdict"])
tuned.model.encode_image([data / "images" / "test-0001.jpg"])
