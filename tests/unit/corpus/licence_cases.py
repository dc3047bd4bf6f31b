"""Repositories made to judge the licence rules by: small folders, and which of their source files may be kept.

The labels say what a careful reader of the files would decide, with the default list of permitted licences. Those of the
first half were written before the rules had answered any of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infill.text import read_text

_TEXTS: Final = Path(__file__).parent / "licence_texts"
_ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True)
class Code:
    """A source file, which begins with `header`."""

    keep: bool
    header: str = ""


KEEP: Final = Code(keep=True)
DROP: Final = Code(keep=False)
Files = dict[str, str | bytes | Code]


def keep(header: str) -> Code:
    return Code(keep=True, header=header)


def drop(header: str) -> Code:
    return Code(keep=False, header=header)


def text(name: str) -> str:
    return read_text(_TEXTS / f"{name}.txt")


def comment(words: str, mark: str = "#") -> str:
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in words.split("\n"))


def block(words: str) -> str:
    return "/*\n" + "".join(f" * {line}".rstrip() + "\n" for line in words.split("\n")) + " */\n"


def after(words: str, line: str, added: str) -> str:
    """Return `words` with `added` after the line that begins with `line`."""
    head, hit, tail = words.partition(line)
    assert hit, line
    rest, _, tail = tail.partition("\n")
    return f"{head}{line}{rest}\n{added}\n{tail}"


MIT: Final = text("MIT")
BSD3: Final = text("BSD-3-Clause")
BSD2: Final = BSD3[: BSD3.index("3. Neither")] + BSD3[BSD3.index("THIS SOFTWARE IS") :]
BSD4: Final = text("BSD-4-Clause")
ISC: Final = text("ISC")
ZLIB: Final = text("Zlib")
BOOST: Final = text("BSL-1.0")
UNLICENSE: Final = text("Unlicense")
APACHE: Final = read_text(_ROOT / "LICENSE")
APACHE_NOTICE: Final = text("Apache-2.0-notice")
GPL2_NOTICE: Final = text("GPL-2.0-notice")
GPL3: Final = text("GPL-3.0-head")
ACME: Final = text("Acme-proprietary")
COMMONS: Final = text("Commons-Clause")
ZERO_BSD: Final = ISC.replace("ISC License", "BSD Zero Clause License").replace(
    ", provided that the above\ncopyright notice and this permission notice appear in all copies.", "."
)
GRANT: Final = MIT[MIT.index("Permission is") :]
NO_TRAINING: Final = "The Software may not be used to train machine learning models."


# The first half: written before anything was run.

PLAIN: Final[dict[str, Files]] = {
    "mit": {"LICENSE": MIT, "src/a.py": KEEP},
    "mit markdown": {"LICENSE.md": MIT.replace("MIT License", "# MIT License"), "a.py": KEEP},
    "mit british": {"LICENCE.txt": MIT, "a.py": KEEP},
    "mit rails": {"MIT-LICENSE": GRANT.join(["Copyright (c) 2005-2024 David Someone\n\n", ""]), "a.rb": KEEP},
    "mit lower case": {"license": MIT, "a.js": KEEP},
    "mit restructured": {
        "LICENSE.rst": "===========\n" + MIT.replace("MIT License", "MIT License\n==========="),
        "a.py": KEEP,
    },
    "mit html": {
        "LICENSE.html": "<!DOCTYPE html><html><head><title>License</title></head><body><p>"
        + MIT.replace('"', "&quot;").replace("\n\n", "</p>\n<p>")
        + "</p></body></html>",
        "a.js": KEEP,
    },
    "mit shouted": {"LICENSE": MIT.upper(), "a.py": KEEP},
    "mit on one line": {"LICENSE": " ".join(MIT.split()), "a.py": KEEP},
    "mit narrow": {"LICENSE": "\n".join(" ".join(MIT.split()[at : at + 6]) for at in range(0, 170, 6)), "a.py": KEEP},
    "mit indented": {"LICENSE": "".join(f"    {line}\n" for line in MIT.split("\n")), "a.py": KEEP},
    "mit commented": {"LICENSE": comment(MIT, "//"), "a.ts": KEEP},
    "mit tabs and form feed": {"LICENSE": "\f" + MIT.replace("  ", "\t") + "\f\n", "a.py": KEEP},
    "mit with its title in brackets": {"LICENSE": MIT.replace("MIT License", "The MIT License (MIT)"), "a.py": KEEP},
    "mit without a title": {"LICENSE": MIT.removeprefix("MIT License\n\n"), "a.py": KEEP},
    "mit expat": {"COPYING": MIT.replace("MIT License", "Expat License"), "a.c": KEEP},
    "mit with a link": {
        "LICENSE": MIT.replace("MIT License", "MIT License\nhttps://opensource.org/licenses/MIT"),
        "a.py": KEEP,
    },
    "mit many holders": {
        "LICENSE": MIT.replace(
            "Copyright (c) 2019 Grace Hopper",
            "Copyright (c) 2011-2019 Grace Hopper <grace@navy.example>\nCopyright (c) 2012 Ada Lovelace and contributors\n"
            "Portions Copyright © 2015-present, Analytical Engines Ltd. (https://engines.example)",
        ),
        "a.py": KEEP,
    },
    "mit chinese holder": {"LICENSE": MIT.replace("Grace Hopper", "王小明"), "a.py": KEEP},
    "mit cyrillic holder": {"LICENSE": MIT.replace("Grace Hopper", "Софья Ковалевская"), "a.py": KEEP},
    "mit lower-case holder": {"LICENSE": MIT.replace("Grace Hopper", "sindre et al"), "a.js": KEEP},
    "mit curly quotes": {
        "LICENSE": MIT.replace('"Software"', "“Software”").replace('"AS IS"', "“AS IS”"),
        "a.py": KEEP,
    },
    "mit non-infringement": {"LICENSE": MIT.replace("NONINFRINGEMENT", "NON-INFRINGEMENT"), "a.py": KEEP},
    "bsd three": {"LICENSE": BSD3, "a.py": KEEP},
    "bsd three bullets": {
        "LICENSE.txt": BSD3.replace("1. ", "* ").replace("2. Red", "* Red").replace("3. ", "* "),
        "a.py": KEEP,
    },
    "bsd three letters": {
        "LICENSE": BSD3.replace("1. Red", "  a. Red").replace("2. Red", "  b. Red").replace("3. Nei", "  c. Nei"),
        "a.py": KEEP,
    },
    "bsd three of a university": {
        "COPYING": BSD3.replace("the copyright holder nor", "the University of Somewhere nor")
        .replace("THE COPYRIGHT HOLDERS AND CONTRIBUTORS", "THE REGENTS AND CONTRIBUTORS")
        .replace("THE COPYRIGHT HOLDER OR", "THE REGENTS OR"),
        "a.c": KEEP,
    },
    "bsd three author": {
        "COPYING": BSD3.replace(
            "Neither the name of the copyright holder nor the names of its\n   contributors may be used",
            "The name of the author may not be used",
        )
        .replace("THE COPYRIGHT HOLDERS AND CONTRIBUTORS", "THE AUTHOR")
        .replace("THE COPYRIGHT HOLDER OR CONTRIBUTORS", "THE AUTHOR"),
        "a.c": KEEP,
    },
    "bsd two": {"LICENSE": BSD2, "a.go": KEEP},
    "bsd two titled": {"LICENSE": "BSD 2-Clause License\n\n" + BSD2, "a.go": KEEP},
    "bsd four": {"LICENSE": BSD4, "a.c": DROP},
    "bsd four under an mit": {"LICENSE": MIT, "net/COPYRIGHT": BSD4, "net/a.c": DROP, "a.c": KEEP},
    "isc": {"LICENSE": ISC, "a.js": KEEP},
    "isc old wording": {"LICENSE": ISC.replace("and/or distribute", "and distribute"), "a.c": KEEP},
    "zlib": {"LICENSE": ZLIB, "a.c": KEEP},
    "boost": {"LICENSE_1_0.txt": BOOST, "a.hpp": KEEP},
    "unlicense": {"UNLICENSE": UNLICENSE, "a.py": KEEP},
    "zero bsd": {"LICENSE": ZERO_BSD, "a.ts": KEEP},
    "apache": {"LICENSE": APACHE, "a.java": KEEP},
    "apache with notice": {
        "LICENSE": APACHE,
        "NOTICE": "Analytical Engine\nCopyright 2020 Analytical Engines Ltd\n\nThis product includes software developed at\nAnalytical Engines Ltd.\n",
        "a.java": KEEP,
    },
    "apache header in a licence file": {"LICENSE": APACHE_NOTICE, "a.py": KEEP},
    "mit and apache in one file": {"LICENSE": f"{MIT}\n----------\n\n{APACHE}", "a.rs": KEEP},
    "choice of two files": {"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE, "a.rs": KEEP},
    "choice with gpl": {"LICENSE-MIT": MIT, "COPYING": GPL3, "a.c": DROP},
    "gpl": {"COPYING": GPL3, "a.c": DROP},
    "gpl notice": {"COPYING": GPL2_NOTICE, "a.c": DROP},
    "nothing at all": {"README.md": "# A tool\n", "a.py": DROP},
    "empty licence": {"LICENSE": "", "a.py": DROP},
    "proprietary": {"LICENSE": ACME, "a.py": DROP},
    "all rights reserved": {"LICENSE": "Copyright 2023 Acme. All rights reserved.\n", "a.py": DROP},
    "public domain claim": {"LICENSE": "Do what you want with it, I guess. Ask me first.\n", "a.py": DROP},
    "json licence": {
        "LICENSE": after(MIT, "copies or substantial", "\nThe Software shall be used for Good, not Evil."),
        "a.js": DROP,
    },
}

ENCODINGS: Final[dict[str, Files]] = {
    "utf-8 mark": {"LICENSE": b"\xef\xbb\xbf" + MIT.encode(), "a.cs": KEEP},
    "utf-16 little": {"LICENSE": b"\xff\xfe" + MIT.encode("utf-16-le"), "a.cs": KEEP},
    "utf-16 big": {"LICENSE": b"\xfe\xff" + MIT.encode("utf-16-be"), "a.cs": KEEP},
    "latin-1": {"LICENSE": MIT.replace("Grace Hopper", "José Müller-Groß").encode("latin-1"), "a.py": KEEP},
    "windows-1252": {"LICENSE": BSD3.replace('"AS IS"', "“AS IS”").encode("cp1252"), "a.py": KEEP},
    "mac line ends": {"LICENSE": MIT.replace("\n", "\r"), "a.py": KEEP},
    "dos line ends": {"LICENSE": BSD3.replace("\n", "\r\n"), "a.py": KEEP},
    "utf-16 proprietary": {
        "LICENSE": b"\xff\xfe" + ACME.encode("utf-16-le"),
        "package.json": '{"license": "MIT"}',
        "a.js": DROP,
    },
    "utf-8 mark in package.json": {"package.json": b"\xef\xbb\xbf" + b'{"license": "MIT"}', "a.js": KEEP},
    "utf-16 package.json": {
        "package.json": b"\xff\xfe" + '{"license": "UNLICENSED"}'.encode("utf-16-le"),
        "LICENSE": MIT,
        "a.js": DROP,
    },
    "latin-1 setup.cfg": {
        "setup.cfg": "[metadata]\nauthor = José\nlicense = Proprietary\n".encode("latin-1"),
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "latin-1 pyproject": {
        "pyproject.toml": '[project]\nauthors = [{name = "José"}]\nlicense = "GPL-3.0-only"\n'.encode("latin-1"),
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "zero bytes": {"LICENSE": b"\x00" * 64, "a.py": DROP},
}

ADDED: Final[dict[str, Files]] = {
    "no training at the end": {"LICENSE": MIT + "\n" + NO_TRAINING + "\n", "a.py": DROP},
    "no training in the middle": {"LICENSE": after(MIT, "copies or substantial", f"\n{NO_TRAINING}"), "a.py": DROP},
    "no training in the first paragraph": {
        "LICENSE": MIT.replace(
            "subject to the following conditions:", "except for training AI, subject to the following conditions:"
        ),
        "a.py": DROP,
    },
    "no training in front": {"LICENSE": f"{NO_TRAINING}\n\n{MIT}", "a.py": DROP},
    "commons clause in front": {"LICENSE": f"{COMMONS}\n{MIT}", "a.go": DROP},
    "commons clause behind": {"LICENSE": f"{APACHE}\n{COMMONS}", "a.go": DROP},
    "commons clause by name": {"LICENSE": MIT.replace("MIT License", "MIT License with Commons Clause"), "a.go": DROP},
    "non-commercial title": {"LICENSE": MIT.replace("MIT License", "MIT License (non-commercial use)"), "a.py": DROP},
    "non-commercial grant": {
        "LICENSE": MIT.replace(
            "to deal\nin the Software without restriction", "to deal\nin the Software for non-commercial purposes"
        ),
        "a.py": DROP,
    },
    "free of charge for individuals": {
        "LICENSE": MIT.replace("to any person obtaining", "to any natural person not employed by a company obtaining"),
        "a.py": DROP,
    },
    "without sell": {"LICENSE": MIT.replace("sublicense, and/or sell", "and/or sublicense"), "a.py": DROP},
    "bsd no nuclear": {
        "LICENSE": BSD3
        + "\nYou acknowledge that this software is not designed, licensed or intended for use in the design,\n"
        "construction, operation or maintenance of any nuclear facility.\n",
        "a.java": DROP,
    },
    "bsd fourth clause of one's own": {
        "LICENSE": after(
            BSD3, "   this software without specific", "\n4. Redistribution as part of a training set is not permitted."
        ),
        "a.py": DROP,
    },
    "bsd a clause of one's own between": {
        "LICENSE": BSD3.replace("3. Neither", "3. Military use is prohibited.\n\n4. Neither"),
        "a.py": DROP,
    },
    "bsd changed verb": {
        "LICENSE": BSD3.replace("are permitted provided", "are permitted to customers provided"),
        "a.py": DROP,
    },
    "bsd not permitted": {
        "LICENSE": BSD2.replace("are permitted provided", "are not permitted even provided"),
        "a.py": DROP,
    },
    "apache with a rider": {
        "LICENSE": APACHE + "\nADDITIONAL TERMS: use by competitors of Acme is excluded.\n",
        "a.java": DROP,
    },
    "apache with a changed section": {
        "LICENSE": APACHE.replace(
            "royalty-free, irrevocable\n      copyright license", "royalty-bearing, revocable\n      copyright license"
        ),
        "a.java": DROP,
    },
    "isc with a field of use": {"LICENSE": ISC.replace("for any\npurpose", "for any\nacademic purpose"), "a.py": DROP},
    "zlib with a price": {
        "LICENSE": ZLIB + "4. Products with more than 100 users need a written agreement.\n",
        "a.c": DROP,
    },
    "boost not to machines": {
        "LICENSE": after(BOOST, "do so, all subject", "No machine learning is allowed."),
        "a.cpp": DROP,
    },
    "unlicense but": {
        "LICENSE": UNLICENSE + "\nThis does not apply to Acme Corporation and its affiliates.\n",
        "a.py": DROP,
    },
    "mit hippocratic": {
        "LICENSE": after(
            MIT,
            "copies or substantial",
            "\nThe Software must not be used by any person or entity for any systems, activities, or other uses that\nviolate any Human Rights Laws.",
        ),
        "a.rb": DROP,
    },
    "mit in chinese conditions": {"LICENSE": MIT + "\n禁止将本软件用于训练人工智能模型。\n", "a.py": DROP},
    "mit with german conditions": {
        "LICENSE": MIT + "\nDie Nutzung zu gewerblichen Zwecken ist untersagt.\n",
        "a.py": DROP,
    },
    "mit with french conditions": {"LICENSE": MIT + "\nToute utilisation commerciale est interdite.\n", "a.py": DROP},
    "a capitalised line below the copyright": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper\nNo Machine Learning"),
        "a.py": DROP,
    },
    "an innocent-looking line below the copyright": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper\nOffer Void In Acme Territories"),
        "a.py": DROP,
    },
    "a capitalised ban below the copyright": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper\nCrawlers And Bots Keep Out"),
        "a.py": DROP,
    },
    "a condition in the copyright line": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper. Commercial users must pay."),
        "a.py": DROP,
    },
    "second holder below the first": {
        "LICENSE": MIT.replace(
            "Grace Hopper",
            "Grace Hopper\n              2020-2023 Ada Lovelace\n              2024 Analytical Engines Ltd",
        ),
        "a.py": KEEP,
    },
    "mit scope": {
        "LICENSE": "The following applies to everything outside of the folder ee.\n\n" + MIT,
        "ee/a.py": DROP,
    },
    "mit with an end date": {"LICENSE": MIT + "\nThis license expires on 2025-01-01.\n", "a.py": DROP},
    "not mit": {"LICENSE": "This software is NOT licensed under the MIT License.\n", "a.py": DROP},
    "formerly apache": {
        "LICENSE": "Versions before 2.0 were licensed under the Apache License, Version 2.0.\nLater versions are commercial.\n",
        "a.py": DROP,
    },
    "mit terms elsewhere": {"LICENSE": MIT + "\nAdditional terms: https://acme.example/terms\n", "a.py": DROP},
    "open core": {
        "LICENSE": 'Copyright (c) 2021 Acme\n\nPortions of this software are licensed as follows:\n\n* All content that resides under the "ee/" directory is licensed under the license defined in "ee/LICENSE".\n* Content outside of it is available under the "MIT" license as defined below.\n\n'
        + GRANT,
        "ee/LICENSE": ACME,
        "ee/a.py": DROP,
    },
}

FOLDERS: Final[dict[str, Files]] = {
    "proprietary subfolder": {
        "LICENSE": MIT,
        "a.py": KEEP,
        "lib/LICENSE": ACME,
        "lib/a.py": DROP,
        "lib/deep/b.py": DROP,
    },
    "unknown subfolder": {
        "LICENSE": APACHE,
        "lib/LICENSE.txt": "Ask Bob before you copy this.\n",
        "lib/x/y/a.py": DROP,
        "src/a.py": KEEP,
    },
    "gpl subfolder": {"LICENSE": MIT, "gpl/COPYING": GPL3, "gpl/a.c": DROP, "src/a.c": KEEP},
    "permissive subfolder of a gpl project": {"COPYING": GPL3, "a.c": DROP, "third/LICENSE": MIT, "third/a.c": KEEP},
    "permissive subfolder of a proprietary project": {
        "LICENSE": ACME,
        "a.c": DROP,
        "third/LICENSE": BSD3,
        "third/a.c": KEEP,
    },
    "licence two levels up": {"LICENSE": ISC, "a/b/c/d/e.py": KEEP},
    "eula in a subfolder": {
        "LICENSE": MIT,
        "sdk/EULA.txt": "By installing the SDK you accept the terms of Acme.\n",
        "sdk/a.py": DROP,
        "a.py": KEEP,
    },
    "eula as pdf": {"LICENSE": MIT, "sdk/EULA.pdf": b"%PDF-1.4\n\x00\x01", "sdk/a.py": DROP},
    "nested package": {
        "LICENSE": MIT,
        "packages/x/package.json": '{"name": "x", "license": "UNLICENSED"}',
        "packages/x/a.js": DROP,
        "packages/y/a.js": KEEP,
    },
    "nested gpl package": {
        "LICENSE": MIT,
        "packages/x/package.json": '{"license": "GPL-3.0-or-later"}',
        "packages/x/a.js": DROP,
    },
    "nested mit package": {"LICENSE": MIT, "packages/x/package.json": '{"license": "MIT"}', "packages/x/a.js": KEEP},
    "code named like a licence, dart": {
        "LICENSE": MIT,
        "lib/licenses.dart": drop(comment(GPL2_NOTICE, "//")),
        "lib/b.dart": KEEP,
    },
    "code named like a licence, rust": {"LICENSE": ACME, "src/license.rs": drop(""), "src/b.rs": DROP},
    "code named like a permissive licence": {
        "LICENSE": ACME,
        "src/license.go": drop(comment(MIT, "//")),
        "src/b.go": DROP,
    },
    "code that checks licences": {"LICENSE": APACHE, "src/license.py": KEEP, "src/b.py": KEEP},
    "notice is no licence": {
        "NOTICE": "This product includes software licensed under the MIT License.\n",
        "a.py": DROP,
    },
    "credits beside a licence": {"LICENSE": MIT, "THIRD-PARTY-NOTICES.txt": GPL3, "a.py": KEEP},
    "vendored under another licence": {"LICENSE": MIT, "vendor/x/a.go": DROP, "vendor/x/LICENSE": GPL3, "a.go": KEEP},
    "examples with their own licence": {
        "LICENSE": GPL3,
        "examples/LICENSE": UNLICENSE,
        "examples/a.py": KEEP,
        "a.py": DROP,
    },
    "commercial beside": {"LICENSE": MIT, "LICENSE-COMMERCIAL": ACME, "a.py": DROP},
    "patents": {
        "LICENSE": BSD3,
        "PATENTS": "The license granted hereunder terminates if you make a patent claim against Acme.\n",
        "a.py": DROP,
    },
    "documentation licence below": {
        "LICENSE": APACHE,
        "docs/LICENSE": "Creative Commons Attribution-NonCommercial 4.0 International\n",
        "docs/a.py": DROP,
        "a.py": KEEP,
    },
}

METADATA: Final[dict[str, Files]] = {
    "npm default beside a proprietary licence": {"LICENSE": ACME, "package.json": '{"license": "ISC"}', "a.js": DROP},
    "npm default beside an unknown licence": {
        "LICENSE": "Ask me.\n",
        "package.json": '{"license": "ISC"}',
        "a.js": DROP,
    },
    "npm default beside a gpl": {"COPYING": GPL3, "package.json": '{"license": "ISC"}', "a.js": DROP},
    "npm mit": {"package.json": '{"license": "MIT"}', "a.js": KEEP},
    "npm unlicensed": {"package.json": '{"license": "UNLICENSED"}', "a.js": DROP},
    "npm see": {"package.json": '{"license": "SEE LICENSE IN LICENSE.acme"}', "LICENSE.acme": ACME, "a.js": DROP},
    "npm see a licence that is there": {
        "package.json": '{"license": "SEE LICENSE IN LICENSE"}',
        "LICENSE": MIT,
        "a.js": KEEP,
    },
    "npm see something else": {"package.json": '{"license": "SEE LICENSE IN terms.txt"}', "LICENSE": MIT, "a.js": DROP},
    "npm reference": {"package.json": '{"license": "LicenseRef-Acme"}', "a.js": DROP},
    "npm reference beside mit": {"package.json": '{"license": "LicenseRef-Acme"}', "LICENSE": MIT, "a.js": DROP},
    "npm choice": {"package.json": '{"license": "(MIT OR GPL-3.0-only)"}', "a.js": KEEP},
    "npm both": {"package.json": '{"license": "(MIT AND GPL-3.0-only)"}', "a.js": DROP},
    "npm exception": {"package.json": '{"license": "Apache-2.0 WITH LLVM-exception"}', "a.js": KEEP},
    "npm gpl with an exception": {
        "package.json": '{"license": "GPL-2.0-only WITH Classpath-exception-2.0"}',
        "a.js": DROP,
    },
    "npm object": {"package.json": '{"license": {"type": "MIT", "url": "https://x.example"}}', "a.js": KEEP},
    "npm list": {"package.json": '{"licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}', "a.js": KEEP},
    "npm list of restrictions": {"package.json": '{"licenses": [{"type": "Acme"}]}', "a.js": DROP},
    "npm empty expression": {"package.json": '{"license": "()"}', "LICENSE": MIT, "a.js": DROP},
    "npm half an expression": {"package.json": '{"license": "MIT OR"}', "a.js": DROP},
    "npm number": {"package.json": '{"license": 7}', "a.js": DROP},
    "npm null": {"package.json": '{"license": null}', "LICENSE": MIT, "a.js": KEEP},
    "npm broken": {"package.json": '{"license": "UNLICENSED",}', "LICENSE": MIT, "a.js": DROP},
    "npm truncated": {"package.json": '{"name": "x", ', "LICENSE": MIT, "a.js": KEEP},
    "npm deep": {"package.json": "[" * 3000, "LICENSE": MIT, "a.js": KEEP},
    "pyproject": {"pyproject.toml": '[project]\nlicense = "BSD-3-Clause"\n', "a.py": KEEP},
    "pyproject text": {"pyproject.toml": '[project]\nlicense = {text = "MIT License"}\n', "a.py": KEEP},
    "pyproject proprietary": {
        "pyproject.toml": '[project]\nlicense = {text = "Proprietary"}\n',
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "pyproject classifier": {
        "pyproject.toml": '[project]\nclassifiers = ["License :: Other/Proprietary License"]\n',
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "poetry": {"pyproject.toml": '[tool.poetry]\nlicense = "Apache-2.0"\n', "a.py": KEEP},
    "setup.py": {"setup.py": keep("from setuptools import setup\nsetup(name='x', license='MIT')\n"), "a.py": KEEP},
    "setup.py gpl": {
        "setup.py": drop("from setuptools import setup\nsetup(name='x', license='GPLv3')\n"),
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "cargo": {"Cargo.toml": '[package]\nlicense = "MIT OR Apache-2.0"\n', "a.rs": KEEP},
    "cargo slash": {"Cargo.toml": '[package]\nlicense = "MIT/Apache-2.0"\n', "a.rs": KEEP},
    "cargo agpl": {"Cargo.toml": '[package]\nlicense = "AGPL-3.0-only"\n', "LICENSE": MIT, "a.rs": DROP},
    "composer proprietary": {"composer.json": '{"license": "proprietary"}', "LICENSE": MIT, "a.php": DROP},
    "gem": {"x.gemspec": "Gem::Specification.new do |s|\n  s.license = 'MIT'\nend\n", "a.rb": KEEP},
    "gem nonstandard": {"x.gemspec": "Gem::Specification.new do |s|\n  s.license = 'Nonstandard'\nend\n", "a.rb": DROP},
    "maven": {
        "pom.xml": "<project><licenses><license><name>Apache License, Version 2.0</name></license></licenses></project>",
        "A.java": KEEP,
    },
    "maven commercial": {
        "pom.xml": "<project><licenses><license><name>Acme Commercial</name></license></licenses></project>",
        "LICENSE": APACHE,
        "A.java": DROP,
    },
}

HEADERS: Final[dict[str, Files]] = {
    "spdx without a licence file": {"a.py": keep("# SPDX-License-Identifier: MIT\n"), "b.py": DROP},
    "spdx gpl in an mit project": {
        "LICENSE": MIT,
        "a.c": drop("/* SPDX-License-Identifier: GPL-2.0-only */\n"),
        "b.c": KEEP,
    },
    "spdx twice": {"a.c": drop("// SPDX-License-Identifier: MIT\n// SPDX-License-Identifier: GPL-2.0-only\n")},
    "spdx choice": {"a.c": keep("/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */\n")},
    "spdx empty": {"LICENSE": MIT, "a.py": drop("# SPDX-License-Identifier: ()\n")},
    "spdx half": {"LICENSE": MIT, "a.py": drop("# SPDX-License-Identifier: MIT OR\n")},
    "spdx reference": {"LICENSE": MIT, "a.py": drop("# SPDX-License-Identifier: LicenseRef-Proprietary\n")},
    "gpl notice in a header": {"LICENSE": MIT, "a.py": drop(comment(GPL2_NOTICE)), "b.py": KEEP},
    "gpl notice in a block": {"LICENSE": BSD3, "a.c": drop(block("Copyright (C) 1999 Someone\n\n" + GPL2_NOTICE))},
    "lgpl notice": {"LICENSE": MIT, "a.c": drop(block(GPL2_NOTICE.replace("GNU General", "GNU Lesser General")))},
    "agpl in one line": {"LICENSE": MIT, "a.py": drop("# Licensed under the AGPLv3, see COPYING.\n")},
    "mpl notice": {
        "LICENSE": MIT,
        "a.js": drop(
            block(
                "This Source Code Form is subject to the terms of the Mozilla Public\nLicense, v. 2.0. If a copy of the MPL was not distributed with this\nfile, You can obtain one at http://mozilla.org/MPL/2.0/."
            )
        ),
    },
    "proprietary header": {
        "LICENSE": MIT,
        "a.py": drop("# Copyright 2020 Acme. Proprietary and confidential.\n# Do not distribute.\n"),
    },
    "apache header": {"LICENSE": APACHE, "a.py": keep(comment(APACHE_NOTICE))},
    "apache header alone": {"a.py": keep(comment(APACHE_NOTICE)), "b.py": DROP},
    "mit header alone": {"a.js": keep(block(MIT))},
    "bsd header alone": {"a.c": keep(block(BSD3))},
    "bsd header under gpl": {"COPYING": GPL3, "a.c": keep(block(BSD2)), "b.c": DROP},
    "header that changes mit": {"LICENSE": MIT, "a.js": drop(block(after(MIT, "copies or substantial", NO_TRAINING)))},
    "docstring gpl": {"LICENSE": MIT, "a.py": drop('"""A tool.\n\n' + GPL2_NOTICE + '"""\n')},
    "see licence": {"LICENSE": MIT, "a.py": keep("# Copyright 2020 Ada. See the LICENSE file.\n")},
    "bsd-style licence file": {
        "LICENSE": BSD3,
        "a.go": keep(
            "// Copyright 2019 The Engine Authors. All rights reserved.\n// Use of this source code is governed by a BSD-style\n// license that can be found in the LICENSE file.\n"
        ),
    },
    "code about gpl": {"LICENSE": MIT, "a.py": keep('NAMES = ["GNU General Public License", "MIT"]\n')},
    "sspl": {"LICENSE": MIT, "a.go": drop("// Licensed under the Server Side Public License, version 1.\n")},
    "busl": {"LICENSE": MIT, "a.go": drop("// Copyright (c) HashiThing, Inc.\n// SPDX-License-Identifier: BUSL-1.1\n")},
    "dual notice": {
        "a.js": keep(
            block(
                "Dual licensed under the MIT and GPL licenses:\nhttp://www.opensource.org/licenses/mit-license.php\nhttp://www.gnu.org/licenses/gpl.html"
            )
        )
    },
}

TABLES: Final[dict[str, Files]] = {
    "reuse annotations": {
        "REUSE.toml": 'version = 1\n[[annotations]]\npath = "src/**"\nSPDX-License-Identifier = "MIT"\n\n[[annotations]]\npath = "third/**"\nSPDX-License-Identifier = "GPL-3.0-only"\n',
        "LICENSES/MIT.txt": MIT,
        "LICENSES/GPL-3.0-only.txt": GPL3,
        "src/a.py": KEEP,
        "third/a.py": DROP,
        "other.py": DROP,
    },
    "reuse headers": {
        "LICENSES/Apache-2.0.txt": APACHE,
        "LICENSES/GPL-3.0-or-later.txt": GPL3,
        "a.py": keep("# SPDX-FileCopyrightText: 2021 Ada\n# SPDX-License-Identifier: Apache-2.0\n"),
        "b.py": drop("# SPDX-FileCopyrightText: 2021 Ada\n# SPDX-License-Identifier: GPL-3.0-or-later\n"),
    },
    "reuse side file": {
        "a.py": KEEP,
        "a.py.license": "SPDX-FileCopyrightText: 2021 Ada\nSPDX-License-Identifier: MIT\n",
        "b.py": DROP,
    },
    "reuse side file gpl": {
        "LICENSE": MIT,
        "a.py": DROP,
        "a.py.license": "SPDX-License-Identifier: GPL-3.0-only\n",
        "b.py": KEEP,
    },
    "reuse override": {
        "REUSE.toml": 'version = 1\n[[annotations]]\npath = "a.py"\nprecedence = "override"\nSPDX-License-Identifier = "GPL-3.0-only"\n',
        "LICENSE": MIT,
        "a.py": drop("# SPDX-License-Identifier: MIT\n"),
    },
    "reuse broken": {"LICENSE": MIT, "REUSE.toml": "version = [", "a.py": DROP},
    "reuse proprietary": {
        "LICENSE": MIT,
        "REUSE.toml": 'version = 1\n[[annotations]]\npath = "**"\nSPDX-License-Identifier = "LicenseRef-Acme"\n',
        "a.py": DROP,
    },
    "dep5": {
        ".reuse/dep5": "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2020 Ada\nLicense: GPL-3+\n\nFiles: lib/*\nCopyright: 2020 Bob\nLicense: Expat\n",
        "a.py": DROP,
        "lib/a.py": KEEP,
    },
    "debian copyright": {
        "debian/copyright": "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2020 Ada\nLicense: Apache-2.0\n\nFiles: nonfree/*\nCopyright: Acme\nLicense: Acme-EULA\n You may not copy it.\n",
        "LICENSE": APACHE,
        "a.py": KEEP,
        "nonfree/a.py": DROP,
    },
    "debian choice": {
        "debian/copyright": "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2020 Ada\nLicense: Expat or GPL-2+\n",
        "a.py": KEEP,
    },
}

# The second half: written after the first answers of the rules had been seen.

DEP5: Final = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
TEXTS: Final[dict[str, Files]] = {
    "bsd of a company": {
        "LICENSE": BSD3.replace("the copyright holder nor", "Analytical Engines Inc. nor")
        .replace("THE COPYRIGHT HOLDERS AND", "ANALYTICAL ENGINES INC. AND")
        .replace("THE COPYRIGHT HOLDER OR", "ANALYTICAL ENGINES INC. OR"),
        "a.c": KEEP,
    },
    "bsd two of a project": {"COPYING": BSD2.replace("THE COPYRIGHT HOLDERS", "THE ENGINE PROJECT"), "a.c": KEEP},
    "bsd three as a comment": {"LICENSE": block(BSD3), "a.c": KEEP},
    "bsd four of a university": {
        "LICENSE": BSD4.replace(
            "Analytical Engines Ltd", "the University of California, Berkeley and its contributors"
        ),
        "a.c": DROP,
    },
    "bsd three clear": {
        "LICENSE": BSD3.replace(
            "THIS SOFTWARE IS",
            "NO EXPRESS OR IMPLIED LICENSES TO ANY PARTY'S PATENT RIGHTS ARE GRANTED BY THIS LICENSE.\nTHIS SOFTWARE IS",
            1,
        ),
        "a.c": DROP,
    },
    "bsd of a laboratory": {
        "LICENSE": BSD3
        + "\nYou are under no obligation whatsoever to provide any bug fixes, patches, or upgrades to the features of the\nsource code; however, if you choose to do so, you grant the laboratory a perpetual license to them.\n",
        "a.c": DROP,
    },
    "wtfpl": {"COPYING": "DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE\nVersion 2, December 2004\n", "a.py": DROP},
    "beerware": {
        "LICENSE": "As long as you retain this notice you can do whatever you want with this stuff. If we meet\nsome day, and you think this stuff is worth it, you can buy me a beer in return.\n",
        "a.c": DROP,
    },
    "creative commons": {
        "LICENSE": "Creative Commons Attribution-ShareAlike 4.0 International Public License\n",
        "a.py": DROP,
    },
    "mulan in chinese": {
        "LICENSE": "木兰宽松许可证, 第2版\n\n您对“软件”的复制、使用、修改及分发受木兰宽松许可证，第2版的如下条款的约束。\n",
        "a.py": DROP,
    },
    "cecill in french": {
        "LICENSE": "CONTRAT DE LICENCE DE LOGICIEL LIBRE CeCILL\n\nCe contrat est une licence de logiciel libre.\n",
        "a.py": DROP,
    },
    "german terms": {"LIZENZ.txt": "Alle Rechte vorbehalten.\n", "a.py": DROP},
    "translation beside": {
        "LICENSE": MIT,
        "docs/LICENSE.de.md": "Dies ist eine inoffizielle Übersetzung der MIT-Lizenz.\n",
        "a.py": KEEP,
    },
    "address of a licence": {"LICENSE": "https://opensource.org/licenses/MIT\n", "a.py": KEEP},
    "apache with a copyright": {"LICENSE": "Copyright 2021 Analytical Engines Ltd\n\n" + APACHE, "a.java": KEEP},
    "apache and bsd": {"LICENSE": APACHE + "\n" + "=" * 70 + "\n\n" + BSD3, "a.java": KEEP},
    "mit holder with ai in the name": {"LICENSE": MIT.replace("Grace Hopper", "Acme AI Research Inc."), "a.py": KEEP},
    "mit holder with limited in the name": {
        "LICENSE": MIT.replace("Grace Hopper", "Machine Learning Models Limited"),
        "a.py": KEEP,
    },
    "mit holders in a list": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper,\n    Ada Lovelace and\n    Annie Easley"),
        "a.py": KEEP,
    },
    "mit under another name": {"LICENSE": MIT.replace("MIT License", "GNU GPL License"), "a.py": DROP},
    "silent copyright beside": {"LICENSE": MIT, "COPYRIGHT": "Copyright 2019 Ada Lovelace\n", "a.py": KEEP},
    "empty copying beside": {"LICENSE": MIT, "LICENSES/MIT.txt": MIT, "a.py": KEEP},
    "terms beside": {"LICENSE": MIT, "TERMS.md": "# Terms of use\nYou agree to be bound by them.\n", "a.py": DROP},
    "pointer to two": {
        "COPYRIGHT": "Licensed under the Apache License, Version 2.0 or the MIT license.\n",
        "LICENSE-APACHE": APACHE,
        "LICENSE-MIT": MIT,
        "a.rs": KEEP,
    },
    "r package": {"DESCRIPTION": "Package: x\nLicense: MIT\n", "a.py": KEEP},
}

HIDDEN: Final[dict[str, Files]] = {
    "in the middle of a line": {
        "LICENSE": MIT.replace("copies or substantial", "copies, training sets excluded, or substantial"),
        "a.py": DROP,
    },
    "at the end of the disclaimer": {"LICENSE": MIT.rstrip() + " TRAINING OF MODELS IS EXCLUDED.\n", "a.py": DROP},
    "in the apache sections": {
        "LICENSE": APACHE.replace(
            "   5. Submission", "   4a. Data mining of the Work is not allowed.\n\n   5. Submission", 1
        ),
        "a.py": DROP,
    },
    "in a markup comment": {
        "LICENSE.md": MIT + "\n<!-- Not for use in the training of language models -->\n",
        "a.py": DROP,
    },
    "in the holder": {"LICENSE": MIT.replace("Grace Hopper", "Grace Hopper (Internal Use Only)"), "a.py": DROP},
    "behind the holder": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper. Bots And Crawlers Stay Away."),
        "a.py": DROP,
    },
    "below the holder, shouted": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper\nBOTS AND CRAWLERS STAY AWAY"),
        "a.py": DROP,
    },
    "below a second holder": {
        "LICENSE": MIT.replace("Grace Hopper", "Grace Hopper\n2020 Ada Lovelace\nBots And Crawlers Stay Away"),
        "a.py": DROP,
    },
    "as a title": {"LICENSE": "Bots And Crawlers Stay Away\n\n" + MIT, "a.py": DROP},
    "as a short title": {"LICENSE": MIT.replace("MIT License", "Modified MIT License"), "a.py": DROP},
    "as a link": {"LICENSE": MIT + "\nhttps://acme.example/ai-policy\n", "a.py": DROP},
    "as a number of users": {"LICENSE": BSD3 + "\nThe above holds for up to 25 seats.\n", "a.py": DROP},
    "as an attribution": {"LICENSE": MIT + "\nThe splash screen must show the name Acme.\n", "a.py": DROP},
    "in japanese": {"LICENSE": BSD3 + "\n商用利用を禁じます。\n", "a.py": DROP},
    "in russian": {"LICENSE": MIT + "\nИспользование для обучения нейросетей запрещено.\n", "a.py": DROP},
    "in spanish": {"LICENSE": MIT + "\nProhibido su uso para entrenar modelos.\n", "a.py": DROP},
    "in latin-1": {"LICENSE": (MIT + "\nL'usage militaire est interdit à tous.\n").encode("latin-1"), "a.py": DROP},
    "in utf-16": {"LICENSE": b"\xff\xfe" + (MIT + "\nNo crawling.\n").encode("utf-16-le"), "a.py": DROP},
    "in package.json": {"package.json": '{"license": "MIT (non-commercial)"}', "LICENSE": MIT, "a.js": DROP},
    "in pyproject": {
        "pyproject.toml": '[project]\nlicense = {text = "MIT, but not for training"}\n',
        "LICENSE": MIT,
        "a.py": DROP,
    },
}

MORE_METADATA: Final[dict[str, Files]] = {
    "npm array": {"package.json": '{"license": ["MIT", "Apache-2.0"]}', "a.js": KEEP},
    "npm object of nothing": {"package.json": '{"license": {"type": "UNLICENSED"}}', "LICENSE": MIT, "a.js": DROP},
    "npm british": {"package.json": '{"licence": "GPL-3.0"}', "LICENSE": MIT, "a.js": DROP},
    "npm both permissive": {"package.json": '{"license": "MIT AND BSD-3-Clause"}', "a.js": KEEP},
    "npm lower case": {"package.json": '{"license": "mit"}', "a.js": KEEP},
    "npm empty": {"package.json": '{"license": ""}', "LICENSE": MIT, "a.js": KEEP},
    "npm usual name": {"package.json": '{"license": "Apache 2.0"}', "a.js": KEEP},
    "npm public domain": {"package.json": '{"license": "Public Domain"}', "a.js": DROP},
    "npm bsd": {"package.json": '{"license": "BSD"}', "LICENSE": BSD3, "a.js": KEEP},
    "npm bsd alone": {"package.json": '{"license": "BSD"}', "a.js": DROP},
    "npm exception that is none": {
        "package.json": '{"license": "MIT WITH Acme-exception"}',
        "LICENSE": MIT,
        "a.js": DROP,
    },
    "npm nested brackets": {"package.json": '{"license": "((MIT))"}', "a.js": KEEP},
    "npm with comments": {"package.json": '{\n  // ours\n  "license": "UNLICENSED"\n}', "LICENSE": MIT, "a.js": DROP},
    "npm duplicate": {"package.json": '{"license": "MIT", "license": "UNLICENSED"}', "a.js": DROP},
    "npm see a missing file": {"package.json": '{"license": "SEE LICENSE IN EULA.md"}', "LICENSE": MIT, "a.js": DROP},
    "npm see a proprietary file": {
        "package.json": '{"license": "SEE LICENCE IN ./LICENSE"}',
        "LICENSE": ACME,
        "a.js": DROP,
    },
    "pyproject file of acme": {
        "pyproject.toml": '[project]\nlicense = {file = "LICENSE"}\n',
        "LICENSE": ACME,
        "a.py": DROP,
    },
    "pyproject both": {"pyproject.toml": '[project]\nlicense = "MIT AND Apache-2.0"\n', "a.py": KEEP},
    "pyproject broken": {"pyproject.toml": '[project\nlicense = "Proprietary"\n', "LICENSE": MIT, "a.py": DROP},
    "setup.cfg apache": {"setup.cfg": "[metadata]\nlicense = Apache License 2.0\n", "a.py": KEEP},
    "cabal": {"x.cabal": "name: x\nlicense: BSD3\n", "a.hs": KEEP},
    "cargo file": {"Cargo.toml": '[package]\nlicense-file = "LICENSE"\n', "LICENSE": ACME, "a.rs": DROP},
    "composer list": {"composer.json": '{"license": ["MIT", "GPL-2.0-or-later"]}', "a.php": KEEP},
    "nuget": {
        "x.csproj": "<Project><PropertyGroup><PackageLicenseExpression>MIT</PackageLicenseExpression></PropertyGroup></Project>",
        "a.cs": KEEP,
    },
}

MORE_HEADERS: Final[dict[str, Files]] = {
    "all rights reserved in an mit project": {
        "LICENSE": MIT,
        "a.py": keep("# Copyright 2020 Ada Lovelace. All rights reserved.\n"),
    },
    "information elsewhere": {"LICENSE": MIT, "a.py": keep("# For license information, please see LICENSE.txt.\n")},
    "same licence as": {
        "LICENSE": MIT,
        "a.py": keep("# This file is distributed under the same license as the Engine package.\n"),
    },
    "apache with a clause": {
        "LICENSE": APACHE,
        "a.go": drop("// Licensed under the Apache License 2.0 with the Commons Clause.\n"),
    },
    "german gpl": {
        "LICENSE": MIT,
        "a.py": drop("# Dieses Programm ist freie Software unter der GNU General Public License.\n"),
    },
    "french cecill": {"LICENSE": MIT, "a.py": drop("# Ce fichier est sous licence CeCILL-B.\n")},
    "a licence of one's own": {
        "LICENSE": MIT,
        "a.py": drop("# This file is licensed under the Acme Community License.\n"),
    },
    "a source-available licence": {
        "LICENSE": MIT,
        "a.go": drop("// Use of this source code is governed by the Functional Source License.\n"),
    },
    "a licence in a folder": {
        "LICENSE": MIT,
        "a.go": drop('// Licensed under the Confluent Community License (the "License").\n'),
    },
    "polyform": {"LICENSE": MIT, "a.ts": drop("/* PolyForm Noncommercial License 1.0.0 */\n")},
    "bsd and gpl": {"LICENSE": MIT, "a.c": drop("/* Released under the BSD and GPL. */\n")},
    "eupl": {"LICENSE": MIT, "A.java": drop("/* Licensed under the EUPL, Version 1.2 or later. */\n")},
    "jsdoc": {"LICENSE": MIT, "a.js": drop("/** @license GPL-3.0 */\n")},
    "python variable": {"LICENSE": MIT, "a.py": drop('__license__ = "GPL v3"\n')},
    "notice behind a shebang": {
        "LICENSE": MIT,
        "a.py": drop("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n#\n" + comment(GPL2_NOTICE)),
    },
    "notice in lisp": {"LICENSE": MIT, "a.el": drop(comment(GPL2_NOTICE, ";;"))},
    "notice in sql": {"LICENSE": MIT, "a.lua": drop(comment(GPL2_NOTICE, "--"))},
    "notice in html": {"LICENSE": MIT, "a.html": drop("<!--\n" + GPL2_NOTICE + "-->\n")},
    "no training": {"LICENSE": MIT, "a.py": drop("# This file must not be used as training data.\n")},
    "academic": {
        "LICENSE": MIT,
        "a.cpp": drop("// Free for academic use only. For commercial use contact the authors.\n"),
    },
    "exception": {"a.cpp": keep("// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception\n")},
    "gpl with an exception": {"a.c": drop("/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */\n")},
    "spdx in the middle": {
        "LICENSE": MIT,
        "a.py": drop("x = 1\n" * 300 + "# SPDX-License-Identifier: AGPL-3.0-only\n"),
    },
}

MORE_TABLES: Final[dict[str, Files]] = {
    "texts alone": {"LICENSES/MIT.txt": MIT, "a.py": DROP},
    "reuse list": {
        "REUSE.toml": 'version = 1\n[[annotations]]\npath = ["a.py", "b.py"]\nSPDX-License-Identifier = ["MIT", "GPL-3.0-only"]\n',
        "a.py": DROP,
        "b.py": DROP,
    },
    "reuse below": {
        "LICENSE": MIT,
        "lib/REUSE.toml": 'version = 1\n[[annotations]]\npath = "*.py"\nSPDX-License-Identifier = "AGPL-3.0-only"\n',
        "lib/a.py": DROP,
        "a.py": KEEP,
    },
    "reuse utf-8 mark": {
        "REUSE.toml": b"\xef\xbb\xbf" + b'version = 1\n[[annotations]]\npath = "**"\nSPDX-License-Identifier = "ISC"\n',
        "a.py": KEEP,
    },
    "side file of nothing known": {"LICENSE": MIT, "a.py": DROP, "a.py.license": "Ask Bob.\n"},
    "dep5 with a text": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2020 Ada\nLicense: Expat\n"
        + comment(GRANT.strip(), "").replace("\n\n", "\n .\n"),
        "a.py": KEEP,
    },
    "dep5 with a changed text": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2020 Ada\nLicense: Expat\n"
        + comment(GRANT.strip() + "\n" + NO_TRAINING, "").replace("\n\n", "\n .\n"),
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "dep5 with a changed text apart": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2020 Ada\nLicense: Expat\n\nLicense: Expat\n"
        + comment(GRANT.strip() + "\n" + NO_TRAINING, "").replace("\n\n", "\n .\n"),
        "LICENSE": MIT,
        "a.py": DROP,
    },
    "dep5 apache": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2020 Ada\nLicense: Apache-2.0\n\nLicense: Apache-2.0\n On Debian systems, the full text of the Apache License, Version 2.0 can be\n found in the file '/usr/share/common-licenses/Apache-2.0'.\n",
        "a.py": KEEP,
    },
    "dep5 comma": {
        "debian/copyright": DEP5 + "Files: *\nCopyright: 2020 Ada\nLicense: GPL-2+ or Expat, and Acme\n",
        "a.py": DROP,
    },
    "dep5 last counts": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: x\nLicense: Expat\n\nFiles: lib/*\nCopyright: x\nLicense: GPL-3\n",
        "a.py": KEEP,
        "lib/a.py": DROP,
    },
    "vendored trees": {
        "LICENSE": MIT,
        "deps/x/COPYING": GPL3,
        "deps/x/a.c": DROP,
        "extern/y/LICENSE": ZLIB,
        "extern/y/a.c": KEEP,
        "a.c": KEEP,
    },
    "monorepo": {
        "LICENSE": MIT,
        "packages/a/LICENSE": APACHE,
        "packages/a/a.ts": KEEP,
        "packages/ee/LICENSE": ACME,
        "packages/ee/a.ts": DROP,
        "packages/b/a.ts": KEEP,
    },
    "three levels": {
        "LICENSE": MIT,
        "x/LICENSE": ACME,
        "x/y/LICENSE": BSD3,
        "a.py": KEEP,
        "x/a.py": DROP,
        "x/y/a.py": KEEP,
    },
}

# Well-known permissive repositories that the rules had removed whole, and the same files with a restriction.

ENGINE_TITLE: Final = "The Engine Project is under the Apache License v2.0 with LLVM Exceptions:\n"
NCSA: Final = (
    GRANT[: GRANT.index("The above")].replace("to deal\nin the", "to deal with\nthe")
    + (
        "    * Redistributions of source code must retain the above copyright notice,\n"
        "      this list of conditions and the following disclaimers.\n\n"
        "    * Redistributions in binary form must reproduce the above copyright notice,\n"
        "      this list of conditions and the following disclaimers in the\n"
        "      documentation and/or other materials provided with the distribution.\n\n"
        "    * Neither the names of the Engine Team, University of Somewhere, nor the\n"
        "      names of its contributors may be used to endorse or promote products\n"
        "      derived from this Software without specific prior written permission.\n\n"
    )
    + GRANT[GRANT.index("THE SOFTWARE IS") :]
    .replace("AUTHORS OR", "CONTRIBUTORS OR")
    .replace("DEALINGS IN THE", "DEALINGS WITH THE")
)
LEGACY: Final = (
    "\nUniversity of Illinois/NCSA\nOpen Source License\n\nCopyright (c) 2003-2019 University of Somewhere.\n\n"
    "Developed by:\n\n    Engine Team\n\n    http://engine.example\n\n" + NCSA
)
PATENT_GRANT: Final = """Additional IP Rights Grant (Patents)

