"""The labelled set of the privacy step: secrets, personal data, and what only looks so.

The three text files next to this module hold the cases, one a line, without a single secret: the values are made here
at run time, from the published forms of each kind of token and a seed, so that neither this repository's scanners nor a
host's push protection see one. Half of the cases, by the hash of their text, is the half that one may look at.
"""

import base64
import hashlib
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from infill.text import read_text, split_lines

HERE: Final = Path(__file__).parent
LINE_END: Final = "⏎"
_MARK: Final = re.compile(r"«([A-Za-z0-9_]+)(?:=([^»]*))?»")
DIGITS: Final = string.digits
HEX: Final = "0123456789abcdef"
UPPER: Final = string.ascii_uppercase
LOWER: Final = string.ascii_lowercase
ALNUM: Final = string.ascii_letters + string.digits
URLSAFE: Final = ALNUM + "-_"
BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32: Final = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and the values in it that must be replaced; none for a harmless one."""

    name: str
    path: str
    text: str
    expected: tuple[tuple[str, str], ...]
    """Kind and value."""
    held_out: bool
    """Whether it belongs to the half on which nothing is tuned."""


def load() -> list[Case]:
    """Return all cases, in the order of the files."""
    return [
        *_cases("privacy_secrets.txt", harmless=False),
        *_cases("privacy_people.txt", harmless=False),
        *_cases("privacy_harmless.txt", harmless=True),
    ]


def _cases(file: str, *, harmless: bool) -> list[Case]:
    return [
        _case(f"{file}:{number}", line, harmless=harmless)
        for number, line in enumerate(split_lines(read_text(HERE / file)), 1)
        if line and not line.startswith("#")
    ]


def _case(name: str, line: str, *, harmless: bool) -> Case:
    path, text = line.split(" :: ", 1)
    random = Random(line)
    expected: list[tuple[str, str]] = []

    def fill(mark: re.Match[str]) -> str:
        kind, written = mark.groups()
        value = written if written is not None else KINDS[kind](random)
        parts = _PRIVATE_PARTS.findall(value) if value.startswith(("-----BEGIN", "PuTTY")) else [value]
        expected.extend((kind, part) for part in ([] if harmless else parts))
        return value

    filled = _MARK.sub(fill, text.replace(LINE_END, "\n"))
    held_out = hashlib.sha256(line.encode()).digest()[0] % 2 == 1
    return Case(name=name, path=path, text=filled, expected=tuple(expected), held_out=held_out)


_PRIVATE_PARTS: Final = re.compile(r"(?:(?<=\\n)|(?<![\\A-Za-z0-9+/=]))[A-Za-z0-9+/=]{40,}")
"""Of a private key, the lines of its body: its first and last line may stay."""


def _of(alphabet: str, length: int) -> Callable[[Random], str]:
    return lambda random: "".join(random.choices(alphabet, k=length))


def _form(*parts: str | Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda random: "".join(part if isinstance(part, str) else part(random) for part in parts)


def _base64(length: int) -> Callable[[Random], str]:
    """Base64 of `length` random bytes."""
    return lambda random: base64.b64encode(random.randbytes(length)).decode("ascii")


def _uuid(random: Random) -> str:
    digits = "".join(random.choices(HEX, k=32))
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


_WORDS: Final = ("River", "copper", "Falcon", "winter", "Mango", "tiger", "Orbit", "pixel", "Sonne", "maple")


def _password(random: Random) -> str:
    """A password as people choose them: words with digits and signs, or random characters."""
    digits = "".join(random.choices(DIGITS, k=random.randint(2, 4)))
    sign = random.choice("!#*-_.+")
    word, other = random.sample(_WORDS, 2)
    forms = (
        f"{word}{digits}{sign}",
        f"{word}{sign}{other}{digits}",
        f"{word.lower()}{digits}{other}",
        word.replace("i", "1").replace("e", "3").replace("o", "0") + sign + digits,
        "".join(random.choices(ALNUM, k=12)),
        "".join(random.choices(ALNUM + "-_.*+", k=16)),
    )
    return random.choice(forms)


def _jwt(random: Random) -> str:
    subject = "".join(random.choices(DIGITS, k=10))
    parts = ['{"alg":"HS256","typ":"JWT"}', f'{{"sub":"{subject}","iat":15{subject[:8]}}}']
    head, body = (base64.urlsafe_b64encode(part.encode()).decode("ascii").rstrip("=") for part in parts)
    return f"{head}.{body}.{''.join(random.choices(URLSAFE, k=43))}"


def _basic(random: Random) -> str:
    return base64.b64encode(f"ci-user:{_password(random)}".encode()).decode("ascii")


def _pem(
    label: str, lines: int, *, start: str = "MII", end: str = "\n", indent: str = "", head: str = ""
) -> Callable[[Random], str]:
    """A block between its first and last line; the body is random after `start`."""

    def build(random: Random) -> str:
        body = [_base64(48)(random) for _ in range(lines - 1)] + [_base64(30)(random)]
        body[0] = start + body[0][len(start) :]
        private = f"{label} KEY" + " BLOCK" * label.startswith("PGP")
        rows = [f"-----BEGIN {private}-----", *([head] if head else []), *body, f"-----END {private}-----"]
        return f"{end}{indent}".join(rows)

    return build


def _pem_base64(random: Random) -> str:
    return base64.b64encode(_pem("RSA PRIVATE", 4)(random).encode()).decode("ascii")


def _putty(random: Random) -> str:
    body = "\n".join(_base64(48)(random) for _ in range(3))
    return f"PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\nPrivate-Lines: 3\n{body}\nPrivate-MAC: " + _of(HEX, 40)(
        random
    )


def _telegram(random: Random) -> str:
    return f"{random.randint(100000000, 999999999)}:AA" + _of(URLSAFE, 33)(random)


def _discord(random: Random) -> str:
    user = str(random.randint(10**17, 10**18 - 1))
    return (
        base64.b64encode(user.encode()).decode("ascii") + "." + _of(ALNUM, 6)(random) + "." + _of(URLSAFE, 27)(random)
    )


def _salt(random: Random) -> str:
    return "".join(random.choices(ALNUM + "!@#$%^&*()-_ []{}<>~`+=,.;:/?|", k=64))


KINDS: Final[dict[str, Callable[[Random], str]]] = {
    "HEX24": _of("0123456789ABCDEF", 24),
    "age": _form("AGE-SECRET-", "KEY-1", _of(BECH32, 58)),
    "airtable": _form("pat", _of(ALNUM, 14), ".", _of(HEX, 64)),
    "alibaba_id": _form("LT", "AI", _of(ALNUM, 20)),
    "anthropic": _form("sk-", "ant-", "api03-", _of(URLSAFE, 93), "AA"),
    "artifactory": _form("AK", "Cp", _of(ALNUM, 69)),
    "asana": _form("1/", _of(DIGITS, 16), ":", _of(HEX, 32)),
    "atlassian": _form("ATA", "TT3", "xFfGF0", _of(URLSAFE, 170), "=", _of("0123456789ABCDEF", 8)),
    "aws_id": _form("AK", "IA", _of(UPPER + "234567", 16)),
    "aws_secret": _of(ALNUM + "+/", 40),
    "aws_sts": _form("AS", "IA", _of(UPPER + "234567", 16)),
    "azure_client": _form(_of(ALNUM, 3), "8Q~", _of(ALNUM + "-_.~", 34)),
    "azure_pat": _of(LOWER + "234567", 52),
    "azure_sas": _base64(32),
    "azure_sig": _form(_of(ALNUM, 40), "%2B", _of(ALNUM, 2), "%3D"),
    "azure_storage": _base64(64),
    "b64pw": lambda random: base64.b64encode(_password(random).encode()).decode("ascii"),
    "base58_44": _of(BASE58, 44),
    "base62_16": _of(ALNUM, 16),
    "base62_20": _of(ALNUM, 20),
    "base62_22": _of(ALNUM, 22),
    "base62_24": _of(ALNUM, 24),
    "base62_25": _of(ALNUM, 25),
    "base62_30": _of(ALNUM, 30),
    "base62_32": _of(ALNUM, 32),
    "base62_40": _of(ALNUM, 40),
    "base62_45": _of(ALNUM, 45),
    "base62_50": _of(ALNUM, 50),
    "base64_43": _of(ALNUM + "+/", 43),
    "base64_44": _base64(32),
    "base64_64": _base64(48),
    "base64_64b": _base64(48),
    "base64_86": _of(ALNUM + "+/", 86),
    "base64url_43": _of(URLSAFE, 43),
    "base64url_44": _of(URLSAFE, 44),
    "basic64": _basic,
    "bitbucket_app": _form("AT", "BB", _of(ALNUM, 32)),
    "braintree": _form("access_", "token$", "production$", _of(LOWER + DIGITS, 16), "$", _of(HEX, 32)),
    "brevo": _form("xkey", "sib-", _of(HEX, 64), "-", _of(ALNUM, 16)),
    "buildkite": _of(HEX, 50),
    "cargo": _form("ci", "o", _of(ALNUM, 32)),
    "databricks": _form("da", "pi", _of(HEX, 32)),
    "digitalocean": _form("dop", "_v1_", _of(HEX, 64)),
    "discord_bot": _discord,
    "discord_hook": _form("https://discord.com/api/", "webhooks/", _of(DIGITS, 18), "/", _of(URLSAFE, 68)),
    "django": _form(_of(LOWER + DIGITS + "!@#$%^&*(-_=+)", 50)),
    "docker_pat": _form("dckr_", "pat_", _of(URLSAFE, 27)),
    "doppler": _form("dp.", "pt.", _of(ALNUM, 43)),
    "dropbox": _form("sl", ".", _of(URLSAFE, 135)),
    "facebook": _form("EAAC", "EdEose0cBA", _of(ALNUM, 60)),
    "fernet": lambda random: base64.urlsafe_b64encode(random.randbytes(32)).decode("ascii"),
    "figma": _form("fig", "d_", _of(URLSAFE, 40)),
    "fly": _form("fo", "1_", _of(URLSAFE, 43)),
    "github_app": _form("gh", "s_", _of(ALNUM, 36)),
    "github_fine": _form("github", "_pat_", _of(ALNUM, 22), "_", _of(ALNUM, 59)),
    "github_oauth": _form("gh", "o_", _of(ALNUM, 36)),
    "github_pat": _form("gh", "p_", _of(ALNUM, 36)),
    "github_refresh": _form("gh", "r_", _of(ALNUM, 36)),
    "gitlab_deploy": _form("gl", "dt-", _of(URLSAFE, 20)),
    "gitlab_pat": _form("gl", "pat-", _of(URLSAFE, 20)),
    "gitlab_runner": _form("gl", "rt-", _of(URLSAFE, 20)),
    "gitlab_trigger": _form("gl", "ptt-", _of(HEX, 40)),
    "google_access": _form("ya", "29.", _of(URLSAFE, 100)),
    "google_api": _form("AI", "za", _of(URLSAFE, 35)),
    "google_oauth": _form("GOC", "SPX-", _of(URLSAFE, 28)),
    "grafana": _form("gl", "sa_", _of(ALNUM, 32), "_", _of(HEX, 8)),
    "groq": _form("gs", "k_", _of(ALNUM, 52)),
    "hex12": _of(HEX, 12),
    "hex128": _of(HEX, 128),
    "hex16": _of(HEX, 16),
    "hex32": _of(HEX, 32),
    "hex37": _of(HEX, 37),
    "hex40": _of(HEX, 40),
    "hex48": _of(HEX, 48),
    "hex60": _of(HEX, 60),
    "hex64": _of(HEX, 64),
    "hex8": _of(HEX, 8),
    "huggingface": _form("h", "f_", _of(string.ascii_letters, 34)),
    "jwt": _jwt,
    "linear": _form("lin_", "api_", _of(ALNUM, 40)),
    "mailchimp": _form(_of(HEX, 32), "-us", "12"),
    "mailgun": _form("ke", "y-", _of(HEX, 32)),
    "mapbox_secret": _form("s", "k.", "eyJ1Ijoi", _of(ALNUM, 60), ".", _of(ALNUM, 22)),
    "netlify": _form("nf", "p_", _of(ALNUM, 36)),
    "newrelic_licence": _form(_of(HEX, 36), "NR", "AL"),
    "newrelic_user": _form("NR", "AK-", _of(UPPER + DIGITS, 27)),
    "notion": _form("sec", "ret_", _of(ALNUM, 43)),
    "npm": _form("np", "m_", _of(ALNUM, 36)),
    "openai": _form("s", "k-", _of(ALNUM, 20), "T3Blbk", "FJ", _of(ALNUM, 20)),
    "openai_project": _form("s", "k-proj-", _of(URLSAFE, 74), "T3Blbk", "FJ", _of(URLSAFE, 74)),
    "paypal_secret": _form("E", _of(URLSAFE, 79)),
    "pem_base64": _pem_base64,
    "pem_dsa": _pem("DSA PRIVATE", 4),
    "pem_ec": _pem("EC PRIVATE", 2),
    "pem_encrypted": _pem("ENCRYPTED PRIVATE", 5),
    "pem_escaped": _pem("PRIVATE", 4, end="\\n"),
    "pem_indented": _pem("PRIVATE", 4, indent="    "),
    "pem_json": _pem("PRIVATE", 6, end="\\n"),
    "pem_openssh": _pem("OPENSSH PRIVATE", 5, start="b3BlbnNzaC1rZXktdjE"),
    "pem_pkcs8": _pem("PRIVATE", 5),
    "pem_rsa": _pem("RSA PRIVATE", 8),
    "pgp_private": _pem("PGP PRIVATE", 6, start="lQ", head="Version: GnuPG v2\n"),
    "planetscale": _form("pscale", "_pw_", _of(URLSAFE, 43)),
    "postman": _form("PM", "AK-", _of(HEX, 24), "-", _of(HEX, 34)),
    "putty": _putty,
    "pw": _password,
    "pw2": _password,
    "pw3": _of(ALNUM, 10),
    "pwlong": _of(ALNUM, 24),
    "pypi": _form("py", "pi-", "AgEIcHlwaS5vcmc", _of(URLSAFE, 160)),
    "rapidapi": _form(_of(HEX, 10), "msh", _of(HEX, 15), "p1", _of(HEX, 6), "jsn", _of(HEX, 12)),
    "replicate": _form("r", "8_", _of(ALNUM, 37)),
    "rubygems": _form("rubygems", "_", _of(HEX, 48)),
    "salt": _salt,
    "sendgrid": _form("S", "G.", _of(URLSAFE, 22), ".", _of(URLSAFE, 43)),
    "sentry": _form("sn", "trys_", "eyJpYXQiOjE2", _of(ALNUM, 90), "_", _of(ALNUM, 43)),
    "sentry_old": _of(HEX, 64),
    "shopify": _form("shp", "at_", _of(HEX, 32)),
    "shopify_shared": _form("shp", "ss_", _of(HEX, 32)),
    "slack_app": _form("xa", "pp-", "1-A0", _of(UPPER + DIGITS, 9), "-", _of(DIGITS, 13), "-", _of(HEX, 64)),
    "slack_bot": _form("xo", "xb-", _of(DIGITS, 12), "-", _of(DIGITS, 13), "-", _of(ALNUM, 24)),
    "slack_hook": _form(
        "https://hooks.slack.",
        "com/services/T0",
        _of(UPPER + DIGITS, 8),
        "/B0",
        _of(UPPER + DIGITS, 8),
        "/",
        _of(ALNUM, 24),
    ),
    "slack_user": _form("xo", "xp-", _of(DIGITS, 12), "-", _of(DIGITS, 12), "-", _of(DIGITS, 12), "-", _of(HEX, 32)),
    "sonar": _form("sq", "p_", _of(HEX, 40)),
    "square_access": _form("EAA", "A", _of(URLSAFE, 60)),
    "square_secret": _form("sq0", "csp-", _of(URLSAFE, 43)),
    "stripe_hook": _form("wh", "sec_", _of(ALNUM, 32)),
    "stripe_live": _form("sk", "_live_", _of(ALNUM, 24)),
    "stripe_restricted": _form("rk", "_live_", _of(ALNUM, 24)),
    "stripe_test": _form("sk", "_test_", _of(ALNUM, 24)),
    "teams_hook": _form(
        "https://acme.webhook.office.com/",
        "webhookb2/",
        _uuid,
        "@",
        _uuid,
        "/IncomingWebhook/",
        _of(HEX, 32),
        "/",
        _uuid,
    ),
    "telegram_bot": _telegram,
    "terraform": _form(_of(ALNUM, 14), ".atlas", "v1.", _of(ALNUM, 67)),
    "twilio_key": _form("S", "K", _of(HEX, 32)),
    "uuid": _uuid,
    "vault": _form("hv", "s.", _of(URLSAFE, 92)),
}
"""Kind -> how to make a value of it. Prefixes are written in two pieces."""
