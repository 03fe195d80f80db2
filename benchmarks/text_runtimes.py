"""Texts encoded by other runtimes, like for like: float32, one thread, the same captions.

    OMP_NUM_THREADS=1 python benchmarks/text_runtimes.py captions.csv

sentence-transformers as it comes, lateen's encoder with batches of several sizes, the same network
exported to ONNX and run by onnxruntime, with and without its fused operators for BERT, and the
same compiled by torch. Rounds in turns; seconds of the processor, the least of all rounds, without
what exporting and compiling take, which is told. How far features are from lateen's is told, too.
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from sentence_transformers import SentenceTransformer

from lateen.encoders import load_encoder
from lateen.encoders.resolve import resolve
from lateen.features import token_batches
from lateen.model.graphs import MASK, TOKENS, write_graph
from lateen.report.tables import Column, TableData

ENCODER = "all-MiniLM-L6-v2"


class Features(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.network(ids, mask)


def graph_of(network: torch.nn.Module, path: Path) -> None:
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=256)}
    # Two tensors: one that is given twice would be one input.
    example = torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.long)
    write_graph(Features(network), example, (shape, shape), (TOKENS, MASK), "text_features", path)


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="CSV with a column caption")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="torch.compile, too: minutes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with given.captions.open(encoding="utf-8") as file:
        texts = [row["caption"] for row in csv.DictReader(file)][: given.count]
    encoder = load_encoder(ENCODER, "text", precision="float32")
    peer = SentenceTransformer(str(resolve(ENCODER).folder), device="cpu")
    lengths = [len(row) for row in encoder.prepare(texts)]
    sides: dict[str, Callable[[], np.ndarray]] = {
        "sentence-transformers": lambda: peer.encode(texts, show_progress_bar=False)
    }

    def batched(forward: Callable, tokens: int) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            rows = encoder.prepare(texts)
            out = np.empty((len(rows), encoder.info.dim), np.float32)
            for batch in token_batches(lengths, tokens):
                out[batch] = forward(*encoder.pad_batch([rows[i] for i in batch]))
            return out

        return run

    @torch.inference_mode()
    def by_torch(ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        return encoder.network(ids, mask).numpy()

    for tokens in (1024, 4096):
        sides[f"lateen, {tokens} tokens a batch"] = batched(by_torch, tokens)
    with tempfile.TemporaryDirectory() as name:
        plain, fused = Path(name) / "plain.onnx", Path(name) / "fused.onnx"
        begun = time.perf_counter()
        graph_of(encoder.network, plain)
        exported = time.perf_counter() - begun
        from onnxruntime.transformers import optimizer

        optimizer.optimize_model(
            str(plain), model_type="bert", num_heads=12, hidden_size=384
        ).save_model_to_file(str(fused))
        for what, path in (("onnxruntime", plain), ("onnxruntime, fused", fused)):
            ready = session(path)

            def by_graph(
                ids: torch.Tensor, mask: torch.Tensor, ready: object = ready
            ) -> np.ndarray:
                return ready.run(None, {TOKENS: ids.numpy(), MASK: mask.numpy()})[0]

            for tokens in (1024, 4096):
                sides[f"{what}, {tokens} tokens a batch"] = batched(by_graph, tokens)
        if given.compile:
            compiled = torch.compile(encoder.network, dynamic=True)

            @torch.inference_mode()
            def by_compiled(ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
                return compiled(ids, mask).numpy()

            sides["torch.compile, 1024 tokens a batch"] = batched(by_compiled, 1024)
        own = sides["lateen, 4096 tokens a batch"]()
        took: dict[str, list[float]] = {name: [] for name in sides}
        apart = {name: float(np.abs(run() - own).max()) for name, run in sides.items()}
        for _ in range(given.rounds):
            for name, run in sides.items():
                begun = time.process_time()
                run()
                took[name].append(time.process_time() - begun)
    first = min(took["sentence-transformers"])
    rows = [
        [name, len(texts) / min(times), first / min(times), f"{apart[name]:.0e}"]
        for name, times in took.items()
    ]
    columns = [Column(""), Column("texts a second", 0), Column("ratio", 2), Column("apart")]
    print(TableData(f"{len(texts):,} captions; exporting took {exported:.0f} s", columns, rows)
          .markdown())  # fmt: skip


if __name__ == "__main__":
    main()
