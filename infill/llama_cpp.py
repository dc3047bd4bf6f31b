"""llama.cpp on a CPU: GGUF files of models in the user's cache, and llama.cpp's server in this process.

The server is part of the package `xllamacpp`. It listens on a free port of the loopback address and answers only
requests with its key. It schedules its slots and manages their KV caches; closing a connection cancels its request.
"""

import ctypes
import hashlib
import http.client
import importlib
import importlib.util
import json
import os
import secrets
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from infill import machine, prompt, storage
from infill.errors import InputError, ServiceError, StorageError

GGUF_TYPES: Final = ("f32", "f16", "bf16", "q8_0")
"""Types in which a GGUF file can store matrices."""
GGUF_TYPE: Final = "f16"
"""The default: q8_0 is faster, but changes greedy completions (docs/log.md)."""
FILE_VERSION: Final = 1
"""Part of a cached file's name; increased when `export` writes a different file for the same model."""
BATCH_TOKENS: Final = 128
"""Prompt tokens per batch; the server checks for cancelled requests in between, and larger batches are no faster."""
DRAFT_AFTER: Final = 3
"""Tokens that must agree with earlier ones, for which a draft is what followed those."""
LOCAL: Final = "127.0.0.1"
SILENCE_S: Final = 600.0
"""Seconds without an event after which the server counts as broken; other long prompts may come first."""
GREEDY: Final[Mapping[str, Any]] = {"samplers": ["top_k"], "top_k": 1}
"""Fields of a request that selects the most probable token each time."""
KEPT_FILES: Final = 4
"""Maximum number of GGUF files in the cache; the least recently used are deleted first."""
INSTRUCTIONS: Final = frozenset({"avx2", "bmi2", "f16c", "fma"})
"""Instruction sets that the wheel for x86-64 needs (processors since 2013); without one it would crash the process."""


def obstacle() -> str:
    """Return why llama.cpp cannot be used on this machine; empty when it can."""
    if any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "gguf")):
        return "llama.cpp is not installed (pip install xllamacpp gguf)"
    if missing := _missing_instructions():
        return f"this processor lacks {', '.join(missing)}, for which llama.cpp is compiled"
    try:
        _package()
    except ImportError as error:
        return f"llama.cpp cannot be loaded ({error})"
    return ""


def _package() -> Any:
    """Return the module `xllamacpp`. Raises ImportError when a library that it needs is missing.

    It is linked to GNU's OpenMP library, which slim images do not have, but PyTorch brings.
    """
    try:
        return importlib.import_module("xllamacpp")
    except ImportError:
        torch = importlib.util.find_spec("torch")
        for folder in (torch.submodule_search_locations or ()) if torch else ():
            for file in sorted(Path(folder).glob("lib/libgomp*.so*")):
                ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("xllamacpp")


def _missing_instructions() -> list[str]:
    """Return the INSTRUCTIONS that the processor lacks; none except on Linux with x86-64."""
    flags = machine.cpu_info("flags").split()
    return sorted(INSTRUCTIONS.difference(flags)) if flags else []


def convert(folder: Path, kind: str = GGUF_TYPE) -> Path:
    """Return the GGUF file of the model in `folder`; write it unless it is in the cache.

    Raises InputError for a model that llama.cpp would read differently, StorageError when the disk is full.
    """
    cache = storage.cache() / "gguf"
    target = cache / f"{_digest(folder)}-{kind}-{FILE_VERSION}.gguf"
    if target.exists():
        os.utime(target)
        return target
    from infill.train import gguf

    try:
        gguf.export(str(folder), target, kind)
        by_last_use = sorted(cache.glob("*.gguf"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in by_last_use[KEPT_FILES:]:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {target}: {error}; set XDG_CACHE_HOME to a folder with enough space"
        ) from error
    return target


def _digest(folder: Path) -> str:
    """Return a hash of the files that a GGUF file is made from."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.name in prompt.FILES or file.suffix == ".safetensors":
            with file.open("rb") as content:
                digest.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:24]


def cache_bytes_per_token(config: Mapping[str, Any]) -> int:
    """Return the bytes of one token's keys and values, which llama.cpp stores as f16; `config` is a `config.json`."""
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return int(2 * 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * width)


class LlamaCppServer:
    """A llama.cpp server of one GGUF file."""

    def __init__(
        self, file: Path, *, context_length: int, slots: int, threads: int, cache_bytes: int = 0, draft_tokens: int = 0
    ) -> None:
        """Load `file` for `slots` concurrent requests, each of up to `context_length` tokens.

        KV caches of requests that lost their slot may use up to `cache_bytes`. Drafts of up to `draft_tokens` tokens
        are copied from the request's own tokens; 0 makes none. Raises InputError when llama.cpp cannot load the file.
        """
        xllamacpp = _package()
        self._key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel = context_length * slots, slots
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = cache_bytes >> 20
        if draft_tokens:
            params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
            params.speculative.ngram_simple.size_n = DRAFT_AFTER
            params.speculative.ngram_simple.size_m = draft_tokens
        params.fit_params = params.ui = params.endpoint_slots = params.warmup = False
        params.api_keys = [self._key]
        params.hostnames = [LOCAL]
        params.verbosity = 1  # errors
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise InputError(f"llama.cpp cannot load {file}: {error}; delete it to have it written again") from error
        self._port = int(self._server.listening_address.rpartition(":")[2])
        self.probe()  # closing a server whose loop has not started would block forever

    def probe(self) -> None:
        """Compute one token. Raises ServiceError when the server fails."""
        for _ in self.stream({"prompt": [0], "n_predict": 1, "cache_prompt": False, **GREEDY}):
            pass

    def stream(self, request: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Yield the events of `/completion`; closing the generator cancels the request.

        Events with `prompt_progress` come before the first token. Raises ServiceError when the server refuses or fails.
        """
        body = json.dumps({**request, "stream": True, "return_progress": True, "return_tokens": True})
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        with closing(http.client.HTTPConnection(LOCAL, self._port, timeout=SILENCE_S)) as connection:
            try:
                connection.request("POST", "/completion", body, headers)
                with connection.getresponse() as response:
                    if response.status != 200:
                        raise ServiceError(f"llama.cpp refused a request: {_message(response.read())}")
                    yield from _events(response)
            except (OSError, http.client.HTTPException) as error:
                raise ServiceError(f"the connection to llama.cpp broke: {error!r}") from error

    def close(self) -> None:
        """Stop the server and free the model."""
        self._server = None


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream. Raises ServiceError for an event that reports an error."""
    for line in lines:
        name, _, data = line.partition(b": ")
        if name not in (b"data", b"error") or data.strip() == b"[DONE]":
            continue
        event: dict[str, Any] = json.loads(data)
        if name == b"error" or "error" in event:
            raise ServiceError(f"llama.cpp failed: {_message(data)}")
        yield event


def _message(data: bytes) -> str:
    """Return the message in llama.cpp's JSON, or all of `data` if there is none."""
    try:
        error = json.loads(data)
        return str(error.get("error", error)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return data.decode(errors="replace")
