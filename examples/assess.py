"""Assess: which encoders align, before anything large is trained.

For those who choose encoders. Each pair of a vision and a text candidate gets small heads, trained
on a few pairs and judged on others; cheap measures such as CKA stand beside them.
"""

# %%
# Images with captions: here a world of shapes that lateen draws. Put a folder of yours in its
# place, with `images/`, `train.csv` and `test.csv` (columns `image` and `caption`).
from pathlib import Path

import lateen
from lateen.demo import generate_world

data = generate_world(Path("demo-out/small-world"), train=400, test=100).folder

# %%
# The candidates: a folder, a name of the hub such as `facebook/dinov2-small`, or code as
# `module:function`. A baseline knows nothing; what is no better than it is not worth training.
recipe = {
    "data": {"root": data, "train": "train.jsonl", "test": "test.jsonl", "captions": ["short"]},
    "vision": [
        {"encoder": "lateen.demo.descriptor:describe"},
        {"encoder": "lateen.encoders.baselines:raw_pixels", "baseline": True},
    ],
    "text": [
        {"encoder": "sentence-transformers/all-MiniLM-L6-v2"},
        {"encoder": "lateen.encoders.baselines:bag_of_words", "baseline": True},
    ],
}
assessment = lateen.assess(recipe, out="runs/assess")

# %%
# Best first, by recall at 10 of both directions. All measures are in `runs/assess/report.html`;
# after a further candidate, only what is new is computed.
for row in assessment["rows"]:
    low, high = row["probe"]["interval"]
    pair = f"{row['vision_label']} × {row['text_label']}"
    print(f"{row['rank']}. {pair:40} {row['probe']['R@10']:5.1f} ({low:.1f}–{high:.1f})")
