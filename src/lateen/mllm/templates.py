"""Chat templates with images: how a conversation becomes the text that a language model was tuned
on, with marks around what the assistant says, from which training takes its labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lateen.errors import UsageError, choices

IMAGE = "<image>"
"""What stands for an image in texts, as in LLaVA's data."""
CAPTION_PROMPT = f"Image: {IMAGE}\nCaption:"
"""What stands before a caption where nothing else is said. LLaVA has the image alone, behind a
token that begins every text; where a language model has none, an image that is the first of all is
hardly learned (docs/mllm.md has figures)."""

# A message's text, each of its images as a line of its own where it stands.
_CONTENT = (
    "{%- macro content(message) -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{ '<image>\\n' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)
_CHATML = (
    _CONTENT + "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{ content(message) + '<|im_end|>' }}{%- endgeneration -%}{{ '\\n' }}"
    "{%- else -%}{{ content(message) + '<|im_end|>\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
_VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human\\'s questions."
)
_VICUNA = (
    _CONTENT + "{%- if messages[0]['role'] != 'system' -%}"
    "{{ '" + _VICUNA_SYSTEM + "' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{{ content(message) }}"
    "{%- elif message['role'] == 'user' -%}"
    "{%- if loop.first or loop.previtem['role'] != 'assistant' -%}{{ ' ' }}{%- endif -%}"
    "{{ 'USER: ' + content(message) }}"
    "{%- else -%}{{ ' ASSISTANT:' }}{%- generation -%}{{ ' ' + content(message) + eos_token }}"
    "{%- endgeneration -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ ' ASSISTANT:' }}{%- endif -%}"
)
TEMPLATES: Mapping[str, str] = {"chatml": _CHATML, "vicuna": _VICUNA}
_MARKS = {"chatml": "<|im_start|>", "vicuna": "ASSISTANT:"}  # in templates of text-only models
_ENDS = {"chatml": "<|im_end|>"}  # tokens that end a turn; else the tokenizer's own end


def find_template(name: str | Path | None, tokenizer: Any, llm: str) -> tuple[str, str]:
    """The chat template of a language model with images: its name, and itself.

    Args:
        name: one of :data:`TEMPLATES`, a file of Jinja, or ``None``: the one of the same form as
            the tokenizer's own, which knows of no images.
        tokenizer: of the language model.
        llm: its name, for errors.

    Raises:
        UsageError: there is none of that name, none can be told, or its tokens are not there.
    """
    if name is None:
        own = str(getattr(tokenizer, "chat_template", None) or "")
        known = [form for form, mark in _MARKS.items() if mark in own]
        if not known:
            raise UsageError(
                f"{llm} has {'a chat template of another form' if own else 'no chat template'}",
                f"Say which it was tuned with: --template {' or '.join(TEMPLATES)}, or a file of "
                "Jinja that writes <image> where a part is of type image.",
            )
        name = known[0]
    if str(name) in TEMPLATES:
        _check_end(str(name), tokenizer, llm)
    return read_template(name)


def read_template(name: str | Path) -> tuple[str, str]:
    """A chat template with images: its name, and itself.

    Args:
        name: one of :data:`TEMPLATES`, or a file of Jinja.

    Raises:
        UsageError: there is none of that name.
    """
    if str(name) in TEMPLATES:
        return str(name), TEMPLATES[str(name)]
    file = Path(name).expanduser()
    if not file.is_file():
        raise UsageError(
            f"there is no chat template {str(name)!r}", choices(str(name), [*TEMPLATES, "a file"])
        )
    return file.name, file.read_text(encoding="utf-8")


def end_tokens(name: str, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end an answer."""
    ids = [tokenizer.eos_token_id]
    if name in _ENDS:
        ids.insert(0, tokenizer.convert_tokens_to_ids(_ENDS[name]))
    return list(dict.fromkeys(each for each in ids if each is not None))


def _check_end(name: str, tokenizer: Any, llm: str) -> None:
    """See that what ends a turn is one token, without which no answer would end.

    Raises:
        UsageError: it is none.
    """
    end = _ENDS.get(name)
    there = end in tokenizer.get_vocab() if end else tokenizer.eos_token is not None
    if not there:
        raise UsageError(
            f"the tokenizer of {llm} has no {end or 'token that ends a text'}, by which answers "
            f"end in the chat template {name}",
            "Give another --template.",
        )
