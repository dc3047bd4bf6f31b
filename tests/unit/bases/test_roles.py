"""Fill-in-the-middle roles for bases that have none."""

from pathlib import Path

import pytest
import torch

from infill import bases, model, prompt
from infill.bases import roles
from infill.errors import InputError
from tests.unit.bases import files


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


SMOLLM2 = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>"),
    *("<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>"),
    *("<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"),
]


@pytest.mark.parametrize(
    ("special", "expected"),
    [
        (SMOLLM2, {"filename": 6, "fim_prefix": 8, "fim_suffix": 9, "fim_middle": 10, "fim_pad": 16}),
        (["<s>", "<fim_middle>", "<unused0>"], {"fim_middle": 1, "fim_prefix": 2}),
        (["<|reserved_special_token_0|>", "<|eot_id|>"], {"fim_prefix": 0}),
        (["<s>", "</s>", "<|im_start|>"], {}),
    ],
)
def test_roles_go_to_names_then_to_tokens_without_use(special: list[str], expected: dict[str, int]) -> None:
    assert roles.assign({name: number for number, name in enumerate(special)}) == expected


@pytest.mark.parametrize("tied", [True, False])
def test_missing_roles_get_rows_and_the_others_stay(tied: bool, tmp_path: Path) -> None:
    file = str(files.write(tmp_path / "model.gguf", files.tiny("llama", tied=tied)))
    before, folder = model.load(bases.fetch(file)), bases.fetch(file, add_fim=True)
    after, fmt = model.load(folder), prompt.load_format(folder)
    assert (fmt.filename, fmt.fim_prefix, fmt.fim_suffix) == (3, 4, 5)
    assert (fmt.fim_middle, fmt.fim_pad) == (files.VOCABULARY, files.VOCABULARY + 1)
    for old, new in ((before.model.embed_tokens, after.model.embed_tokens), (before.lm_head, after.lm_head)):
        assert torch.equal(new.weight[: files.VOCABULARY], old.weight)
        assert new.weight.shape[0] == files.VOCABULARY + 2 == prompt.load_encoder(folder).vocab_size
        assert not torch.equal(new.weight[-1], new.weight[-2])


def test_the_names_of_new_tokens_are_text(tmp_path: Path) -> None:
    file = str(files.write(tmp_path / "model.gguf", files.tiny("qwen2")))
    encoder = prompt.load_encoder(bases.fetch(file, add_fim=True))
    assert max(encoder.encode("<fim_middle><fim_pad>")) < files.VOCABULARY


def test_a_base_with_infilling_tokens_stays_as_it_is(tmp_path: Path) -> None:
    file = str(files.write(tmp_path / "model.gguf", files.tiny("llama")))
    folder = bases.fetch(file, add_fim=True)
    assert bases.fetch(str(folder), add_fim=True) == folder


def test_without_the_flag_the_refusal_names_it(tmp_path: Path) -> None:
    folder = bases.fetch(str(files.write(tmp_path / "model.gguf", files.tiny("llama"))))
    with pytest.raises(InputError, match="--add-fim"):
        prompt.load_format(folder)
