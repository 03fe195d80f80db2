"""Files of the Hugging Face hub, in its client's cache."""

from __future__ import annotations

from pathlib import Path


def hub_snapshot(
    repository: str, *, dataset: bool = False, revision: str | None = None,
    files: list[str] | None = None, ignored: list[str] | None = None, cached: bool = False,
) -> Path:  # fmt: skip
    """The folder of a repository's files, out of the hub's cache or downloaded into it.

    What an interrupted download left in the cache is given out too: the caller has to see whether
    it is whole.

    Args:
        repository: ``owner/name``.
        dataset: it is one of datasets, not of models.
        revision: branch, tag or commit; the newest if not given.
        files: patterns of those needed; all if not given.
        ignored: patterns of those not needed.
        cached: from the cache alone; the hub is not asked.

    Raises:
        FileNotFoundError: it cannot be had, with what the hub or its client said.
    """
    from huggingface_hub import snapshot_download  # takes long to import

    try:
        return Path(snapshot_download(
            repository, repo_type="dataset" if dataset else "model", revision=revision,
            allow_patterns=files, ignore_patterns=ignored, local_files_only=cached,
        ))  # fmt: skip
    except Exception as error:  # the hub's client raises many kinds; all mean "not here"
        raise FileNotFoundError(str(error) or type(error).__name__) from error
