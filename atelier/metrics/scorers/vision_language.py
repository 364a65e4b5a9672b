"""Vision-language networks that score pictures: their weights, and the words they are asked in.

A network answers well only to the words that it was trained with. These are the publisher's:
they are fetched with the weights, as the file of code in which they stand, and read out of its
syntax tree. Nothing in that file is run.
"""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from atelier.errors import ArtifactError
from atelier.metrics.scorer import Compute

INDEX = "model.safetensors.index.json"


def published(file: Path, begins: str) -> str:
    """Return the text in a file of Python code that begins with these words.

    Args:
        file: The publisher's code.
        begins: Its first words, after any blanks. The parts of an f-string that stand in braces
            come back as ``{name}``, or as ``{}`` where they are no plain name.

    Raises:
        ArtifactError: There is no such text, or there are several.
    """
    nodes = _nodes(file)
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr)
             for part in ast.walk(node) if part is not node}  # fmt: skip
    texts = {_text(node) for node in nodes if id(node) not in parts}
    found = {text for text in texts if text is not None and text.lstrip().startswith(begins)}
    return _only(found, file, f"that begin with {begins!r}")


def keyword(file: Path, name: str, argument: str) -> str:
    """Return the text that a call in a file of Python code gives as an argument.

    Args:
        file: The publisher's code.
        name: What the call has as its argument ``name``.
        argument: Which argument is meant.

    Raises:
        ArtifactError: There is no such text, or there are several.
    """
    calls = [
        {one.arg: _text(one.value) for one in node.keywords}
        for node in _nodes(file)
        if isinstance(node, ast.Call)
    ]
    found = {call.get(argument) for call in calls if call.get("name") == name} - {None}
    return _only({text for text in found if text is not None}, file, f"for {argument}")


def _nodes(file: Path) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{file} cannot be read ({type(error).__name__}); run `atelier weights --check`"
        ) from None


def _only(found: set[str], file: Path, which: str) -> str:
    if len(found) != 1:
        raise ArtifactError(
            f"{file} has {len(found)} texts {which}, and one was expected: the publisher has "
            "changed it. Fetch the file of the commit that `atelier weights` names"
        )
    return found.pop()


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else _slot(part)
            for part in node.values
        )
    return None


def _slot(part: ast.AST) -> str:
    value = part.value if isinstance(part, ast.FormattedValue) else None
    return f"{{{value.id}}}" if isinstance(value, ast.Name) else "{}"


def tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, or of the files that an index names.

    Raises:
        ArtifactError: A file is absent or damaged.
    """
    try:
        names = [path.name]
        if path.name.endswith(".json"):
            content = json.loads(path.read_text(encoding="utf-8"))
            names = sorted(set(content["weight_map"].values()))
        found: dict[str, Tensor] = {}
        for name in names:
            found |= safetensors.torch.load_file(path.parent / name)
    except (OSError, ValueError, LookupError, safetensors.SafetensorError) as error:
        raise ArtifactError(
            f"{path} holds no weights that can be read ({str(error)[:160]}); run `atelier "
            "weights --check`"
        ) from None
    return found


def fill(
    kind: Any, config: Any, weights: Mapping[str, Tensor], path: Path, compute: Compute
) -> Any:
    """Return a network of transformers with these weights; none may be missing or left over.

    Args:
        kind: Its class.
        config: Of it.
        weights: By the names that the class gives them.
        path: Where they came from, for messages.
        compute: Where the network is to be.

    Raises:
        ArtifactError: The weights do not belong to this network.
    """
    from atelier.models.denoiser import quiet

    try:
        with quiet():
            network, said = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(weights),
                dtype=compute.torch_dtype,
                output_loading_info=True,
            )
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"{path} does not fit its network: {str(error)[:200]}") from None
    wrong = {
        what: sorted(map(str, said.get(f"{what}_keys") or ()))
        for what in ("missing", "unexpected", "mismatched")
    }
    if any(wrong.values()):
        told = ", ".join(
            f"{len(names)} {what}, such as {names[:1]}"
            for what, names in wrong.items()
            if names
        )
        raise ArtifactError(f"{path} does not fit its network: {told}")
    return network.to(compute.device).eval()


def opened(load: Callable[..., Any], folder: Path, **options: Any) -> Any:
    """Return what transformers reads from a folder: a config, a tokenizer, a processor.

    Raises:
        ArtifactError: It cannot be read.
    """
    from atelier.models.denoiser import quiet

    try:
        with quiet():
            return load(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{folder} cannot be read ({str(error)[:160]}); run `atelier weights --check`"
        ) from None


def asked(processor: Any, words: str, slot: str, prompts: Sequence[str]) -> list[str]:
    """Return a chat for each caption that shows one picture and asks about it.

    Args:
        processor: Whose template writes the chat.
        words: The question.
        slot: What stands in it in the caption's place.
        prompts: The captions.
    """
    return [
        processor.apply_chat_template(
            _question(words.replace(slot, prompt)), tokenize=False, add_generation_prompt=True
        )
        for prompt in prompts
    ]


def _question(words: str) -> list[dict[str, Any]]:
    shown = [{"type": "image"}, {"type": "text", "text": words}]
    return [{"role": "user", "content": shown}]


def to(compute: Compute, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors where a network is; those of floats in its precision."""
    return {
        name: value.to(
            compute.device, compute.torch_dtype if value.is_floating_point() else None
        )
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }
