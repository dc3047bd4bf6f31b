"""The language of a file, by its name.

Names of languages that have a grammar are those of `infill.syntax`. A language also has a kind: `code`, `markup`,
`prose`, or `data` (files that hold values rather than thoughts; they get a smaller size limit).
"""

from pathlib import PurePosixPath
from typing import Final

CODE: Final = frozenset({"c", "c_sharp", "cpp", "go", "java", "javascript", "kotlin", "php"}) | frozenset(
    {"python", "ruby", "rust", "typescript"}
)
"""Languages in which holes can be cut by syntax."""

_EXTENSIONS_OF: Final = {
    "assembly": "asm s",
    "batch": "bat cmd",
    "c": "c",
    "c_sharp": "cs csx",
    "clojure": "clj cljc cljs",
    "cmake": "cmake",
    "cpp": "cc cpp cppm cu cuh cxx h hh hpp hxx inl ipp ixx",
    "css": "css",
    "cython": "pxd pxi pyx",
    "dart": "dart",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "fortran": "f f90 f95 for",
    "fsharp": "fs fsx",
    "go": "go",
    "graphql": "gql graphql",
    "groovy": "gradle groovy",
    "haskell": "hs",
    "html": "htm html xhtml",
    "ini": "cfg conf ini properties",
    "java": "java",
    "javascript": "cjs js jsx mjs",
    "json": "json json5 jsonc webmanifest",
    "julia": "jl",
    "kotlin": "kt kts",
    "less": "less",
    "lua": "lua",
    "make": "mak mk",
    "markdown": "markdown md mdx",
    "nix": "nix",
    "objective_c": "m mm",
    "ocaml": "ml mli",
    "perl": "pl pm",
    "php": "php phtml",
    "powershell": "ps1 psm1",
    "protobuf": "proto",
    "python": "py pyi pyw",
    "r": "r",
    "rst": "rst",
    "ruby": "gemspec rake rb",
    "rust": "rs",
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
    "typescript": "cts mts ts tsx",
    "verilog": "sv svh v vh",
    "vue": "vue",
    "xml": "plist wsdl xml xsd xsl xslt",
    "yaml": "yaml yml",
    "zig": "zig",
}
_EXTENSIONS: Final = {f".{ext}": language for language, exts in _EXTENSIONS_OF.items() for ext in exts.split()}

_NAMES: Final = {
    "brewfile": "ruby",
    "build.bazel": "starlark",
    "cmakelists.txt": "cmake",
    "dockerfile": "dockerfile",
    "gemfile": "ruby",
    "gnumakefile": "make",
    "jenkinsfile": "groovy",
    "makefile": "make",
    "podfile": "ruby",
    "rakefile": "ruby",
    "readme": "text",
    "workspace": "starlark",
}
"""Whole file names, lower-case, for files whose name says more than their extension."""

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

_KINDS: Final = {
    **dict.fromkeys(("css", "html", "less", "scss", "svelte", "template", "vue"), "markup"),
    **dict.fromkeys(("markdown", "rst", "tex", "text"), "prose"),
    **dict.fromkeys(("ini", "json", "toml", "xml", "yaml"), "data"),
}


def language_of(path: str) -> str | None:
    """The language that the name of the file tells ("python", "c_sharp", "markdown" ...); None when it tells none."""
    name = PurePosixPath(path).name.lower()
    if name in _NAMES:
        return _NAMES[name]
    if name.startswith("dockerfile."):
        return "dockerfile"
    return _EXTENSIONS.get(PurePosixPath(name).suffix)


def kind_of(language: str) -> str:
    """`code`, `markup`, `prose` or `data`."""
    return _KINDS.get(language, "code")


def is_binary_name(path: str) -> bool:
    """Whether the name is that of a compiled, packed or media file, which is never read."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    return bool(suffixes) and (suffixes[-1] in _BINARY_EXTENSIONS or ".so" in suffixes[:-1])


def is_data_name(path: str) -> bool:
    """Whether the name is that of a data file: tables, notebooks, drawings, lock files, logs."""
    pure = PurePosixPath(path)
    return pure.suffix.lower() in _DATA_EXTENSIONS or pure.name.lower() in _DATA_NAMES