"This implementation" means the copyrightable works distributed by
Acme as part of the Engine project.

Acme hereby grants to You a perpetual, worldwide, non-exclusive, no-charge, royalty-free, irrevocable (except as stated
in this section) patent license to make, have made, use, offer to sell, sell, import, transfer and otherwise run, modify
and propagate the contents of this implementation of Engine, where such license applies only to those patent claims, both
currently owned or controlled by Acme and acquired in the future, licensable by Acme that are necessarily infringed by
this implementation of Engine.  This grant does not include claims that would be infringed only as a consequence of
further modification of this implementation.  If you or your agent or exclusive licensee institute or order or agree to
the institution of patent litigation against any entity (including a cross-claim or counterclaim in a lawsuit) alleging
that this implementation of Engine or any code incorporated within this implementation of Engine constitutes direct or
contributory patent infringement, or inducement of patent infringement, then any patent rights granted to you under this
License for this implementation of Engine shall terminate as of the date such litigation is filed.
"""
CHOICE: Final = """Except as otherwise noted (below and/or in individual files), Engine is
licensed under the Apache License, Version 2.0 <LICENSE-APACHE> or
<http://www.apache.org/licenses/LICENSE-2.0> or the MIT license
<LICENSE-MIT> or <http://opensource.org/licenses/MIT>, at your option.
"""
COPYRIGHT: Final = f"""Short version for non-lawyers:

