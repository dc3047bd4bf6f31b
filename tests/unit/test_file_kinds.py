"""Languages by file name."""

import pytest

from infill import file_kinds, syntax


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.py", "python"),
        ("A.CS", "c_sharp"),
        ("x.tsx", "tsx"),
        ("src/Makefile", "make"),
        ("Dockerfile.gpu", "dockerfile"),
        ("CMakeLists.txt", "cmake"),
        ("README", "text"),
        ("a.d/README.md", "markdown"),
        (".yaml", None),
        ("a.py/noextension", None),
        ("x.unknown", None),
    ],
)
def test_the_name_tells_the_language(path: str, name: str | None) -> None:
    assert file_kinds.language_of(path) == name


def test_the_text_tells_a_header_of_cpp() -> None:
    assert file_kinds.language_of("x.h", "int main(void);\n") == "c"
    assert file_kinds.language_of("x.h", "#pragma once\nnamespace a {}\n") == "cpp"


def test_languages_with_a_grammar_are_code() -> None:
    assert {file_kinds.kind_of(name) for name in syntax.LANGUAGES} == {"code"}
    assert [file_kinds.kind_of(name) for name in ("css", "markdown", "yaml", "shell")] == [
        "markup",
        "prose",
        "data",
        "code",
    ]


def test_binary_and_data_names() -> None:
    assert file_kinds.is_binary_name("lib/libx.so.1")
    assert file_kinds.is_binary_name("a/B.PNG")
    assert not file_kinds.is_binary_name("so.py")
    assert file_kinds.is_data_name("package-lock.json")
    assert file_kinds.is_data_name("x.CSV")
    assert not file_kinds.is_data_name("package.json")


@pytest.mark.parametrize(
    "path",
    [".env", "a/.env.local", "prod.env", ".envrc", "id_rsa", "x/tls.KEY", "ca.pem", "secrets.yaml", "credentials"],
)
def test_a_file_with_the_name_of_a_secret_is_one(path: str) -> None:
    assert file_kinds.is_secret_name(path)


@pytest.mark.parametrize(
    "path", [".env.example", "environment.py", "id_rsa.pub", "secrets.py", "credentials.go", ".env/main.py", "key.rs"]
)
def test_code_about_secrets_is_not_one(path: str) -> None:
    assert not file_kinds.is_secret_name(path)
