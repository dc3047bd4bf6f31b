"""llama.cpp as the predictor's engine: it writes what transformers writes, and keeps several sessions' KV caches."""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch
from safetensors.torch import load_file, save_file

from infill import cli, llama_cpp, machine
from infill.errors import InputError, ServiceError, StorageError
from infill.train import gguf
from serving.predictor.completion import Piece
from serving.predictor.llama_cpp_engine import LlamaCppEngine, request_fields
from serving.predictor.predictor_config import ENGINES, PredictorConfig
from serving.predictor.startup import load_engine
from serving.predictor.transformers_engine import TransformersEngine
from serving.protocol import Sampling
from tests.builders import tiny_model
from tests.serving.conftest import CONTEXT

NEW = 24
GREEDY = Sampling(temperature=0, max_tokens=NEW)


def tokens(count: int, seed: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(32, 512) for _ in range(count)]


def pieces(engine: TransformersEngine | LlamaCppEngine, prompt: list[int], sampling: Sampling = GREEDY) -> list[Piece]:
    return list(engine.complete(prompt, sampling, lambda: None))


def text(engine: TransformersEngine | LlamaCppEngine, prompt: list[int], sampling: Sampling = GREEDY) -> str:
    return "".join(piece.text for piece in pieces(engine, prompt, sampling))


@pytest.fixture(scope="module")
def sharp(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights: a trained one, too, has few tokens that are nearly as likely as the best."""
    return enlarged(model, tmp_path_factory.mktemp("sharp"), 5)


def enlarged(model: Path, folder: Path, factor: int) -> Path:
    """The model with matrices that are `factor` times as large."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    larger = {name: weight if weight.dim() == 1 else factor * weight for name, weight in weights.items()}
    save_file(larger, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_it_writes_what_transformers_writes(sharp: Path) -> None:
    ours, theirs = TransformersEngine(sharp, threads=1), LlamaCppEngine(sharp, threads=1)
    prompts = [tokens(60, seed) for seed in range(10)]
    same = [text(ours, prompt) == text(theirs, prompt) for prompt in prompts]
    theirs.close()
    assert sum(same) >= 9


@pytest.mark.parametrize("begins_with", ["re", "é", '"\\', "\U0001f600", " x_1"])
def test_it_begins_with_the_text_that_it_must(sharp: Path, begins_with: str) -> None:
    ours, theirs = TransformersEngine(sharp, threads=1), LlamaCppEngine(sharp, threads=1)
    sampling = replace(GREEDY, begins_with=begins_with)
    written = [(text(ours, tokens(60, seed), sampling), text(theirs, tokens(60, seed), sampling)) for seed in range(6)]
    theirs.close()
    assert all(one.startswith(begins_with) and two.startswith(begins_with) for one, two in written)
    valid = [(one, two) for one, two in written if "\ufffd" not in one]  # llama.cpp's grammars allow nothing else
    assert sum(one != two for one, two in valid) <= 1


def test_drafts_from_the_prompt_change_no_answer(model: Path, tmp_path: Path) -> None:
    folder = enlarged(model, tmp_path, 8)  # its answers repeat parts of the prompt
    plain, drafting = LlamaCppEngine(folder, threads=1), LlamaCppEngine(folder, threads=1, draft_tokens=4)
    drafted = 0
    for seed in range(6):
        prompt, sampling = tokens(40, seed) * 5, replace(GREEDY, max_tokens=30, ignore_eos=True)
        *_, last = drafting._server.stream({"prompt": prompt, **request_fields(sampling)})
        drafted += last["timings"].get("draft_n", 0)
        assert text(drafting, prompt, sampling) == text(plain, prompt, sampling)
    plain.close()
    drafting.close()
    assert drafted > 0


def test_as_many_sessions_as_slots_keep_their_kv_caches(llama: LlamaCppEngine) -> None:
    prompts = [tokens(200, 100 + number) for number in range(llama.slots)]
    for prompt in prompts:
        text(llama, prompt)
    assert llama.slots > 1
    assert [pieces(llama, [*prompt, 77])[-1].cached_tokens for prompt in prompts] == [200] * llama.slots


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-40, 5e-324])
def test_a_tiny_temperature_leaves_the_most_probable_token(llama: LlamaCppEngine, temperature: float) -> None:
    written = pieces(llama, tokens(60, 2), replace(GREEDY, temperature=temperature))
    assert "".join(piece.text for piece in written) == text(llama, tokens(60, 2))


@pytest.mark.parametrize("top_p", [1.0, 1e-3, 1e-40, 5e-324])
def test_any_nucleus_can_be_sampled_from(llama: LlamaCppEngine, top_p: float) -> None:
    written = pieces(
        llama, tokens(60, 3), Sampling(temperature=1, top_p=top_p, seed=1, max_tokens=NEW, ignore_eos=True)
    )
    assert written[-1].tokens == NEW


def test_a_stop_token_ends_the_text_and_is_not_a_part_of_it(llama: LlamaCppEngine) -> None:
    prompt, sampling = tokens(60, 1), Sampling(temperature=1, seed=3, max_tokens=NEW, ignore_eos=True)
    events = llama._server.stream({"prompt": prompt, **request_fields(sampling)})
    written = [event["tokens"][0] for event in events if event["content"]]
    place = next(place for place in range(1, NEW) if written[place] not in written[:place])
    cut = pieces(llama, prompt, replace(sampling, stop_token_ids=(written[place],)))
    whole = pieces(llama, prompt, sampling)
    assert (cut[-1].finish_reason, whole[-1].finish_reason) == ("stop", "length")
    assert "".join(piece.text for piece in whole).startswith("".join(piece.text for piece in cut))
    assert cut[-1].tokens < whole[-1].tokens


