"""Metrics of completions: pure functions of the output, the true middle, and the text around the hole.

Every metric is a float between 0 and 1. A *share* is 0 or 1 for a single hole, so its mean is a proportion; the others
have values in between. `score` computes all metrics. How well each agrees with passing a task's tests is measured by
`benchmarks.humaneval`.
"""

import re
from collections import Counter
from itertools import takewhile
from typing import Final

from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.chrf import CHRF

from infill import syntax
from infill.fim import is_sound
from infill.text import first_line, last_line, split_lines

_CHRF: Final = CHRF()  # character n-grams up to 6, beta 2, spaces ignored: Popovic 2015, sacrebleu's defaults
_NOISE: Final = re.compile(r"[^a-zA-Z0-9_+\-*%=&|@$?]")

_IDENTIFIER: Final = re.compile(r"\b[^\W\d]\w*")  # not the end of a number such as 0xFF or 10L

_OPEN_END: Final = re.compile(r"(?:[-+*/%=<>&|^,.:([{]|\b(?:and|or|not|in|is|return|new|else|import|from))$")
"""An operator, a separator, an opening bracket or a keyword after which code goes further."""
STUB: Final = re.compile(
    r"(pass|\.\.\.|return|return (None|null|nullptr|nil|undefined|false|true|0|\"\"|''|\{\})"
    r"|raise NotImplementedError(\(.*\))?|throw new \w*(NotImplemented|UnsupportedOperation|Error)\w*\(.*\)"
    r"|throw [\w:.]+\(.*(?i:not implemented).*\)"
    r"|TODO\(.*\)|(todo|unimplemented)!\(.*\)|panic\(.*not implemented.*\)|[{}]*);?"
)
"""A placeholder line, which does no work, in the languages with a grammar."""
COMMENT: Final = re.compile(r"(//|/\*|\*/|(#|\*)(\s|$)).*")
"""A comment line; `#include`, `#[derive]` and `*pointer = 0` are not comments."""
OPEN_TASK: Final = re.compile(r"(?:^|[\s;{}()])(?://|/?\*|#|--|<!--).*\b(TODO|FIXME|XXX)\b", re.MULTILINE)
"""A comment that leaves work for later; the word in a string or in a name does not."""

SHARES: Final = frozenset(
    {
        "exact_match",
        "parses",
        "over_generation",
        "under_generation",
        "suffix_echo",
        "stub",
        "verbose",
        "eot_rate",
    }
)
"""Metrics that are 0 or 1 for a single hole."""


def exact_match(output: str, middle: str) -> float:
    """Return 1 if the output is the true middle, character for character, else 0."""
    return float(output == middle)


def edit_similarity(output: str, middle: str) -> float:
    """Return 1 - Levenshtein distance / length of the longer text, in characters; 1 for two empty texts."""
    return float(Levenshtein.normalized_similarity(output, middle))


def chrf(output: str, middle: str) -> float:
    """Return chrF (Popovic 2015) divided by 100; 1 for two texts without a visible character.

    It tolerates superfluous text: a correct line followed by an unneeded method had chrF 0.67 and edit similarity 0.27.
    """
    if not output.strip() or not middle.strip():
        return float(output.strip() == middle.strip())
    return float(_CHRF.sentence_score(output, [middle]).score) / 100


def kk(output: str, middle: str) -> float:
    """Return the share of the true middle's lines that occur in the output.

    This is our definition of the Mellum paper's KK score, whose definition is not public. Lines are compared without
    surrounding white space, and blank lines do not count. Each line of the middle counts once, so repeating a line
    gains nothing and the value never exceeds 1. Order and superfluous lines do not matter.
    If the middle has only blank lines, the value is 1 if the output has only blank lines too, else 0.
    """
    wanted, written = _lines(middle), _lines(output)
    if not wanted:
        return float(not written)
    return (wanted & written).total() / wanted.total()


def relaxed_exact_match(output: str, middle: str, prefix: str, suffix: str, *, alphanumeric: bool = False) -> float:
    """Return 1 if every line of the output is a line of the middle, 0.5 if some line is, else 0.

    This is JetBrains' RelaxedExactMatch (intellij-community, evaluation-plugin), halved. The partial lines of prefix
    and suffix are first joined to both texts, and blank lines are dropped. An output with which middle + suffix begins
    also counts 0.5. With `alphanumeric`, characters outside `[a-zA-Z0-9_+\\-*%=&|@$?]` are deleted from the lines.
    """
    before, after = last_line(prefix), first_line(suffix)
    expected, proposed = (
        [_NOISE.sub("", line) if alphanumeric else line.strip() for line in split_lines(before + text + after)]
        for text in (middle, output)
    )
    wanted = {line for line in expected if line}
    matches = [line in wanted for line in proposed if line]
    if matches and all(matches):
        return 1.0
    continues = bool(output) and (middle + suffix).startswith(output)
    return 0.5 if any(matches) or continues else 0.0


def identifier_f1(output: str, middle: str) -> float:
    """Return the F1 score of the output's identifiers against the middle's, as sets; 1 if both have none.

    Keywords count as identifiers, since the languages' grammars disagree on what a keyword is.
    """
    written, wanted = _identifiers(output), _identifiers(middle)
    if not written and not wanted:
        return 1.0
    return 2 * len(written & wanted) / (len(written) + len(wanted))


