"""Licences: statements in people's own words, texts, headers, build files."""

import importlib.metadata
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.config import PERMISSIVE_LICENCES
from infill.corpus import licences
from tests.unit.corpus.folders import GPL, MIT

BSD = """Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:
 * Redistributions of source code must retain the above copyright notice.
"""
BSD_3 = BSD + " * Neither the name of X nor the names of its contributors may be used to endorse or promote products\n"
BSD_3 += "derived from this software without specific prior written permission."
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby
granted, provided that the above copyright notice and this permission notice appear in all copies."""


def metadata(**fields: str | list[str]) -> importlib.metadata.PackageMetadata:
    message = EmailMessage()
    for name, value in fields.items():
        for line in [value] if isinstance(value, str) else value:
            message.add_header(name.replace("_", "-"), line)
    return cast(importlib.metadata.PackageMetadata, message)


@pytest.mark.parametrize(
    ("statement", "licence"),
    [
        ("MIT", "MIT"),
        ("mit or apache-2.0", "MIT OR Apache-2.0"),
        ("The MIT License", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache2.0", "Apache-2.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("GPLv3 or so, ask me", None),
        ("BSD", None),
        ("Dual License", None),
        ("", None),
        (MIT, "MIT"),
    ],
)
def test_a_statement_becomes_spdx(statement: str, licence: str | None) -> None:
    assert licences.of_statement(statement) == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (MIT, "MIT"),
        (MIT.replace("The above copyright notice and this permission notice shall be included in all", ""), "MIT-0"),
        (MIT.replace("\n", "\r\n * ").upper(), "MIT"),
        (GPL, "GPL-3.0-only"),
        (BSD, "BSD-2-Clause"),
        (BSD_3, "BSD-3-Clause"),
        (BSD_3 + "All advertising materials mentioning features", "BSD-4-Clause"),
        (ISC, "ISC"),
        (ISC.replace(", provided that the above copyright notice and this permission notice appear", ""), "0BSD"),
        ("Licensed under the Apache License, Version 2.0 (the “License”)", "Apache-2.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        (MIT + BSD_3 + MIT, "BSD-3-Clause AND MIT"),
        (MIT + "“Commons Clause” License Condition v1.0", "LicenseRef-scancode-commons-clause AND MIT"),
        ("All rights reserved.", None),
        ("", None),
    ],
)
def test_a_text_is_recognised(text: str, licence: str | None) -> None:
    assert licences.recognise(text) == licence


def test_every_licence_we_recognise_is_known_to_spdx() -> None:
    assert [name for name, _ in licences.TEXTS if licences.normalise(name) != name] == []


def test_texts_of_the_packages_here_agree_with_their_metadata() -> None:
    agreed = []
    for distribution in importlib.metadata.distributions():
        expression = "".join(distribution.metadata.get_all("License-Expression") or [])
        names = [file for file in distribution.files or [] if licences.LICENCE_FILE.fullmatch(file.name)]
        paths = [Path(str(distribution.locate_file(file))) for file in names]
        if expression in PERMISSIVE_LICENCES and len(paths) == 1 and paths[0].exists():
            found = licences.recognise(paths[0].read_text(encoding="utf-8", errors="replace"))
            agreed.append(found is not None and expression in found)
    assert len(agreed) > 10
    assert sum(agreed) >= 0.8 * len(agreed)


@pytest.mark.parametrize(
    ("expression", "permitted"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("Apache-2.0 WITH LLVM-exception AND (MIT OR GPL-2.0-only)", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        (licences.UNKNOWN, False),
        ("Ask Me", False),
    ],
)
def test_an_expression_is_permitted_when_its_terms_can_be_met(expression: str, permitted: bool) -> None:
    assert licences.permitted(expression, PERMISSIVE_LICENCES) is permitted


@given(st.lists(st.sampled_from(["MIT", "ISC", "GPL-3.0-only", "MIT OR GPL-2.0-only"]), min_size=1))
def test_all_of_several_licences_must_be_permitted(expressions: list[str]) -> None:
    together = licences.conjunction(expressions)
    assert together is not None
    assert licences.permitted(together, ["MIT", "ISC"]) == all(
        licences.permitted(expression, ["MIT", "ISC"]) for expression in expressions
    )


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: MIT\n", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0+ OR BSD-3-Clause */", "GPL-2.0-or-later OR BSD-3-Clause"),
        ("<!-- SPDX-License-Identifier: Apache-2.0 -->", "Apache-2.0"),
        ("# SPDX-License-Identifier: Own-Licence", "Own-Licence"),
        ("x = 1\n" * 1000 + "# SPDX-License-Identifier: MIT\n", None),
        ("SPDX-License-Identifier:", None),
        ("x = 1", None),
    ],
)
def test_a_header_states_the_licence_of_its_file(text: str, licence: str | None) -> None:
    assert licences.of_header(text) == licence


@pytest.mark.parametrize(
    ("fields", "texts", "licence"),
    [
        ({"License_Expression": "MIT", "License": "GPL"}, [], "MIT"),
        ({"License": "Apache 2.0", "Classifier": ["License :: OSI Approved :: MIT License"]}, [], "Apache-2.0"),
        ({"License": "BSD", "Classifier": ["License :: OSI Approved :: BSD License"]}, [BSD], "BSD-2-Clause"),
        ({"Classifier": ["License :: OSI Approved", "License :: OSI Approved :: ISC License (ISCL)"]}, [], "ISC"),
        ({"Classifier": ["Programming Language :: Python"]}, [], licences.UNKNOWN),
        ({"License": "BSD"}, [], licences.UNKNOWN),
    ],
)
def test_a_distribution_states_its_licence(fields: dict[str, str | list[str]], texts: list[str], licence: str) -> None:
    assert licences.of_distribution(metadata(**fields), texts) == licence


@pytest.mark.parametrize(
    ("texts", "declarations", "licence"),
    [
        ([MIT], {}, "MIT"),
        ([MIT, GPL], {}, "GPL-3.0-only AND MIT"),
        (
            [MIT, "Licensed under the Apache License, Version 2.0"],
            {"Cargo.toml": "MIT/Apache-2.0"},
            "MIT OR Apache-2.0",
        ),
        ([], {"package.json": '{"license": "ISC"}'}, "ISC"),
        ([], {"package.json": '{"licenses": [{"type": "MIT"}, {"type": "Apache-2.0"}]}'}, "MIT OR Apache-2.0"),
        ([], {"package.json": "{"}, licences.UNKNOWN),
        ([], {"package.json": "[1]"}, licences.UNKNOWN),
        ([], {"pyproject.toml": '[project]\nlicense = {text = "MIT"}'}, "MIT"),
        ([], {"pyproject.toml": '[project]\nlicense = {file = "LICENSE"}'}, licences.UNKNOWN),
        ([GPL], {"pyproject.toml": '[project]\nlicense = "MIT"'}, "GPL-3.0-only AND MIT"),
        (["SPDX-License-Identifier: MIT"], {}, "MIT"),
        ([], {}, licences.UNKNOWN),
    ],
)
def test_a_repository_is_under_all_that_it_states(texts: list[str], declarations: dict[str, str], licence: str) -> None:
    if "Cargo.toml" in declarations:
        declarations = {"Cargo.toml": f'[package]\nlicense = "{declarations["Cargo.toml"]}"'}
    assert licences.of_repository(texts, declarations) == licence


@pytest.mark.parametrize("name", ["LICENSE", "LICENCE.txt", "LICENSE-MIT", "COPYING.LESSER", "UNLICENSE", "license.md"])
def test_names_of_licence_files(name: str) -> None:
    assert licences.LICENCE_FILE.fullmatch(name)


@pytest.mark.parametrize("name", ["license.py", "licenses.json", "relicense.txt", "LicenseChecker", "copyright.js"])
def test_names_that_only_look_like_licence_files(name: str) -> None:
    assert not licences.LICENCE_FILE.fullmatch(name)
