"""Licences: expressions, texts, headers, names of files, and which licence covers which file."""

import importlib.metadata
from collections.abc import Mapping
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.config import PERMISSIVE_LICENCES
from infill.corpus import licences
from infill.corpus.licences import builds, headers, names, spdx, texts
from tests.unit.corpus.folders import GPL, MIT

BSD = """Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:
 * Redistributions of source code must retain the above copyright notice,
   this list of conditions and the following disclaimer.
 * Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.
"""
BSD_3 = (
    BSD
    + " * Neither the name of Ada Research Ltd nor the names of its contributors may be used to endorse or promote\n"
)
BSD_3 += "products derived from this software without specific prior written permission.\n"
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted, provided that the above copyright notice and this permission notice appear in all copies.
"""
APACHE = """Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
in compliance with the License. You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is
distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See
the License for the specific language governing permissions and limitations under the License.
"""
PROPRIETARY = "Copyright 2024 Acme. All rights reserved.\nThis software is confidential and may not be copied.\n"
UNKNOWN = licences.UNKNOWN
NOTHING = "nothing"
"""No statement at all."""


def said(text: str) -> str:
    statement = licences.of_text(text)
    return NOTHING if statement is None else statement.expression


def metadata(**fields: str | list[str]) -> importlib.metadata.PackageMetadata:
    message = EmailMessage()
    for name, value in fields.items():
        for line in [value] if isinstance(value, str) else value:
            message.add_header(name.replace("_", "-"), line)
    return cast(importlib.metadata.PackageMetadata, message)


# Expressions


@pytest.mark.parametrize(
    ("statement", "licence"),
    [
        ("MIT", "MIT"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("The MIT License", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache2.0", "Apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("MIT OR LicenseRef-Acme", "MIT OR LicenseRef-Acme"),
        ("GPLv3 or so, ask me", None),
        ("BSD", None),
        ("UNLICENSED", None),
        ("SEE LICENSE IN terms.txt", None),
        ("Proprietary", None),
        ("()", None),
        ("(MIT", None),
        ("MIT OR", None),
        ("MIT WITH Nonsense", None),
        ("(" * 5_000, None),
        ("", None),
    ],
)
def test_a_name_becomes_spdx(statement: str, licence: str | None) -> None:
    assert spdx.of_name(statement) == licence


@pytest.mark.parametrize(
    ("expression", "permitted"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("Apache-2.0 WITH LLVM-exception AND (MIT OR GPL-2.0-only)", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("LicenseRef-Acme", False),
        ("MIT AND LicenseRef-Acme", False),
        ("MIT OR LicenseRef-Acme", True),
        (UNKNOWN, False),
        ("Ask Me", False),
        ("()", False),
    ],
)
def test_an_expression_is_permitted_when_its_terms_can_be_met(expression: str, permitted: bool) -> None:
    assert licences.permitted(expression, PERMISSIVE_LICENCES) is permitted


@given(st.lists(st.sampled_from(["MIT", "ISC", "GPL-3.0-only", "MIT OR GPL-2.0-only"]), min_size=1))
def test_all_of_several_licences_must_be_permitted(expressions: list[str]) -> None:
    together = spdx.conjunction(expressions)
    assert together is not None
    assert licences.permitted(together, ["MIT", "ISC"]) == all(
        licences.permitted(expression, ["MIT", "ISC"]) for expression in expressions
    )


@given(
    st.text("()+:/ \0é") | st.lists(st.sampled_from(["MIT", "(", ")", "OR", "AND", "WITH", "x:y", "+"])).map(" ".join)
)
def test_no_expression_ends_the_run(expression: str) -> None:
    assert licences.permitted(expression, ["MIT"]) in {True, False}


# Texts


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (MIT, "MIT"),
        ("\n".join(f" * {line}" for line in MIT.upper().splitlines()), "MIT"),
        (" ".join(MIT.splitlines()[4:]), "MIT"),
        ("# The MIT License (MIT)\n\n" + MIT, "MIT"),
        ("<html><body><p>" + MIT.replace("\n\n", "</p><p>") + "</p></body></html>", "MIT"),
        (MIT.replace("Copyright (c) 2024 Somebody", "© 2020-2024 José Grün <jose@model.ai>\n   and others"), "MIT"),
        (MIT.replace(' (the "Software")', ""), UNKNOWN),
        (BSD, "BSD-2-Clause"),
        (BSD_3, "BSD-3-Clause"),
        (ISC, "ISC"),
        (
            ISC.replace(
                ", provided that the above copyright notice and this permission notice appear in all copies", ""
            ),
            "0BSD",
        ),
        (APACHE, "Apache-2.0"),
        (MIT + BSD_3 + MIT, "BSD-3-Clause AND MIT"),
        ("MIT License", "MIT"),
        ("This project is licensed under the MIT License.", "MIT"),
        ("SPDX-License-Identifier: MIT", "MIT"),
        ("This software is NOT licensed under the Apache License, Version 2.0.", UNKNOWN),
        ("This project is no longer licensed under the MIT license.", UNKNOWN),
        (GPL, "GPL-3.0-only AND LicenseRef-unrecognised"),
        (PROPRIETARY, UNKNOWN),
        ("All rights reserved.", NOTHING),
        ("", NOTHING),
    ],
)
def test_a_text_is_recognised(text: str, licence: str) -> None:
    assert said(text) == licence


RESTRICTIONS = [
    "The Software may not be used to train machine learning models.",
    "No part of the Software shall be used as training data for artificial intelligence.",
    "NO AI TRAINING",
    '"Commons Clause" License Condition v1.0\nThe grant of rights does not include the right to Sell the Software.',
    "For non-commercial use only.",
    "Commercial use requires a separate license; contact sales@acme.example.",
    "The Software shall be used for Good, not Evil.",
    "Use in military, nuclear or surveillance systems is prohibited.",
    "Additional terms: see TERMS.md.",
    "This license applies to the src/ folder only.",
    "Companies with more than 100 employees must obtain a license.",
    "Academic and research purposes only.",
    "Free for personal use.",
    "Redistribution is not permitted.",
    "Exceptions: the folder ee/ is proprietary.",
    "You may not offer the software as a hosted service.",
    "The above permission is revoked for competitors of Acme.",
    "Crawlers and bots: keep out.",
    "CRAWLERS KEEP OUT OF HERE",
    "https://commonsclause.com/",
    "https://acme.example/terms",
    "禁止用于训练人工智能模型。",
    "Die Nutzung durch Dritte ist untersagt.",
    "Usage commercial interdit.",
    "Content in the folder ee/ is licensed under ee/LICENSE.",
    "Files in ee/ are licensed under the Acme License.",
    "Everything else belongs to Acme.",
]


@pytest.mark.parametrize("text", [MIT, BSD_3, ISC, APACHE], ids=["MIT", "BSD", "ISC", "Apache"])
@pytest.mark.parametrize("added", RESTRICTIONS)
def test_a_text_with_something_added_is_not_that_licence(text: str, added: str) -> None:
    middle = text.index("\n", len(text) // 2)
    for changed in (f"{added}\n\n{text}", f"{text}\n{added}\n", f"{text[:middle]}\n{added}\n{text[middle:]}"):
        assert said(changed) == UNKNOWN


@pytest.mark.parametrize("word", ["without", "hereby", "any", "to"])
def test_a_text_with_a_word_missing_is_not_that_licence(word: str) -> None:
    assert said(" ".join(MIT.split()).replace(f" {word} ", " ", 1)) == UNKNOWN


def test_what_is_not_part_of_a_licence_is_reported() -> None:
    statement = licences.of_text(MIT + "Not for commercial use.\n")
    assert statement is not None
    assert statement.evidence == "'Not for commercial use.' is not part of MIT"


def test_the_parser_is_complete_before_threads_share_it() -> None:
    spdx._spdx.cache_clear()
    assert spdx._spdx().advanced_tokenizer is not None


def test_every_text_we_know_is_recognised_as_itself_and_known_to_spdx() -> None:
    for template in texts._templates():
        if template.licence != texts.NOTICES:
            assert spdx.normalise(template.licence) == template.licence


def test_texts_of_the_packages_here_are_permitted_where_their_metadata_are() -> None:
    permitted = []
    for distribution in importlib.metadata.distributions():
        expression = "".join(distribution.metadata.get_all("License-Expression") or [])
        files = [
            file for file in distribution.files or [] if ".dist-info/" in str(file) and names.is_licence(file.name)
        ]
        if expression in PERMISSIVE_LICENCES and len(files) == 1:
            text = files[0].read_text(encoding="utf-8")
            permitted.append(licences.permitted(said(text), PERMISSIVE_LICENCES))
    assert len(permitted) > 10
    assert sum(permitted) >= 0.94 * len(permitted)


# Headers of source files

GPL_NOTICE = """# This program is free software: you can redistribute it and/or modify it under the terms of the GNU
# General Public License as published by the Free Software Foundation, either version 3 of the License, or (at your
# option) any later version.
import os
"""


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0+ OR BSD-3-Clause */", "GPL-2.0-or-later OR BSD-3-Clause"),
        ("<!-- SPDX-License-Identifier: Apache-2.0 -->", "Apache-2.0"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: GPL-3.0-only\n", "GPL-3.0-only AND MIT"),
        ("x = 1\n" * 2000 + "# SPDX-License-Identifier: GPL-3.0-only\n", "GPL-3.0-only"),
        ("# SPDX-License-Identifier: Own-Licence", UNKNOWN),
        ("# SPDX-License-Identifier: LicenseRef-Acme", "LicenseRef-Acme"),
        ("# SPDX-License-Identifier: ()", UNKNOWN),
        ("# SPDX-License-Identifier: MIT OR\n", UNKNOWN),
        ("SPDX-License-Identifier:", UNKNOWN),
        (GPL_NOTICE, "GPL-3.0-or-later"),
        (GPL_NOTICE.replace("General", "Affero General"), "AGPL-3.0-or-later"),
        (GPL_NOTICE.replace("General", "Lesser General").replace("#", "//"), "LGPL-3.0-or-later"),
        ("/*\n * Licensed under the GNU AGPL v3.\n */\nfoo();", "AGPL-3.0-only"),
        ("// Licensed under GPLv2\n", "GPL-2.0-only"),
        ('"""A module.\n\nLicense: GPL-3.0\n"""\n', "GPL-3.0-only"),
        ("__license__ = 'GPL-2.0'\n", "GPL-2.0-only"),
        ("/** @license MIT */\n", "MIT"),
        ("# Licensed under the Server Side Public License, version 1\n", "SSPL-1.0"),
        ("// Use of this software is governed by the Business Source License 1.1\n", "BUSL-1.1"),
        ("# This Source Code Form is subject to the terms of the Mozilla Public\n# License, v. 2.0.\n", "MPL-2.0"),
        ("// MIT License with Commons Clause\n", UNKNOWN),
        ("// Copyright Acme. All rights reserved. Proprietary and confidential.\n", UNKNOWN),
        ("# Unauthorized copying of this file, via any medium, is strictly prohibited.\n", UNKNOWN),
        ("/* For evaluation purposes only. */\n", UNKNOWN),
        ("# This file may not be used to train AI models.\n", UNKNOWN),
        ("# No part of this file may be reproduced without the written permission of Acme.\n", UNKNOWN),
        ("".join(f"# {line}\n" for line in APACHE.splitlines()), "Apache-2.0"),
        ("".join(f"// {line}\n" for line in BSD_3.splitlines()), "BSD-3-Clause"),
        ("x = 1  # SPDX-License-Identifier: GPL-3.0-only\n", "GPL-3.0-only"),
        ("# See the LICENSE file.\n", NOTHING),
        ('def f():\n    """Return the value, which must not be used; for internal use only."""\n', NOTHING),
        ("# The proxy cannot be used here: do not share the lock.\n", NOTHING),
        ("# This file is for internal use only.\n", UNKNOWN),
        ("KNOWN = ['GNU General Public License', 'proprietary and confidential']\n", NOTHING),
        ("x = 1", NOTHING),
    ],
)
def test_a_header_states_the_licence_of_its_file(text: str, licence: str) -> None:
    statement = headers.of_source(text)
    assert (NOTHING if statement is None else statement.expression) == licence


# Names


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "LICENCE.txt",
        "LICENSE-MIT",
        "COPYING.LESSER",
        "COPYING3",
        "UNLICENSE",
        "license.md",
        "MIT-LICENSE",
        "LICENSE_1_0.txt",
        "EULA.pdf",
        "COMMERCIAL_LICENSE.txt",
        "LICENSE.html",
        "PATENTS",
        "COPYRIGHT",
        "LicenseAgreement.txt",
        "LICENSE.rtf",
        "TERMS.md",
    ],
)
def test_names_of_licence_files(name: str) -> None:
    assert names.is_licence(name)


@pytest.mark.parametrize(
    "name",
    [
        "license.py",
        "license.rs",
        "licenses.dart",
        "licenses.json",
        "LICENSE.go",
        "license.svg",
        "copyright.js",
        "LicenseChecker",
        "terms.py",
        "LICENSE.third-party",
        "THIRD-PARTY-LICENSES.txt",
        "NOTICE",
        "README.md",
    ],
)
def test_names_that_only_look_like_licence_files(name: str) -> None:
    assert not names.is_licence(name)


# Folders

NPM = '{"name": "x", "license": %s}'
TOML = '[project]\nname = "x"\nlicense = %s\n'


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, NOTHING),
        ({"LICENSE": MIT}, "MIT"),
        ({"LICENSE": b"\xef\xbb\xbf" + MIT.encode()}, "MIT"),
        ({"LICENSE": MIT.encode("utf-16")}, "MIT"),
        ({"LICENSE": MIT.replace("Somebody", "José").encode("latin-1")}, "MIT"),
        ({"LICENSE": MIT.replace("\n", "\r\n")}, "MIT"),
        ({"LICENSE": "lost"}, UNKNOWN),
        ({"LICENSE": ""}, UNKNOWN),
        ({"LICENSE.pdf": b"%PDF-1.4\0"}, UNKNOWN),
        ({"LICENSE": PROPRIETARY}, UNKNOWN),
        # several licence files
        ({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}, "Apache-2.0 OR MIT"),
        ({"LICENSE-MIT": MIT, "LICENSE-COMMERCIAL": PROPRIETARY}, UNKNOWN),
        ({"LICENSE-MIT": MIT, "LICENSE-GPL": "GPL-2.0-only"}, "GPL-2.0-only AND MIT"),
        ({"LICENSE": MIT, "EULA.txt": "By installing you agree."}, UNKNOWN),
        ({"LICENSE": MIT, "PATENTS": "Additional grant, which ends if you sue."}, UNKNOWN),
        ({"LICENSE": MIT, "NOTICE": "This product includes software of others."}, "MIT"),
        ({"LICENSE": MIT, "THIRD-PARTY-LICENSES": GPL}, "MIT"),
        # build files
        ({"package.json": NPM % '"ISC"'}, "ISC"),
        ({"LICENSE": PROPRIETARY, "package.json": NPM % '"ISC"'}, UNKNOWN),
        ({"LICENSE": MIT, "package.json": NPM % '"ISC"'}, "ISC AND MIT"),
        ({"LICENSE": MIT, "package.json": NPM % '"UNLICENSED"'}, UNKNOWN),
        ({"package.json": NPM % '"UNLICENSED"'}, UNKNOWN),
        ({"LICENSE": MIT, "package.json": NPM % '"SEE LICENSE IN terms.txt"'}, UNKNOWN),
        ({"package.json": NPM % '"LicenseRef-Acme"'}, "LicenseRef-Acme"),
        ({"package.json": NPM % '{"type": "MIT", "url": "x"}'}, "MIT"),
        ({"package.json": '{"licenses": [{"type": "MIT"}, {"type": "Apache-2.0"}]}'}, "MIT OR Apache-2.0"),
        ({"package.json": '{"licenses": [{"type": "MIT"}, {"type": "Acme"}]}'}, UNKNOWN),
        ({"package.json": b"\xef\xbb\xbf" + (NPM % '"MIT"').encode()}, "MIT"),
        ({"package.json": '{\n  "license": "UNLICENSED",\n}'}, UNKNOWN),
        ({"package.json": NPM % '"()"'}, UNKNOWN),
        ({"package.json": NPM % '"MIT OR"'}, UNKNOWN),
        ({"package.json": "["}, NOTHING),
        ({"LICENSE": MIT, "package.json": "["}, "MIT"),
        ({"Cargo.toml": '[package]\nlicense = "MIT/Apache-2.0"'}, "MIT OR Apache-2.0"),
        ({"LICENSE": MIT, "Cargo.toml": "[package]\nlicense.workspace = true"}, "MIT"),
        ({"pyproject.toml": TOML % '"MIT"'}, "MIT"),
        ({"pyproject.toml": TOML % '{text = "Proprietary"}'}, UNKNOWN),
        ({"LICENSE": MIT, "pyproject.toml": TOML % '{file = "LICENSE"}'}, "MIT"),
        ({"LICENSE": MIT, "pyproject.toml": TOML % '"GPL-3.0-only"'}, "GPL-3.0-only AND MIT"),
        ({"LICENSE": BSD_3, "setup.cfg": "[metadata]\nlicense = BSD\n"}, "BSD-3-Clause"),
        ({"setup.cfg": "[metadata]\nlicense = BSD\n"}, UNKNOWN),
        ({"LICENSE": MIT, "setup.py": "setup(license='Proprietary')"}, UNKNOWN),
        ({"setup.py": "setup(classifiers=['License :: OSI Approved :: MIT License'])"}, "MIT"),
        ({"LICENSE": MIT, "setup.py": "setup(classifiers=['License :: Other/Proprietary License'])"}, UNKNOWN),
        ({"pom.xml": "<licenses><license><name>Apache License, Version 2.0</name></license></licenses>"}, "Apache-2.0"),
        ({"pom.xml": "<licenses><license><name>Acme EULA</name></license></licenses>"}, UNKNOWN),
        ({"x.gemspec": "s.licenses = ['MIT', 'Ruby']"}, "MIT OR Ruby"),
        ({"x.gemspec": 's.license = "Nonstandard"'}, UNKNOWN),
        ({"composer.json": '{"license": ["MIT", "GPL-3.0-only"]}'}, "MIT OR GPL-3.0-only"),
        ({"composer.json": '{"license": "proprietary"}'}, UNKNOWN),
        # code that looks like a licence file
        ({"LICENSE": MIT, "license.rs": PROPRIETARY, "licenses.dart": GPL}, "MIT"),
        ({"LICENSE": PROPRIETARY, "license.go": MIT}, UNKNOWN),
        # folders below the top
        ({"LICENSE": MIT, "lib/LICENSE": PROPRIETARY}, UNKNOWN),
        ({"LICENSE": MIT, "lib/COPYING": "GPL-3.0-only"}, "GPL-3.0-only"),
        ({"LICENSE": "GPL-3.0-only", "lib/LICENSE": MIT}, "MIT"),
        ({"LICENSE": MIT, "lib/EULA.rtf": "x"}, UNKNOWN),
        ({"LICENSE": MIT, "lib/package.json": NPM % '"UNLICENSED"'}, UNKNOWN),
        ({"LICENSE": PROPRIETARY, "lib/package.json": NPM % '"ISC"'}, UNKNOWN),
        ({"LICENSE": MIT, "lib/package.json": NPM % '"GPL-3.0-only"'}, "GPL-3.0-only AND MIT"),
        ({"lib/Cargo.toml": '[package]\nlicense = "MIT"'}, "MIT"),
        ({"LICENSE": MIT, "other/LICENSE": PROPRIETARY}, "MIT"),
        ({"LICENSE": MIT, "LICENSES/GPL-3.0-only.txt": GPL}, "MIT"),
        # one file alone
        ({"LICENSE": MIT, "lib/a.py.license": "SPDX-License-Identifier: GPL-3.0-only"}, "GPL-3.0-only AND MIT"),
        ({"lib/a.py.license": "SPDX-License-Identifier: MIT"}, "MIT"),
        ({"LICENSE": MIT, "lib/a.py.license": "ask me"}, UNKNOWN),
        ({"REUSE.toml": '[[annotations]]\npath = "lib/**"\nSPDX-License-Identifier = "MIT"'}, "MIT"),
        ({"REUSE.toml": '[[annotations]]\npath = "*.py"\nSPDX-License-Identifier = "MIT"'}, NOTHING),
        (
            {"LICENSE": MIT, "REUSE.toml": '[[annotations]]\npath = ["**"]\nSPDX-License-Identifier = "LicenseRef-X"'},
            "LicenseRef-X AND MIT",
        ),
        ({"LICENSE": MIT, "REUSE.toml": "["}, UNKNOWN),
        (
            {".reuse/dep5": "Format: x\n\nFiles: *\nCopyright: x\nLicense: GPL-2+\n\nFiles: lib/*\nLicense: MIT\n"},
            "MIT",
        ),
        ({"LICENSE": MIT, ".reuse/dep5": "Files: lib/*\nLicense: Acme\n own words\n"}, UNKNOWN),
    ],
)
def test_what_is_stated_of_a_file_in_a_folder(files: Mapping[str, str | bytes], licence: str) -> None:
    from infill.text import decode

    contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    coverage = licences.of_files([*contents, "lib/a.py"], lambda path: decode(contents[path], "replace"))
    statement = coverage.of("lib/a.py")
    assert (NOTHING if statement is None else statement.expression) == licence


@pytest.mark.parametrize(
    ("files", "evidence"),
    [
        ({"LICENSE": PROPRIETARY}, "LICENSE: no known licence: 'This software is confidential and may not be copied.'"),
        (
            {"lib/package.json": NPM % '"UNLICENSED"'},
            "lib/package.json: it states 'UNLICENSED', which is not a known licence",
        ),
        ({"LICENSE": MIT}, "LICENSE"),
    ],
)
def test_what_is_stated_says_where(files: dict[str, str], evidence: str) -> None:
    statement = licences.of_files(files, files.get).of("lib/a.py")
    assert statement is not None
    assert statement.evidence == evidence


def test_a_licence_file_that_cannot_be_read_permits_nothing() -> None:
    statement = licences.of_files(["LICENSE", "a.py"], lambda _: None).of("a.py")
    assert statement == licences.Statement(UNKNOWN, "LICENSE: cannot be read")


@pytest.mark.parametrize(
    ("fields", "text", "licence"),
    [
        ({"License_Expression": "MIT", "License": "GPL"}, "", "MIT"),
        ({"License_Expression": "MIT"}, PROPRIETARY, UNKNOWN),
        ({"License": "Apache 2.0"}, "", "Apache-2.0"),
        ({"License": "BSD", "Classifier": ["License :: OSI Approved :: BSD License"]}, BSD, "BSD-2-Clause"),
        ({"Classifier": ["License :: OSI Approved", "License :: OSI Approved :: ISC License (ISCL)"]}, "", "ISC"),
        ({"Classifier": ["License :: Other/Proprietary License"]}, MIT, UNKNOWN),
        ({"License": " ".join(MIT.split())}, "", "MIT"),
        ({"License": "Dual License"}, BSD, "BSD-2-Clause"),
        ({"License": "Dual License"}, "", UNKNOWN),
        ({"Classifier": ["Programming Language :: Python"]}, "", NOTHING),
    ],
)
def test_what_a_distribution_states(fields: dict[str, str | list[str]], text: str, licence: str) -> None:
    files = {"LICENSE": text} if text else {}
    statement = licences.of_files(files, files.get, builds.of_metadata(metadata(**fields))).of("a.py")
    assert (NOTHING if statement is None else statement.expression) == licence


STATING = ["LICENSE", "package.json", "pyproject.toml", "Cargo.toml", "setup.cfg", "setup.py", "pom.xml", "x.gemspec"]
STATING += ["REUSE.toml", ".reuse/dep5", "a.py.license", "composer.json", "mix.exs", "DESCRIPTION", "lib/LICENSE.html"]


@given(st.sampled_from(STATING), st.binary() | st.text().map(str.encode))
def test_no_content_ends_the_run(name: str, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    licences.of_files([name, "a.py"], {name: text}.get).of("a.py")
    headers.of_source(text)