def novel_identifier_recall(output: str, middle: str, prefix: str, suffix: str) -> float:
    """Return the share of the middle's identifiers that occur nowhere else in the file and that the output has.

    These have to come from another file or from what the model knows. A name that begins in the prefix or ends in the
    suffix is one name. 1 for a middle without any.
    """
    begun = _trailing_name(prefix) if _trailing_name(middle[:1]) else ""
    ended = _leading_name(suffix) if _leading_name(middle[-1:]) else ""
    around = f"{prefix.removesuffix(begun)}\n{suffix.removeprefix(ended)}"
    novel = _identifiers(begun + middle + ended) - _identifiers(around)
    return len(novel & _identifiers(begun + output + ended)) / len(novel) if novel else 1.0


def parses(output: str, middle: str, prefix: str, suffix: str, language: str) -> float:
    """Return 1 if the file parses with the output in the hole, else 0.

    Also 1 if it does not parse with the true middle, or if `language` has no grammar: then nothing can be said.
    """
    if language not in syntax.LANGUAGES:
        return 1.0
    return float(is_sound(prefix + output + suffix, language) or not is_sound(prefix + middle + suffix, language))


def stub(output: str, middle: str) -> float:
    """Return 1 if the output is a stub and the true middle is not, else 0."""
    return float(is_stub(output) and not is_stub(middle))


def is_stub(text: str) -> bool:
    """Return whether the code is a stub: only placeholder lines and comments, or a comment with an open task."""
    if OPEN_TASK.search(text):
        return True
    lines = [line.strip() for line in split_lines(text) if line.strip()]
    return bool(lines) and all(STUB.fullmatch(line) or COMMENT.fullmatch(line) for line in lines)


def verbose(output: str, middle: str) -> float:
    """Return 1 if the output has more than twice the characters of the true middle plus a line's worth (40), else 0."""
    return float(len(output.strip()) > 2 * len(middle.strip()) + 40)


def over_generation(output: str, middle: str) -> float:
    """Return 1 if the output begins with the whole true middle and continues: the model stopped too late. Else 0."""
    return float(len(output) > len(middle) and output.startswith(middle))


def under_generation(output: str, middle: str) -> float:
    """Return 1 if the output is a proper prefix of the true middle: the model stopped too early. Else 0."""
    return float(len(output) < len(middle) and middle.startswith(output))


def unfinished(output: str, middle: str, prefix: str, suffix: str, language: str) -> float:
    """Return 1 if the output ends before its code does, else 0.

    It does if it is a proper beginning of the true middle, or if it opens more brackets than the middle does or ends
    with an operator or a comma where the middle does not, and the file does not parse with it. An output that continues
    after the true middle is not unfinished.
    """
    if not output.strip():
        return float(bool(middle.strip()))
    if output.startswith(middle.rstrip()):
        return 0.0
    if middle.startswith(output.rstrip()):
        return float(len(output.rstrip()) < len(middle.rstrip()))
    hangs = _open_brackets(output) > _open_brackets(middle) or (_ends_open(output) and not _ends_open(middle))
    return float(hangs and not parses(output, middle, prefix, suffix, language))


def _open_brackets(text: str) -> int:
    """Return how many brackets of a text are not closed in it."""
    return sum(max(0, text.count(opening) - text.count(closing)) for opening, closing in ("()", "[]", "{}"))


def _ends_open(text: str) -> bool:
    return bool(_OPEN_END.search(text.rstrip()))


def suffix_echo(output: str, middle: str, suffix: str) -> float:
    """Return 1 if the output repeats the first line of the suffix that has a letter or digit, else 0.

    It does if that line, without surrounding white space, is a line of the output or its end more often than of the
    true middle. Lines without letters and digits are skipped: many outputs correctly end with a bracket.
    """
    line = next((line.strip() for line in split_lines(suffix) if any(map(str.isalnum, line))), "")
    if not line:
        return 0.0
    return float(_occurrences(line, output) > _occurrences(line, middle))


def _occurrences(line: str, text: str) -> int:
    lines = [candidate.strip() for candidate in split_lines(text)]
    whole = lines.count(line)
    ends_inside = bool(lines) and lines[-1] != line and text.rstrip().endswith(line)
    return whole + int(ends_inside)


def _identifiers(text: str) -> set[str]:
    return set(_IDENTIFIER.findall(text))


def _leading_name(text: str) -> str:
    return "".join(takewhile(_is_word, text))


def _trailing_name(text: str) -> str:
    return "".join(takewhile(_is_word, reversed(text)))[::-1]


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _lines(text: str) -> Counter[str]:
    return Counter(line.strip() for line in split_lines(text) if line.strip())


def score(output: str, middle: str, *, prefix: str, suffix: str, language: str, finished: bool) -> dict[str, float]:
    """Return all metrics of one completion by name; `finished` means that it ended with a stop token."""
    return {
        "exact_match": exact_match(output, middle),
        "edit_similarity": edit_similarity(output, middle),
        "chrf": chrf(output, middle),
        "kk": kk(output, middle),
        "relaxed_exact_match": relaxed_exact_match(output, middle, prefix, suffix),
        "identifier_f1": identifier_f1(output, middle),
        "novel_identifier_recall": novel_identifier_recall(output, middle, prefix, suffix),
        "parses": parses(output, middle, prefix, suffix, language),
        "over_generation": over_generation(output, middle),
        "under_generation": under_generation(output, middle),
        "suffix_echo": suffix_echo(output, middle, suffix),
        "stub": stub(output, middle),
        "verbose": verbose(output, middle),
        "eot_rate": float(finished),
    }


METRICS: Final = tuple(score("", "", prefix="", suffix="", language="", finished=True))
"""Names of the metrics in the order of `score`."""
