"""Find personal data: e-mail addresses, IP addresses, and names in author lines.

A copyright notice keeps its holder, because licences require that the notice remains in every copy. Addresses that are
reserved for documentation and tests (RFC 2606, 5737, 3849), private networks, or public services (resolvers) do not
identify a person.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from infill.corpus.privacy.spans import PrivateSpan, places

# E-mail addresses

_DOMAIN: Final = re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8})([A-Za-z]{2,16})(?![\w-]|\.\w|\()")
_LOCAL: Final = re.compile(r"[\w.+'%-]{1,64}\Z")
_COUNTRIES: Final = (
    "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bw by bz"
    " ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk"
    " fm fo fr ga gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir"
    " is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk"
    " ml mm mn mo mp mq mr ms mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl"
    " pm pn pr ps pt pw py qa re ro rs ru rw sa sb sc sd se sg sh si sk sl sm sn so sr ss st su sv sx sy sz tc"
    " td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw"
)
_GENERIC: Final = (
    "academy aero agency app art asia berlin biz blog build business care cat center chat city click cloud club"
    " codes coffee com community company computer coop consulting cool design dev digital direct earth edu"
    " education email energy engineer engineering enterprises eu events expert finance foundation fun fund fyi"
    " games gmbh gov graphics group guide guru health help hosting house info ink institute int international"
    " jobs lab land law legal life limited link live llc london ltd management market marketing media mil mobi"
    " money museum name net network news ngo ninja nyc one ong online org page partners party paris photo"
    " photography place plus post press pro productions pub quest red rocks run sale school science security"
    " services shop site social software solutions space store studio support swiss systems team tech technology"
    " tel tips today tools top tours town training travel tube university vip vision wiki win wine work works"
    " world wtf xyz zone"
)
_ENDINGS: Final = frozenset(f"{_COUNTRIES} {_GENERIC}".split())
"""Top-level domains in which people have addresses; attributes (`a@b.T`) and files (`x@2x.png`) end differently."""
_RESERVED: Final = re.compile(r"(?:^|\.)(?:example\.\w{2,3}|example|test|invalid|localhost|local)$", re.IGNORECASE)
_USER_OF_URL: Final = re.compile(r"://[^\s/?#\"'<>]*\Z")
_NO_PERSON_WORDS: Final = "git hg svn cvs anonymous return this super break continue user@ npm"
_NO_PERSON: Final = frozenset(_NO_PERSON_WORDS.split())


def _emails(text: str) -> Iterator[PrivateSpan]:
    for domain in _DOMAIN.finditer(text):
        if domain[2].lower() not in _ENDINGS or _RESERVED.search(domain[0][1:]):
            continue
        local = _LOCAL.search(text, max(0, domain.start() - 64), domain.start())
        if local is None:
            continue
        name = local[0].lstrip("'.-%")
        before = text[max(0, domain.start() - len(name) - 3) : domain.start() - len(name)]
        if not name or name.lower() in _NO_PERSON or name[-1] in ".%" or before.endswith(("%", "}", "$")):
            continue
        if _USER_OF_URL.search(text, max(0, domain.start() - 200), domain.start()):
            continue
        yield PrivateSpan(domain.start() - len(name), domain.end(), "email")


# IP addresses

_IPV4: Final = re.compile(r"[0-9][0-9]?[0-9]?\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w+]|\.\d|-\d)")
_IPV6: Final = re.compile(r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:.]{2,40}(?![\w:])")
_RESOLVERS_WORDS: Final = (
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220 4.2.2.1 4.2.2.2"
    " 114.114.114.114 2001:4860:4860::8888 2001:4860:4860::8844 2606:4700:4700::1111 2606:4700:4700::1001"
    " 2620:fe::fe"
)
_RESOLVERS: Final = frozenset(_RESOLVERS_WORDS.split())
"""Public resolvers, which code uses to test for a connection to the internet (BigCode keeps them, too)."""
_VERSION: Final = re.compile(
    r"(?:version|\bvers?|release|revision|upgrade|update|build|section|chapter|since|\boid|objectidentifier)[^\w\n]{0,12}(?:\w{1,12}[^\w\n]{1,3})?\Z"
    r"|(?:[=<>~^!]=|~>|\^)\s?[\"']?\Z|[A-Za-z]/\Z",
    re.IGNORECASE,
)
_NETWORK: Final = re.compile(
    r"\b(?:ip|ips|ipv4|ip_?addr\w*|host\w*|addr\w*|server\w*|dns|nameserver|ping|ssh|listen|bind|proxy|gateway|port|subnet|cidr|peer|remote\w*"
    r"|client|from|allow|deny)\b|://",
    re.IGNORECASE,
)
_SMALL: Final = 30
"""Four numbers up to this are more often a version than an address, unless the line mentions a network."""


def _addresses(text: str) -> Iterator[PrivateSpan]:
    for match in _IPV4.finditer(text):
        if not _is_continuation(text, match.start()) and _is_public(match[0]) and not _is_version(text, match):
            yield PrivateSpan(*match.span(), "ip_address")
    for match in _IPV6.finditer(text):
        value = match[0].rstrip(":.")
        if value.count(":") >= 2 and not _is_continuation(text, match.start(), "_.:") and _is_public(value):
            yield PrivateSpan(match.start(), match.start() + len(value), "ip_address")


def _is_continuation(text: str, start: int, signs: str = "_.+-") -> bool:
    """Return whether the text at `start` is the rest of a longer number or name."""
    return start > 0 and (text[start - 1].isalnum() or text[start - 1] in signs)


def _is_public(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if address.is_multicast or str(address) in _RESOLVERS or value.endswith(".0"):  # .0 is a network
        return False
    return address.is_global


def _is_version(text: str, match: re.Match[str]) -> bool:
    if _VERSION.search(text, max(0, match.start() - 40), match.start()):
        return True
    if max(map(int, match[0].split("."))) > _SMALL:
        return False
    first = max(0, match.start() - 80)
    first = max(first, text.rfind("\n", first, match.start()) + 1)
    return not _NETWORK.search(text, first, match.start())


# Names in author lines

_WORD: Final = r"[^\W\d_][\w'’.-]{0,30}"
_PARTICLES: Final = (
    "van",
    "von",
    "de",
    "del",
    "der",
    "den",
    "da",
    "di",
    "du",
    "la",
    "le",
    "bin",
    "ibn",
    "al",
    "ter",
    "zu",
    "dos",
    "el",
)
_PARTICLE: Final = f"(?:{'|'.join(_PARTICLES)})"
_FULL_NAME: Final = re.compile(rf"{_WORD}(?:[ \t]+(?:{_PARTICLE}[ \t]+){{0,2}}{_WORD}){{1,3}}")
_SINGLE: Final = re.compile(r"[A-Za-z][\w.-]{1,30}(?=[ \t]*(?:<[^>\n]*>)?[ \t]*(?:\*/|-->)?[\"']?[ \t]*(?:\r?\n|\Z))")
_LEAD: Final = re.compile(
    r"""(?x)
    (?: (?P<tag> (?<=[@\\])(?i:author):? ) [ \t{]+
      | (?P<verb> [ ](?i:by):? ) [ \t]+
      | (?P<noun> (?i:authors?|maintainers?|contributors?|autor|developers?) (?:__|\(s\)|_?name)? )
        (?: ["']?\]?[ \t]*[:=]>?\s{0,3} (?:\(\s*)? | ["'] \s content= | > \s{0,8} | ::[ ] )
        [\[{(]{0,2} \s{0,8} ["'{]? (?: <?["']?name["'>]{0,2} \s{0,3} [:=]? \s{0,3} ["']? )? ["']?
    )
    """
)
"""Matches at one of `_LEADS`."""
_LEADS: Final = ("author", "autor", "maintainer", "contributor", "developer", " by ", " by:")
_CREATION: Final = re.compile(
    r"\b(?:created|written|developed|implemented|ported|contributed|maintained)\Z", re.IGNORECASE
)


def _leads(text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of text that introduces an author's name."""
    lower = text.lower()
    if len(lower) != len(text):  # the lower case of a letter has two characters, so offsets differ
        lower = text
    for place in sorted({place for word in _LEADS for place in places(lower, word)}):
        lead = _LEAD.match(text, place)
        if lead is None or (lead["verb"] and not _CREATION.search(text, max(0, place - 12), place)):
            continue
        if (
            lead["noun"]
            and place
            and (text[place - 1].isalnum() and not text[max(0, place - 6) : place].lower().endswith(("code", "module")))
        ):
            continue
        yield lead


_BETWEEN: Final = re.compile(
    r"(?:[ \t]*<[^<>\n]{0,80}>|[ \t]*\([^()\n]{0,80}\))?[\"']?"
    r"(?:[ \t]*(?:,|;|&|\band\b|\bund\b|\bet\b)\s*(?:\band\b\s*)?[#*/ \t]*[\"']?)"
)
_NOBODY_WORDS: Final = (
    "inc inc. llc ltd ltd. gmbh ag corp corp. corporation company co. team contributors developers authors"
    " foundation project projects authority community group university institute lab labs software technologies"
    " systems solutions google microsoft facebook apple amazon ibm intel nvidia mozilla apache eclipse jetbrains"
    " oracle unknown anonymous todo none the this see various all other name your author authors file and by on"
    " with for tool script xcode eclipse generated automatically copyright license licence version date email"
    " rights type string int number null true false org core open source python rust java string description"
    " license maintainers package module contributors: url readme visual studio summary home-page platform"
    " keywords classifiers"
)
_NOBODY: Final = frozenset(_NOBODY_WORDS.split())
_COPYRIGHT: Final = re.compile(r"copyright|©|\(c\)", re.IGNORECASE)


def _authors(text: str) -> Iterator[PrivateSpan]:
    for lead in _leads(text):
        first = max(0, lead.start() - 200)
        if _COPYRIGHT.search(text, max(first, text.rfind("\n", first, lead.start()) + 1), lead.start()):
            continue  # a copyright notice keeps its holder
        position = lead.end()
        for number in range(64):
            name = _FULL_NAME.match(text, position)
            span = _person(name) if name else None
            if span is None and number == 0 and (lead["tag"] or text.endswith("__", 0, lead.start())):
                single = _SINGLE.match(text, position)
                span = _handle(single) if single else None
            if span is None:
                break
            yield span
            following = _BETWEEN.match(text, span.end)
            if following is None:
                break
            position = following.end()


def _person(match: re.Match[str]) -> PrivateSpan | None:
    """Return the span of a person's name, without following words; None for a company, a team, or other words."""
    words = match[0].split()
    kept = words
    for place, word in enumerate(words):
        if word in {"and", "und", "et"}:
            kept = words[:place]
            break
    if len(kept) < 2 or any(word.lower() in _NOBODY for word in kept):
        return None
    if not all(word[0].isupper() or not word[0].islower() or word in _PARTICLES for word in kept):
        return None
    length = match[0].find(kept[-1], sum(map(len, kept[:-1]))) + len(kept[-1])
    end = match.start() + length
    while match.string[end - 1] in ".-'’" and not (match.string[end - 1] == "." and len(kept[-1]) == 2):
        end -= 1
    return PrivateSpan(match.start(), end, "author")


def _handle(match: re.Match[str]) -> PrivateSpan | None:
    """Return the span of a name of one word; None if it does not name a person."""
    word = match[0]
    return (
        None
        if word.lower() in _NOBODY or "." in word[-1:]
        else PrivateSpan(match.start(), match.start() + len(word), "author")
    )


def find(text: str) -> list[PrivateSpan]:
    """Return all personal data in a text."""
    return [*_emails(text), *_addresses(text), *_authors(text)]
