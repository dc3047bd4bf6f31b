"""Recognise lines that do not change the terms of a licence: names, titles, descriptions in a closed vocabulary."""

import re
from collections.abc import Sequence
from typing import Final

from infill.corpus.licences import spdx

_PLAIN_TEXT: Final = (
    "a above adapted after algorithm algorithms all also an and are as at author authors availability based be below "
    "between binding bindings both bundled by c checker class classes code collaborative color colors contained "
    "contains contributed contributing contribution contributions contributor contributors conversion conversions "
    "copied copies copy copyright core corporation corresponding crates credits datetime derived describes "
    "description details developed developer developers different directly directory distributed distribution "
    "documentation each email en entire et example examples extension extensions external externally extracted favor "
    "file files first follow following follows for fork forked forks fragments from full function functions generated "
    "generation github given gmbh group have header headers her here his holder holders homepage http https ideas "
    "implementation in inc included includes including incorporated individual individuals inspired institute "
    "interface into is it its javascript language languages later libraries library license licensed licenses like "
    "linked list listed llc located ltd main maintained maintainer maintainers maintainership many members method "
    "methods mit module modules mostly name named names notice notices of on online or org original originally other "
    "others our owner owners package packages page parser part parts patches port ported portion portions present "
    "primarily product program project projects provided public published python random readme record "
    "reimplementation released repository reproduced respective rewrite rewritten routines runtime s same second see "
    "since snippet snippets software some source sources standard stated static submodules such taken team terms "
    "tests text that the their them these third this title to together tool tools top translated translation tree "
    "type under unit university until url vendored version versions was website were which with work works wrapper "
    "wrappers written y"
)
_PLAIN: Final = frozenset(_PLAIN_TEXT.split())
"""Words of descriptions; a line with other words in lower case may have terms."""
_FAMILIES_TEXT: Final = (
    "gpl agpl lgpl gplv2 gplv3 lgplv2 lgplv3 gnu affero sspl busl bsl elastic commons cc nc sa nd mpl epl cddl eupl "
    "polyform hippocratic eula"
)
_FAMILIES: Final = frozenset(_FAMILIES_TEXT.split())
"""Names of restrictive licences; a line with one of them is not a description."""
_LICENCES: Final = frozenset({"license", "licenses", "licensed", "licensing"})
_MAX_WORDS: Final = 16
_STRANGERS: Final = 4
"""Maximum number of unknown lower-case words in a copyright line, for names that are written in lower case."""
_CHANGED: Final = frozenset({"adapted", "altered", "changed", "custom", "enhanced", "extended", "modified", "own"})
"""Words that show that a title is about a changed version of the licence that it names."""
_TITLE_WORDS: Final = 2
"""Maximum number of unknown words in a title whose words are all capitalised."""
_MAX_HOLDERS: Final = 60
_RESERVED: Final = re.compile(r"\b(?:all|some) rights? reserved\b", re.IGNORECASE)
_NEXT_SENTENCE: Final = re.compile(r"(?<=[\w)>][a-z)>][a-z)>][a-z)>])[.]\s+(?=\w)|[!?;]\s+(?=\w)")
"""Matches the end of a sentence, but not of an abbreviation ("Inc.", "J. Doe")."""
_OPEN: Final = re.compile(r"(?:,|&|\b(?:and|by|of|the))\s*$", re.IGNORECASE)
"""Matches the end of a copyright line that continues on the next line."""
_YEARS: Final = re.compile(
    r"^\W*(?:(?:19|20)\d\d(?:\s*[-–,/&]\s*(?:(?:19|20)?\d\d|present|now|today))*[\s,:]*)+", re.IGNORECASE
)
_CREDITED: Final = re.compile(
    r"\b(?:inc|ltd|limited|llc|llp|gmbh|corp|corporation|company|co|ag|s\.?a|b\.?v|foundation|university|institute|"
    r"laborator(?:y|ies)|authors|contributors|others|et al)\W*$",
    re.IGNORECASE,
)
"""Matches the end of a line that names an organisation or a group of people."""
_NO_NAMES_TEXT: Final = (
    "Any At Be Before But Does Every Except From Has Have If In Into Is It Keep Must No Nobody None Not Off Offer "
    "Only Or Out Shall That These They This Those To Unless Until Void Was Were When Where While With Without You "
    "Your"
)
_NO_NAMES: Final = re.compile(rf"(?<![\w.])(?:{_NO_NAMES_TEXT.replace(' ', '|')})(?![\w.])")
"""Words that show that capitalised words are a sentence: names do not have them, or not capitalised."""
_URL: Final = re.compile(r"<?\bhttps?://[^\s>)\]]+|www\.[^\s>)\]]+")
_KNOWN_HOSTS: Final = re.compile(
    r"https?://(?:www\.)?(?:opensource\.org/licenses/|apache\.org/licenses/|spdx\.org/licenses/|unlicense\.org|"
    r"choosealicense\.com/licenses/mit)",
    re.IGNORECASE,
)
_TERMS_IN_URL: Final = re.compile(r"licen[cs]e|terms|legal|eula|clause|polic|commercial|agreement", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[^\s,;:()\[\]{}\"“”'’`*<>|=#!?]+")
_QUOTED: Final = re.compile(r"[`\"“][\w. -]{1,30}[`\"”]")
"""Matches a name in quotation marks."""
_UNDER: Final = re.compile(
    r"\b(?:under|by|with) (?:the )?(?:terms of )?(?:the )?(?P<name>.*licen[cs]e.*)", re.IGNORECASE
)


def is_open(raw: str) -> bool:
    """Return whether a copyright line continues on the next: it ends with "and" or a comma, or has no name yet."""
    rest = _YEARS.sub("", re.sub(r"\(c\)|©|copyrights?|copr\b", " ", raw, flags=re.IGNORECASE).strip())
    return _OPEN.search(raw) is not None or not any(map(str.isalpha, rest))


def names_holders(raw: str) -> bool:
    """Return whether a line after a copyright line clearly names further holders.

    It does if it starts with years, has an address, or ends like the name of an organisation or a group. Capital
    letters are not enough, because the words of a condition may be capitalised as well.
    """
    return "@" in raw or any(pattern.search(raw) for pattern in (_YEARS, _CREDITED, _RESERVED, _URL))


def is_holders(raw: str, words: Sequence[str], *, is_copyright: bool) -> bool:
    """Return whether a line only names copyright holders; after "copyright", names may be in lower case."""
    raw = _RESERVED.sub(" ", raw)
    about_licence = not _LICENCES.isdisjoint(words)
    if not is_copyright and about_licence:
        return False
    if len(words) > _MAX_HOLDERS or spdx.restricts_more_than_a_name(words) or _NO_NAMES.search(raw):
        return False
    first, *others = _NEXT_SENTENCE.split(raw)
    return is_plain(first, strangers=_STRANGERS if is_copyright and not about_licence else 0) and all(
        is_plain(other) and (names_holders(other) or _describes_holders(other)) for other in others
    )


def _describes_holders(sentence: str) -> bool:
    """Return whether a sentence after a holder's name has only words of descriptions, in upper or lower case."""
    return is_plain(sentence.lower())


def is_plain(raw: str, *, strangers: int = 0) -> bool:
    """Return whether the lower-case words of a line are all words of descriptions, so that its other words are names.

    Up to `strangers` other lower-case words are allowed.
    """
    if any(not _is_plain_url(url[0]) for url in _URL.finditer(raw)):
        return False
    raw = re.sub(r"^(?P<bullet>[-*#=\s]*)[\w.-]+(?=\s*(?:,|:| -))", " ", _QUOTED.sub(" ", _URL.sub(" ", raw)))
    letters = [char for char in raw if char.isalpha()]
    shouted = len(raw.split()) > 2 and all(char.isupper() for char in letters)
    plain = [_is_plain_word(token.strip(".-"), shouted=shouted) for token in _TOKEN.findall(raw)]
    return plain.count(False) <= strangers


def _is_plain_url(url: str) -> bool:
    """Return whether an address leads to a known licence, or not to a licence at all."""
    return _KNOWN_HOSTS.match(url.lstrip("<")) is not None or _TERMS_IN_URL.search(url) is None


def _is_plain_word(word: str, *, shouted: bool) -> bool:
    if word and not any(map(_has_case, word)):
        return not any(map(str.isalpha, word))  # in a script without capitals, names cannot be recognised
    if any(char in "/@._&+-$©" or char.isdigit() for char in word) or not word:
        return True
    return word.lower() in _PLAIN if shouted or word[0].islower() else True


def _has_case(char: str) -> bool:
    return char.isupper() or char.islower()


def is_description(raw: str, words: Sequence[str]) -> bool:
    """Return whether a line is a heading or a description that neither grants nor restricts a right."""
    if len(words) > _MAX_WORDS or spdx.restricts(words) or not _FAMILIES.isdisjoint(words) or _is_slogan(raw):
        return False
    if words[-1:] == ("license",) and not _CHANGED.isdisjoint(words):
        return False
    if len(words) == 1 or (len(words) <= 3 and words[-1] == "license"):
        return is_plain(raw, strangers=1) and not any(char.isalpha() and not _has_case(char) for char in raw)
    return is_plain(raw, strangers=1) and all(_is_known(match["name"]) for match in _UNDER.finditer(raw))


def _is_slogan(raw: str) -> bool:
    """Return whether words other than names are capitalised in a line, so that it may have terms."""
    tokens = [token.strip(".-") for token in _TOKEN.findall(_URL.sub(" ", raw))]
    words = [token for token in tokens if token[:1].isalpha()]
    strange = [word for word in words if word.lower() not in _PLAIN and not _is_identifier(word)]
    if any(map(str.islower, words)):
        return False
    return _NO_NAMES.search(" ".join(words[1:])) is not None or len(strange) > _TITLE_WORDS


def _is_identifier(word: str) -> bool:
    """Return whether a word looks like a name of software: with a digit, a dot, a hyphen or an inner capital."""
    return any(char in "/@._&+-$" or char.isdigit() for char in word) or word[1:] != word[1:].lower()


def _is_known(name: str) -> bool:
    """Return whether the words after "under" name a known licence or refer to one in the same text."""
    tokens = [token.strip(".-") for token in _TOKEN.findall(name)]
    if any("/" in token and "licen" in token.lower() for token in tokens):
        return False  # the licence is in another file
    left = [token for token in tokens if token.lower() not in _PLAIN - {"mit"} and "/" not in token]
    left = list(dict.fromkeys(left))
    return not left or spdx.of_name(" ".join(left)) is not None
