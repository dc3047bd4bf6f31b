"""Fill-in-the-middle roles for a base without them: unused special tokens, and new rows for the rest."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from infill import prompt
from infill.errors import InputError
from infill.text import read_text

ROLES: Final = ("fim_prefix", "fim_suffix", "fim_middle", "fim_pad", "filename")
UNUSED: Final = re.compile(
    r"<issue_(start|comment|closed)>|<empty_output>|<\|?(reserved|unused|extra|dummy|special)\w*\|?>"
    r"|\[(unused|reserved)\w*\]",
    re.IGNORECASE,
)
"""Special tokens that a model never saw, or never in source code."""
ENDS: Final = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Names of the token that ends a text."""
WEIGHTS: Final = re.compile(r"\.(safetensors|bin)(\.index\.json)?$")
NOISE: Final = 0.02
"""Standard deviation of new rows around the mean of the others, so that the roles differ from the start."""


def add(folder: Path, target: Path) -> None:
    """Write the model of `folder` to `target`, with a prompt format that assigns a token to each role.

    The token is the one of that name, else a special token that code does not use, else a new row. Raises InputError
    when no token ends a text.
    """
    tokenizer = prompt.read_tokenizer(folder)
    special = {str(token["content"]): int(token["id"]) for token in tokenizer["added_tokens"] if token["special"]}
    roles = assign(special)
    missing = [role for role in ROLES if role not in roles]
    first = prompt.Encoder(tokenizer).vocab_size
    roles |= {role: first + number for number, role in enumerate(missing)}
    tokenizer["added_tokens"] += [_token(role, roles[role]) for role in missing]
    target.mkdir()
    if missing:
        _widen(folder, target, [roles[role] for role in missing])
    for file in folder.iterdir():
        old = missing and WEIGHTS.search(file.name)
        if file.is_file() and not old and not (target / file.name).exists():
            _link(file, target / file.name)
    fields: dict[str, Any] = {"endoftext": _end(folder, special), **roles}
    fmt = prompt.PromptFormat(name="added", **fields)
    _replace(target / "tokenizer.json", tokenizer)
    _replace(target / prompt.FILE_NAME, fmt.to_json())


def assign(special: Mapping[str, int]) -> dict[str, int]:
    """Return the ids of special tokens for the roles: by name, then those that code does not use."""
    roles: dict[str, int] = {}
    for _, names, _ in prompt.FAMILIES:
        roles |= {role: special[names[role]] for role in ROLES if names[role] in special}
    free = sorted(number for name, number in special.items() if UNUSED.fullmatch(name) and number not in roles.values())
    return roles | dict(zip([role for role in ROLES if role not in roles], free, strict=False))


def _end(folder: Path, special: Mapping[str, int]) -> int:
    """Return the id of the token that ends a text."""
    file = folder / "tokenizer_config.json"
    own = json.loads(read_text(file)).get("eos_token") if file.exists() else None
    for name in (*ENDS, str(own["content"] if isinstance(own, dict) else own)):
        if name in special:
            return special[name]
    raise InputError(f"{folder} has no special token that ends a text ({', '.join(ENDS)}), so it cannot learn to stop")


def _token(role: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": f"<{role}>", **flags, "special": True}


def _widen(folder: Path, target: Path, ids: list[int]) -> None:
    """Write the model with rows for `ids`: the mean of the others plus a little noise, the same each time."""
    import torch

    from infill import model

    dtype = model.load_config(folder).dtype
    decoder = model.load(folder, dtype if isinstance(dtype, torch.dtype) else None)
    matrices = {id(weight): weight for weight in _matrices(decoder)}
    means = [weight.detach().float().mean(0) for weight in matrices.values()]
    if max(ids) >= decoder.get_input_embeddings().num_embeddings:
        decoder.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight, mean in zip({id(w): w for w in _matrices(decoder)}.values(), means, strict=True):
            noise = torch.randn(len(ids), len(mean), generator=generator)
            weight[ids] = (mean + NOISE * noise).to(weight.dtype)
    decoder.save_pretrained(target)


def _matrices(decoder: Any) -> list[Any]:
    """Return the matrices with a row for each token; both are the same if the head is tied to the embedding."""
    return [decoder.get_input_embeddings().weight, decoder.get_output_embeddings().weight]


def _link(source: Path, target: Path) -> None:
    """Link `target` to the file `source`, which is too large to copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        target.symlink_to(source.resolve())


def _replace(file: Path, value: Mapping[str, Any]) -> None:
    """Replace `file`, which may be a link to the base's own file."""
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
