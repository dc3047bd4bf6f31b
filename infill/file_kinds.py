"""File classification by name: a file's language, and whether it is source code.

The corpus, the context engine and the servers use this module, so that training and packing see the same files.

`infill.syntax` recognises the languages that have a grammar; this module adds the others. A language also has a kind:
`code`, `markup`, `prose`, or `data` (files that hold values, which get a smaller size limit).
"""

import re
from typing import Final

from infill import syntax

CODE: Final = frozenset(syntax.LANGUAGES)
"""Languages with syntactic holes."""

_EXTENSIONS_OF: Final = {
    "assembly": "asm s",
    "batch": "bat cmd",
    "clojure": "clj cljc cljs",
    "cmake": "cmake",
    "cpp": "cppm cu cuh ixx",
    "css": "css",
    "cython": "pxd pxi pyx",
    "dart": "dart",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "fortran": "f f90 f95 for",
    "fsharp": "fs fsx",
    "graphql": "gql graphql",
    "groovy": "gradle groovy",
    "haskell": "hs",
    "html": "htm html xhtml",
    "ini": "cfg conf ini properties",
    "json": "json json5 jsonc webmanifest",
    "julia": "jl",
    "less": "less",
    "lua": "lua",
    "make": "mak mk",
    "markdown": "markdown md mdx",
    "nix": "nix",
    "objective_c": "m mm",
    "ocaml": "ml mli",
    "perl": "pl pm",
    "powershell": "ps1 psm1",
    "protobuf": "proto",
    "r": "r",
    "rst": "rst",
    "scala": "sc scala",
    "scss": "sass scss",
    "shell": "bash fish ksh sh zsh",
    "sql": "sql",
    "svelte": "svelte",
    "swift": "swift",
    "template": "ejs hbs j2 jinja jinja2 mako mustache tmpl",
    "terraform": "hcl tf",
    "tex": "bib cls sty tex",
    "text": "txt",
    "toml": "toml",
    "verilog": "sv svh v vh",
    "vue": "vue",
    "xml": "plist wsdl xml xsd xsl xslt",
    "yaml": "yaml yml",
    "zig": "zig",
}
_EXTENSIONS: Final = {f".{ext}": language for language, exts in _EXTENSIONS_OF.items() for ext in exts.split()}

_NAMES: Final = {
    "build.bazel": "starlark",
    "cmakelists.txt": "cmake",
    "dockerfile": "dockerfile",
    "gnumakefile": "make",
    "jenkinsfile": "groovy",
    "makefile": "make",
    "readme": "text",
    "workspace": "starlark",
}
"""Language by whole file name, in lower case, for files whose extension does not tell it."""

_BINARY: Final = (
    "7z a arrow avi avro bin bmp bz2 class cubin db dll dylib egg eot exe fatbin feather gif gz h5 hdf5 ico idx jar"
    " jpeg jpg joblib lib lz4 mat mo mov mp3 mp4 node npy npz o obj ogg onnx orc otf pack parquet pdb pdf pickle pkl"
    " png pt ptx pyc pyd pyo rar safetensors sav so sqlite tar tgz ttf wasm wav webm webp whl woff woff2 xz zip zst"
)
_BINARY_EXTENSIONS: Final = frozenset(f".{ext}" for ext in _BINARY.split())
_DATA: Final = "arff csv dat data diff geojson ipynb jsonl lock log map ndjson patch po pot snap svg svmlight tsv"
_DATA_EXTENSIONS: Final = frozenset(f".{ext}" for ext in _DATA.split())
_DATA_NAMES: Final = frozenset(
    {"cargo.lock", "composer.lock", "go.sum", "npm-shrinkwrap.json", "package-lock.json", "pnpm-lock.yaml"}
)