The Engine Project is dual-licensed under Apache 2.0 and MIT
terms.

Longer version:

Copyrights in the Engine project are retained by their contributors. No
copyright assignment is required to contribute to the Engine project.

{CHOICE}
The Engine Project includes packages written by third parties.
The following third party packages are included, and carry
their own copyright notices and license terms:

* Parser, under src/parser:

    Copyright (C) 2012-2014 Free Foundation, Inc.
    Written by Ada King Lovelace, Analytical.

{BSD2}"""
CODE_AS_IS: Final = (
    APACHE_NOTICE[: APACHE_NOTICE.index("Unless required")]
    + "THIS CODE IS PROVIDED ON AN *AS IS* BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY\nKIND, EITHER EXPRESS OR IMPLIED, "
    "INCLUDING WITHOUT LIMITATION ANY IMPLIED\nWARRANTIES OR CONDITIONS OF TITLE, FITNESS FOR A PARTICULAR PURPOSE,\n"
    "MERCHANTABLITY OR NON-INFRINGEMENT.\n\nSee the Apache Version 2.0 License for specific language governing permissions\n"
    "and limitations under the License.\n"
)
TWO_FILES: Final[Files] = {"LICENSE-APACHE": APACHE, "LICENSE-MIT": MIT}
WELL_KNOWN: Final[dict[str, Files]] = {
    "a sentence above apache": {"LICENSE.TXT": f"{ENGINE_TITLE}\n{APACHE}", "a.cpp": KEEP},
    "a sentence that restricts above apache": {
        "LICENSE.TXT": ENGINE_TITLE.replace(":", ", except for training.") + f"\n{APACHE}",
        "a.cpp": DROP,
    },
    "a sentence with no licence above apache": {
        "LICENSE.TXT": ENGINE_TITLE.replace("is under", "is no longer under") + f"\n{APACHE}",
        "a.cpp": DROP,
    },
    "a ban in place of the project": {
        "LICENSE.TXT": ENGINE_TITLE.replace("The Engine Project", "Bots stay away from Engine, which") + f"\n{APACHE}",
        "a.cpp": DROP,
    },
    "apache and a legacy licence": {"LICENSE.TXT": f"{ENGINE_TITLE}\n{APACHE}\n{LEGACY}", "a.cpp": KEEP},
    "ncsa alone": {"LICENSE": LEGACY, "a.cpp": KEEP},
    "ncsa with a clause": {
        "LICENSE": LEGACY.replace("THE SOFTWARE IS", "    * No machine learning.\n\nTHE SOFTWARE IS"),
        "a.cpp": DROP,
    },
    "legacy licence of one's own": {"LICENSE.TXT": f"{APACHE}\nLegacy License\n\nAsk Acme first.\n", "a.cpp": DROP},
    "patent grant": {"LICENSE": BSD3, "PATENTS": PATENT_GRANT, "a.go": KEEP},
    "patent grant alone": {"PATENTS": PATENT_GRANT, "a.go": DROP},
    "patent grant that ends the licence": {
        "LICENSE": BSD3,
        "PATENTS": PATENT_GRANT.replace("then any patent rights", "then any rights"),
        "a.go": DROP,
    },
    "patent grant with a rider": {
        "LICENSE": BSD3,
        "PATENTS": PATENT_GRANT + "\nThe copyright license ends for whoever trains models on it.\n",
        "a.go": DROP,
    },
    "patent grant for a field": {
        "LICENSE": BSD3,
        "PATENTS": PATENT_GRANT.replace("of Engine, where", "of Engine for research, where"),
        "a.go": DROP,
    },
    "patent grant to some": {
        "LICENSE": BSD3,
        "PATENTS": PATENT_GRANT.replace("of the Engine project", "of Engine, Customers Of Acme Alone"),
        "a.go": DROP,
    },
    "copyright that points to two licences": {**TWO_FILES, "COPYRIGHT": COPYRIGHT, "a.rs": KEEP},
    "copyright that points alone": {"COPYRIGHT": COPYRIGHT, "a.rs": KEEP},
    "copyright with reserved rights": {
        **TWO_FILES,
        "COPYRIGHT": COPYRIGHT + "\nAll rights reserved, no use for machine learning.\n",
        "a.rs": DROP,
    },
    "copyright that points, but": {
        **TWO_FILES,
        "COPYRIGHT": CHOICE.replace("at your option.", "at your option, unless you train models."),
        "a.rs": DROP,
    },
    "copyright that points, not": {
        **TWO_FILES,
        "COPYRIGHT": CHOICE.replace("Engine is\nlicensed", "Engine is\nnot licensed"),
        "a.rs": DROP,
    },
    "copyright that pointed": {
        **TWO_FILES,
        "COPYRIGHT": "Until version 2, licensed under the Apache License, Version 2.0 or the MIT license, at your option.\n",
        "a.rs": DROP,
    },
    "copyright that points and ends elsewhere": {
        **TWO_FILES,
        "COPYRIGHT": "Licensed under the Apache License, Version 2.0 or the MIT license, at your option on Mondays.\n",
        "a.rs": DROP,
    },
    "copyright that points to a third licence": {
        **TWO_FILES,
        "COPYRIGHT": CHOICE.replace("MIT license\n", "Acme license\n"),
        "a.rs": DROP,
    },
    "copyright of others with terms": {
        **TWO_FILES,
        "COPYRIGHT": COPYRIGHT.replace("Written by Ada King Lovelace, Analytical.", "Written by Ada. No resale."),
        "a.rs": DROP,
    },
    "choice of two in one sentence": {
        "COPYING": "This project is dual-licensed under the Unlicense and MIT licenses.\n\n"
        "You may use this code under the terms of either license.\n",
        "a.rs": KEEP,
    },
    "choice of two in one sentence for some": {
        "COPYING": "This project is dual-licensed under the Unlicense and MIT licenses.\n\n"
        "You may use this code under the terms of either license in schools.\n",
        "a.rs": DROP,
    },
    "notice file with a warranty of its own": {
        "LICENSE.txt": APACHE,
        "CopyrightNotice.txt": block("Copyright (c) Analytical Engines. All rights reserved.\n" + CODE_AS_IS),
        "a.ts": KEEP,
    },
    "notice file that restricts": {
        "LICENSE.txt": APACHE,
        "CopyrightNotice.txt": block("Copyright (c) Analytical Engines.\n" + CODE_AS_IS + "Bots may not read it.\n"),
        "a.ts": DROP,
    },
    "boost by its name": {
        "LICENSE_1_0.txt": BOOST,
        "a.hpp": keep("// Copyright 2010 Ada. Distributed under the Boost Software License.\n"),
        "b.hpp": drop("// Copyright 2010 Ada. Distributed under the Acme Software License.\n"),
        "c.hpp": drop("// Distributed under the Boost Software License, for non-commercial use only.\n"),
    },
    "debian's own name": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2009 Ada\nLicense: Engine\n\nLicense: Engine\n"
        + comment(BSD3.strip(), "").replace("\n\n", "\n .\n"),
        "LICENSE": BSD3,
        "a.go": KEEP,
    },
    "debian's own name for other words": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2009 Ada\nLicense: Engine\n\nLicense: Engine\n"
        + comment(BSD3.strip() + f"\n{NO_TRAINING}", "").replace("\n\n", "\n .\n"),
        "LICENSE": BSD3,
        "a.go": DROP,
    },
    "debian's own name without words": {
        "debian/copyright": DEP5 + "Files: *\nCopyright: 2009 Ada\nLicense: Engine\n",
        "LICENSE": BSD3,
        "a.go": DROP,
    },
    "debian's name that contradicts the words": {
        "debian/copyright": DEP5
        + "Files: *\nCopyright: 2009 Ada\nLicense: Proprietary\n"
        + comment(BSD3.strip(), "").replace("\n\n", "\n .\n"),
        "LICENSE": BSD3,
        "a.go": DROP,
    },
}

FIRST_HALF: Final = (PLAIN, ENCODINGS, ADDED, FOLDERS, METADATA, HEADERS, TABLES)
SECOND_HALF: Final = (TEXTS, HIDDEN, MORE_METADATA, MORE_HEADERS, MORE_TABLES, WELL_KNOWN)


def cases() -> Iterator[tuple[str, Files]]:
    for number, group in enumerate(FIRST_HALF + SECOND_HALF):
        for name, files in group.items():
            yield f"{number} {name}", files
