"""Search: photographs found by a sentence, by a picture, or by both.

For those who have photographs and a model: here that of `train.py`, which runs first. A CLIP or
SigLIP does as well, by folder or by its name on the hub.
"""

# %%
# An index of a folder with all its subfolders. The same call later takes in what is new.
from pathlib import Path

import lateen
from lateen.indexing import Query

photographs = Path("demo-out/small-world/images")
index = lateen.index(photographs, "runs/train/model", "runs/index")
print(len(index), "photographs")

# %%
# Best first. Where nothing is like what was asked for, `found.nothing` says so; `cut=False`
# shows the nearest all the same.
found = index.search("a big blue heart", k=5, cut=False)
for hit in found.hits:
    print(f"{hit.score:.3f}  {hit.id}")

# %%
# A sentence and a picture together, and away from something. A picture alone is a `Path`.
picture = photographs / found.hits[0].id
for query in (Query.parse(f"2:a heart + {picture} - blue", files=True), picture):
    print(query, "→", [hit.id for hit in index.search(query, k=3).hits])

# %%
# Without an index of one's own: lateen keeps one in its cache folder.
[hits] = lateen.search("runs/train/model", "two stars", photographs, k=3)
print([hit.id for hit in hits])

# %%
# Each photograph with the label that fits best.
labelling = lateen.classify("runs/train/model", photographs, ["a heart", "a star", "a ring"])
print(labelling.counts)
