"""Generated programs of several languages that read standard input and write standard output.

`commands` tells how the sandbox builds and starts such a program; the sandbox runs both, and neither is trusted.
"""

import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Commands:
    """The commands that build and start a program in the folder of the sandbox."""

    file: str
    """Name of the source file."""
    build: tuple[str, ...]
    start: tuple[str, ...]
    folders: tuple[str, ...] = ()
    """Folders that the tools read outside `/usr` and `/lib`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = 1 << 30
    """Bytes that each process may write to."""
    reserved: int = 1 << 30
    """Bytes of address space of each process; virtual machines reserve more than they use."""

    def request(self) -> dict[str, Any]:
        """Return the commands as `jail` expects them."""
        return asdict(self)


def languages() -> list[str]:
    """Return the languages, by SAFIM's names, whose tools are on this machine."""
    return [name for name, (tools, _) in TOOLCHAINS.items() if all(map(shutil.which, tools))]


def commands(language: str, source: str) -> Commands | None:
    """Return how to build and start `source`; None without the language's tools."""
    return TOOLCHAINS[language][1](source) if language in languages() else None


def _real(tool: str) -> str:
    """Return the tool's file, without links that lead through folders which the sandbox does not have."""
    return str(Path(shutil.which(tool) or tool).resolve())


def _python(_: str) -> Commands:
    build = (_real(sys.executable), "-I", "-B", "-c", "compile(open('program.py').read(), 'program.py', 'exec')")
    return Commands(file="program.py", build=build, start=(*build[:3], "program.py"))


def _cpp(_: str) -> Commands:
    """Return the commands of C++, with the options by which SAFIM's authors compile."""
    options = ("-std=c++17", "-O2", "-w", "-DONLINE_JUDGE", "-include", "limits.h", "-include", "math.h")
    build = (_real("g++"), *options, "-o", "program", "program.cpp")
    return Commands(file="program.cpp", build=build, start=("./program",))


PUBLIC_CLASS: Final = re.compile(r"\bpublic\s+(?:(?:final|abstract|strictfp)\s+)*class\s+(\w+)")
CLASS: Final = re.compile(r"\bclass\s+(\w+)")
MAIN: Final = re.compile(r"\bstatic\s+(?:\w+\s+)*void\s+main\s*\(")


def _java(source: str) -> Commands:
    """Return the commands of Java: the file bears the public class's name; the class before `main` is started."""
    public = PUBLIC_CLASS.search(source)
    file = public[1] if public else "Main"
    main = MAIN.search(source)
    before = CLASS.findall(source, 0, main.start()) if main else []
    started = file if public or not before else before[-1]
    virtual = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
    build = (_real("javac"), *(f"-J{option}" for option in virtual), "-nowarn", "-d", ".", f"{file}.java")
    home = Path(_real("java")).parent.parent
    return Commands(
        file=f"{file}.java",
        build=build,
        start=(_real("java"), *virtual, "-Xss64m", "-cp", ".", started),
        folders=tuple(str(folder) for folder in Path("/etc").glob("java-*-openjdk")),
        environment={"LD_LIBRARY_PATH": f"{home}/lib:{home}/lib/server"},  # found by /proc, which the sandbox lacks
        memory=3 << 30,  # among it a stack for each thread; the heap has its own limit
        reserved=8 << 30,
    )


TOOLCHAINS: Final[dict[str, tuple[tuple[str, ...], Callable[[str], Commands]]]] = {
    "python": ((), _python),
    "cpp": (("g++",), _cpp),
    "java": (("javac", "java"), _java),
}
"""Programs that must be on the machine, and the maker of the commands, by language.

C# is missing, since Mono refuses to run without `/proc`, which the sandbox does not show.
"""
