"""From tokens to text: nothing lost, no half characters, stop strings cut wherever the pieces begin and end."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.errors import InputError
from infill.prompt import Encoder, load_encoder
from infill.token_bytes import token_bytes
from serving.predictor.detokeniser import Detokeniser
from serving.stops import StopFilter
from tests.builders import tiny_tokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return load_encoder(Path(folder))


@given(text=st.text())
def test_pieces_join_to_the_text_and_no_piece_ends_inside_a_character(encoder: Encoder, text: str) -> None:
    detokeniser = Detokeniser(token_bytes(encoder.json))
    pieces = [detokeniser.feed(token) for token in encoder.encode(text)]
    assert "".join(pieces) == text
    assert "�" in text or not any("�" in piece for piece in pieces)


@given(tokens=st.lists(st.integers(0, 600)))
def test_any_tokens_give_what_their_bytes_decode_to(encoder: Encoder, tokens: list[int]) -> None:
    table = token_bytes(encoder.json)
    detokeniser = Detokeniser(table)
    text = "".join(map(detokeniser.feed, tokens))
    whole = b"".join(table[token] for token in tokens if token < len(table)).decode(errors="replace")
    assert whole.startswith(text)
    assert len(whole) - len(text) <= 3  # an unfinished character at the end is left out


def test_a_character_of_several_tokens_comes_out_with_its_last_byte(encoder: Encoder) -> None:
    detokeniser = Detokeniser(token_bytes(encoder.json))
    pieces = [detokeniser.feed(token) for token in encoder.encode("🙂")]
    assert len(pieces) == 4
    assert pieces == ["", "", "", "🙂"]


def test_special_tokens_have_no_text(encoder: Encoder) -> None:
    assert token_bytes(encoder.json)[:32] == [b""] * 32


@pytest.mark.parametrize("name", ["<|repo_name|>", "<|im_end|>", "<file_sep>"])
def test_a_control_token_has_no_text_though_it_is_not_special(encoder: Encoder, name: str) -> None:
    added = [{"id": 512, "content": name, "special": False}, {"id": 513, "content": "    ", "special": False}]
    table = token_bytes({**encoder.json, "added_tokens": [*encoder.json["added_tokens"], *added]})
    assert table[512:] == [b"", b"    "]


def test_a_tokenizer_that_is_not_byte_level_is_refused() -> None:
    with pytest.raises(InputError, match="not byte-level"):
        token_bytes({"added_tokens": [], "model": {"vocab": {"▁def": 0}}})


def expected(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first, character by character."""
    for end in range(len(text) + 1):
        hits = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if hits:
            return text[: min(hits)]
    return text


@given(
    pieces=st.lists(st.text(alphabet="abc\n", max_size=4), max_size=12),
    stops=st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_are_found_however_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    stop_filter = StopFilter(stops)
    text = "".join(map(stop_filter.feed, pieces)) + stop_filter.flush()
    assert text == expected("".join(pieces), stops)
    assert stop_filter.stopped == any(stop in "".join(pieces) for stop in stops)


def test_text_that_cannot_begin_a_stop_string_is_not_held_back() -> None:
    stop_filter = StopFilter(["\n\n"])
    assert [stop_filter.feed(piece) for piece in ("a", "b\n", "c", "\n", "\nd")] == ["a", "b", "\nc", "", ""]
    assert stop_filter.stopped
