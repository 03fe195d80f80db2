"""What commands look at before they load torch: whether what was named is there.

All that is wrong is said at once. What takes reading is left to the functions that read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.errors import DataError, Faults, StoreError, UsageError, choices

if TYPE_CHECKING:
    from lateen.mllm.config import MultimodalRecipe
    from lateen.tuning.config import TuneRecipe

# What is imported in the functions needs numpy and pillow, and `lateen --help` does not.


def check_model(faults: Faults, model: str | Path) -> None:
    """See that a model is there, or may be on the hub.

    Args:
        faults: gets what is wrong.
        model: a folder, or a hub id.
    """
    from lateen.encoders.resolve import check_model_folder

    with faults.note():
        check_model_folder(model)


def check_encoder_name(
    faults: Faults, name: str, revision: str | None = None, python: str | None = None
) -> None:
    """See that an encoder is here, or may be on the hub.

    Args:
        faults: gets what is wrong.
        name: of the encoder.
        revision: hub branch, tag or commit.
        python: of another environment, which it is to run in.
    """
    from lateen.encoders.resolve import files_are_here, find_python

    with faults.note():
        files_are_here(name, revision)
    with faults.note():
        if python is not None:
            find_python(python)


def check_tower(faults: Faults, name: str) -> None:
    """See that what a vision tower is made of is there, a model or an encoder.

    Args:
        faults: gets what is wrong.
        name: its folder, or a hub id.
    """
    from lateen.encoders.resolve import is_lateen_model

    with faults.note():
        if is_lateen_model(Path(name).expanduser()):
            return
    check_encoder_name(faults, name)


def check_language(faults: Faults, path: str) -> None:
    """See that a language model is there, or may be on the hub.

    Args:
        faults: gets what is wrong.
        path: a folder, a GGUF file, or a hub id.
    """
    from lateen.encoders.resolve import check_language_model

    with faults.note():
        check_language_model(path)


def check_mllm(faults: Faults, path: str | Path) -> None:
    """See that a multimodal language model is there, or may be on the hub.

    Args:
        faults: gets what is wrong.
        path: a folder, or a hub id.
    """
    from lateen.encoders.resolve import check_mllm_folder

    with faults.note():
        check_mllm_folder(path)


def check_captioner(faults: Faults, model: str) -> None:
    """See that a model that captions is there, may be on the hub, or is named as behind a server.

    Args:
        faults: gets what is wrong.
        model: the address of a server with the model, a folder, or a hub id.
    """
    from lateen.encoders.openai_server import check_address, is_server

    if not is_server(model):
        check_mllm(faults, model)
        return
    with faults.note():
        check_address(model, "the model")


def known_benchmarks() -> dict[str, str]:
    """Every benchmark of ``lateen mllm evaluate`` and its summary, as
    :func:`lateen.mllm.benchmarks.benchmark.benchmark_summaries` has them."""
    from lateen.exports import module_summaries
    from lateen.mllm.benchmarks import sets

    return module_summaries(sets.__path__)


def check_benchmark(faults: Faults, name: str) -> None:
    """See that there is a benchmark of that name.

    Args:
        faults: gets what is wrong.
        name: as ``--benchmark`` takes it.
    """
    known = known_benchmarks()
    with faults.note():
        if name not in known:
            raise UsageError(f"there is no benchmark {name!r}", choices(name, known))


def check_question_suite(faults: Faults, name: str) -> None:
    """See that there is a suite of questions of that name.

    Args:
        faults: gets what is wrong.
        name: as ``--suite`` takes it.
    """
    from lateen.evaluation.published import MLLM_SUITES

    with faults.note():
        if name not in MLLM_SUITES:
            raise UsageError(f"there is no suite {name!r}", choices(name, MLLM_SUITES))


def check_inputs(
    faults: Faults, *, sources: Iterable[str | Path | None] = (),
    folders: Iterable[Path | None] = (), stores: Iterable[Path | None] = (),
    out: Path | None = None, objects: bool = False,
) -> None:  # fmt: skip
    """See that what a command reads is there, and that it may write; raise all that is wrong.

    Args:
        faults: what is wrong so far.
        sources: datasets, in any form.
        folders: that must be there.
        stores: feature stores.
        out: a folder to write to.
        objects: whether it may be in an object store.

    Raises:
        LateenError: something is not there, or cannot be written.
    """
    from lateen.data.open import check_source
    from lateen.files import check_writable
    from lateen.objects import to_path

    for source in sources:
        with faults.note():
            if source is not None:
                check_source(source)
    for folder in folders:
        with faults.note():
            if folder is not None and not to_path(folder).is_dir():
                raise DataError(f"there is no folder {folder}", "Check the path.")
    for store in stores:
        with faults.note():
            if store is not None and not (path := to_path(store)).exists():
                raise StoreError(
                    f"{path} does not exist", "Make one with `lateen encode` or `lateen import`."
                )
    with faults.note():
        if out is not None:
            check_writable(to_path(out) if objects else out)
    faults.raise_all()


def check_tuning(plan: TuneRecipe, out: Path) -> None:
    """See that what a tuning names is there, and that it may write; raise all that is wrong.

    Args:
        plan: its recipe.
        out: its folder.

    Raises:
        LateenError: something is not there, or cannot be written.
    """
    faults = Faults()
    check_model(faults, plan.model)
    check_encoder_name(faults, plan.target.encoder, plan.target.revision, plan.target.python)
    measured = plan.eval
    check_inputs(
        faults, sources=(plan.images, measured.captions, measured.classes), out=out,
        folders=[Path(folder) for folder in (measured.images, measured.mmvp) if folder],
    )  # fmt: skip


def check_mllm_training(plan: MultimodalRecipe, out: Path) -> None:
    """See that what a stage names is there, and that it may write; raise all that is wrong.

    Args:
        plan: its recipe.
        out: its folder.

    Raises:
        LateenError: something is not there, or cannot be written.
    """
    faults = Faults()
    if plan.start is not None:
        check_mllm(faults, plan.start)
    for tower in plan.tower:
        check_tower(faults, tower)
    if plan.llm is not None:
        check_language(faults, plan.llm)
    data = plan.data
    if data.questions is not None:
        check_benchmark(faults, data.questions)
    named = data.questions is None and data.root in known_benchmarks()
    check_inputs(
        faults, sources=[] if named else [data.root], out=out,
        folders=[Path(data.images)] if data.images else [],
    )  # fmt: skip


def check_counts(counts: Mapping[str, int | None]) -> None:
    """See that numbers are such that something can be done so many times.

    Args:
        counts: by the name of the option; ``None`` where it is not given.

    Raises:
        UsageError: one is below 1.
    """
    for option, number in counts.items():
        if number is not None and number < 1:
            raise UsageError(f"{option} is {number}", "It must be at least 1.")