def test_a_request_that_is_left_frees_its_slot_at_once(llama: LlamaCppEngine) -> None:
    """More requests than slots, each long enough to outlast the test if it were not cancelled."""
    for number in range(3 * llama.slots):
        running = llama.complete(
            tokens(60, number), Sampling(temperature=0, max_tokens=CONTEXT - 60, ignore_eos=True), lambda: None
        )
        next(running)
        running.close()
    assert len(text(llama, tokens(60, 1))) > 0


def test_a_request_that_does_not_fit_is_an_error_of_the_server(llama: LlamaCppEngine) -> None:
    with pytest.raises(ServiceError, match="exceeds the available context"):
        pieces(llama, tokens(CONTEXT + 1, 1))


def test_a_file_is_written_once_for_the_same_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = llama_cpp.convert(model)
    written = first.stat().st_ino
    assert llama_cpp.convert(model) == first
    assert first.stat().st_ino == written
    assert [file.name for file in first.parent.iterdir()] == [first.name]
    tiny_model(tmp_path / "other", context_length=CONTEXT, seed=1)
    assert llama_cpp.convert(tmp_path / "other") != first


def test_the_cache_keeps_the_files_that_were_used_last(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    used = llama_cpp.convert(model)
    others = [used.with_name(f"{number}.gguf") for number in range(llama_cpp.KEPT_FILES)]
    for age, file in enumerate([used, *others]):
        file.touch()
        os.utime(file, (1_000 - age, 1_000 - age))
    llama_cpp.convert(model)
    written = llama_cpp.convert(model, "q8_0")
    assert set(used.parent.iterdir()) == {written, used, *others[:-2]}


@pytest.fixture
def blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be written."""
    (tmp_path / "infill").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("blocked")
def test_a_cache_without_room_is_one_sentence(model: Path) -> None:
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        llama_cpp.convert(model)


@pytest.mark.usefixtures("blocked")
def test_auto_takes_transformers_where_no_file_can_be_written(model: Path) -> None:
    assert load_engine(PredictorConfig(model="m", device="cpu"), model).name == "transformers"
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        load_engine(PredictorConfig(model="m", engine="llama.cpp"), model)


def test_infill_serve_offers_the_engines_of_the_predictor(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    assert f"--engine {{{','.join(ENGINES)}}}" in capsys.readouterr().out


def test_each_type_can_be_served(model: Path) -> None:
    assert tuple(gguf.TYPES) == llama_cpp.GGUF_TYPES
    for kind in llama_cpp.GGUF_TYPES:
        engine = LlamaCppEngine(model, threads=1, gguf_type=kind)
        assert text(engine, tokens(60, 1))
        engine.close()


def test_a_server_that_dies_is_an_error_of_the_service(model: Path) -> None:
    engine = LlamaCppEngine(model, threads=1)
    engine.close()
    with pytest.raises(ServiceError, match="connection to llama"):
        engine.probe()


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"llama\.cpp cannot load"):
        llama_cpp.LlamaCppServer(file, context_length=256, slots=1, threads=1)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A model that transformers reads and the GGUF export does not."""
    from transformers import Starcoder2Config, Starcoder2ForCausalLM

    from tests.builders import tiny_tokenizer

    tiny_tokenizer(tmp_path)
    config = Starcoder2Config(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
    )
    Starcoder2ForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def test_auto_takes_transformers_for_what_llama_cpp_cannot_read(foreign: Path) -> None:
    assert load_engine(PredictorConfig(model="m", device="cpu"), foreign).name == "transformers"
    with pytest.raises(InputError, match="not a plain Llama"):
        load_engine(PredictorConfig(model="m", engine="llama.cpp"), foreign)


def test_auto_takes_transformers_where_llama_cpp_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "xllamacpp" else find(name, *rest)
    )
    assert load_engine(PredictorConfig(model="m", device="cpu"), model).name == "transformers"
    with pytest.raises(InputError, match="pip install xllamacpp"):
        load_engine(PredictorConfig(model="m", engine="llama.cpp"), model)


def test_auto_takes_transformers_on_a_processor_that_llama_cpp_is_not_compiled_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx f16c\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert llama_cpp._missing_instructions() == ["avx2", "bmi2", "fma"]
    assert load_engine(PredictorConfig(model="m", device="cpu"), model).name == "transformers"


STRICT: Final = """
with open("/proc/self/maps") as maps:
    if "torch/lib/libgomp" not in maps.read():
        raise ImportError("libgomp.so.1: cannot open shared object file")
"""
"""A package like xllamacpp on a slim image, which has no OpenMP library of its own."""


def test_a_slim_image_takes_the_openmp_library_of_pytorch(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp").mkdir()
    (tmp_path / "xllamacpp" / "__init__.py").write_text(STRICT)
    code = "from infill import llama_cpp; print(llama_cpp.obstacle())"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(llama_cpp.__file__).parents[1]}"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


def test_llama_cpp_that_cannot_be_loaded_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no libstdc++')")
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert llama_cpp.obstacle().startswith("llama.cpp cannot be loaded (no libstdc++)")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_auto_takes_llama_cpp_on_a_cpu(model: Path) -> None:
    engine = load_engine(PredictorConfig(model="m"), model)
    assert engine.name == "llama.cpp"
    engine.close()
