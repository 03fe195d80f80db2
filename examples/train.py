"""Train: a CLIP from two frozen encoders, and how good it is.

For those who have images with captions. Each encoder runs once over the data; what is trained is
the small alignment between them.
"""

# %%
# Images with captions: here a world of shapes that lateen draws. Put a folder of yours in its
# place, with `images/`, `train.csv` and `test.csv` (columns `image` and `caption`).
from pathlib import Path

import lateen
from lateen.demo import generate_world

data = generate_world(Path("demo-out/small-world"), train=400, test=100).folder

# %%
# The whole path in one call: encode, train, evaluate, and a page in `runs/train/report.html`.
# Called again, it does nothing twice. `lateen keys` lists what a recipe may say.
recipe = {
    "data": {"root": data, "train": "train.jsonl", "test": "test.jsonl",
             "captions": ["short", "detailed"]},
    "vision": {"encoder": "lateen.demo.descriptor:describe"},
    "text": {"encoder": "sentence-transformers/all-MiniLM-L6-v2"},
}  # fmt: skip
result = lateen.run(recipe, out="runs/train")
print(result.results["retrieval"]["text_to_image"])

# %%
# The same, step by step. Features are joined by the images' ids, never by position.
table, images = data / "train.jsonl", data / "images"
pairs = lateen.pair(
    lateen.encode(table, "lateen.demo.descriptor:describe", "runs/stores/images", images=images),
    lateen.encode(table, "all-MiniLM-L6-v2", "runs/stores/detailed", column="detailed"),
)
model = lateen.train(pairs, epochs=10)
model.save_pretrained("runs/my-clip")

# %%
# A model is used as any CLIP: embeddings are L2-normalised, so a product is a cosine.
found = model.encode_image([images / "test-0001.jpg"])  # [1, dim]
words = model.encode_text(["a red star", "a blue ring"])  # [2, dim]
print(found @ words.T)