_GENERATED_NAMES: Final = re.compile(
    r"(_pb2(_grpc)?\.pyi?|\.pb\.(go|cc|h)|\.g\.(cs|dart)|\.designer\.cs|_generated\.\w+|\.generated\.\w+)$",
    re.IGNORECASE,
)
_MINIFIED_NAMES: Final = re.compile(r"([.-]min\.(js|css|mjs)|\.bundle\.js|\.chunk\.js)$", re.IGNORECASE)

_SECRET_NAMES: Final = re.compile(
    r"\.env|\.env\..*(?<!\.example)(?<!\.sample)(?<!\.template)(?<!\.dist)|.*\.env|\.envrc"
    r"|\.netrc|_netrc|\.pgpass|\.htpasswd|\.npmrc|\.pypirc|\.git-credentials|\.dockercfg"
    r"|id_(rsa|dsa|ecdsa|ed25519)(_sk)?|.*\.(pem|key|p12|pfx|jks|keystore|kdbx|ppk|gpg|tfvars|tfstate)"
    r"|(client_)?secrets?\.(ya?ml|json|toml|ini)|credentials(\.(json|ini|ya?ml|toml))?|service[-_]account.*\.json",
    re.IGNORECASE,
)
"""Names of files that usually hold keys or passwords (as in github/gitignore and in the rules of gitleaks)."""

_KINDS: Final = {
    **dict.fromkeys(("css", "html", "less", "scss", "svelte", "template", "vue"), "markup"),
    **dict.fromkeys(("markdown", "rst", "tex", "text"), "prose"),
    **dict.fromkeys(("ini", "json", "toml", "xml", "yaml"), "data"),
}


_CPP_MARKS: Final = ("\nclass ", "\nnamespace ", "\ntemplate", "\nusing ", "std::", "public:", "private:")
"""Texts that occur in C++ headers but not in C headers."""


def language_of(path: str, text: str = "") -> str | None:
    """Return the language of a file by its name ("python", "c_sharp", "markdown" ...); None if the name has none.

    `text`, if any, decides whether a header is C or C++.
    """
    name = path.rpartition("/")[2].lower()
    if (language := syntax.language_of(name)) is not None:
        return "cpp" if name.endswith(".h") and any(mark in text for mark in _CPP_MARKS) else language
    if name in _NAMES:
        return _NAMES[name]
    return "dockerfile" if name.startswith("dockerfile.") else _EXTENSIONS.get(_suffix(name))


def _suffix(name: str) -> str:
    stem, dot, end = name.rpartition(".")
    return dot + end if stem else ""


def extension_of(language: str) -> str:
    """Return the most common extension of a language, with its dot; empty for a language without extensions."""
    extensions = syntax.extensions(language) or _EXTENSIONS_OF.get(language, "").split()
    return f".{language if language in extensions else extensions[0]}" if extensions else ""


def kind_of(language: str) -> str:
    """Return the kind of a language: `code`, `markup`, `prose` or `data`."""
    return _KINDS.get(language, "code")


def is_binary_name(path: str) -> bool:
    """Return whether the name is that of a compiled, compressed or media file, which is never read."""
    name = path.rpartition("/")[2].lower()
    return _suffix(name) in _BINARY_EXTENSIONS or ".so." in name


def is_data_name(path: str) -> bool:
    """Return whether the name is that of a data file: a table, notebook, drawing, lock file or log."""
    name = path.rpartition("/")[2].lower()
    return _suffix(name) in _DATA_EXTENSIONS or name in _DATA_NAMES


def is_secret_name(path: str) -> bool:
    """Return whether the name is that of a file that usually holds keys or passwords: `.env`, not `.env.example`."""
    return _SECRET_NAMES.fullmatch(path.rpartition("/")[2]) is not None


def why_not_source(path: str) -> str | None:
    """Return why a file of this name is not source ("binary", "data", "minified", "generated"); None if it may be."""
    name = path.rpartition("/")[2]
    if is_binary_name(name):
        return "binary"
    if is_data_name(name):
        return "data"
    if _MINIFIED_NAMES.search(name):
        return "minified"
    return "generated" if _GENERATED_NAMES.search(name) else None
