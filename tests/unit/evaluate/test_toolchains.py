"""Programs of other languages in the sandbox: they are built, answer, and get no further than Python's."""

import socket
from pathlib import Path

import pytest

from infill.evaluate import sandbox, toolchains
from tests.unit.evaluate.test_sandbox import isolated, survivors

pytestmark = pytest.mark.skipif(not isolated(), reason="this machine allows no namespaces")
needs_cpp = pytest.mark.skipif("cpp" not in toolchains.languages(), reason="g++ is not installed")
needs_java = pytest.mark.skipif("java" not in toolchains.languages(), reason="no JDK is installed")

DOUBLE = {
    "python": "import os\nn = int(os.read(0, 99))\nprint(RESULT)\nexit()",
    "cpp": "#include <iostream>\nint main() { long n; std::cin >> n; std::cout << RESULT; }",
    "java": "import java.util.*;\nclass Helper { static long twice(long n) { return RESULT; } }\n"
    "public class Solution { public static void main(String[] a) {"
    " System.out.println(Helper.twice(new Scanner(System.in).nextLong())); } }",
}
CHECK = "for n in (4, -3, 0):\n    assert int(remote('output')(str(n))) == 2 * n"


def _run(language: str, source: str, check: str, seconds: float = 30.0) -> sandbox.Outcome:
    tools = toolchains.commands(language, source)
    assert tools is not None
    return sandbox.run(source, check=check, tools=tools, seconds=seconds)


@pytest.mark.parametrize(
    "language", ["python", pytest.param("cpp", marks=needs_cpp), pytest.param("java", marks=needs_java)]
)
def test_the_right_program_passes_and_others_do_not(language: str) -> None:
    right, wrong, broken = (
        _run(language, DOUBLE[language].replace("RESULT", text), CHECK) for text in ("2 * n", "n", "")
    )
    assert right.passed, right
    assert wrong.status == "failed"
    assert "AssertionError" in wrong.detail
    assert broken.status == "failed"
    assert "rror" in broken.detail  # the compiler's


def test_the_class_with_main_is_started() -> None:
    source = "class A { }\nclass B { static public void main(String[] x) { class C { } } }"
    tools = toolchains.TOOLCHAINS["java"][1](source)
    assert (tools.file, tools.start[-1]) == ("Main.java", "B")
    tools = toolchains.TOOLCHAINS["java"][1](f"{source}\npublic final class D {{ }}")
    assert (tools.file, tools.start[-1]) == ("D.java", "D")


def test_a_language_without_a_compiler_has_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert toolchains.languages() == ["python"]
    assert toolchains.commands("cpp", "int main() {}") is None


ATTEMPTS = {
    "a connection": "auto s = socket(AF_INET, SOCK_STREAM, 0); sockaddr_in a{AF_INET, htons(PORT)};"
    ' inet_pton(AF_INET, "127.0.0.1", &a.sin_addr); return s >= 0 && connect(s, (sockaddr*)&a, sizeof a) == 0;',
    "the users of the machine": 'return open("/etc/passwd", O_RDONLY) >= 0;',
    "the environment of others": 'return open("/proc/1/environ", O_RDONLY) >= 0;',
    "a file in the system": 'return open("/usr/planted", O_WRONLY | O_CREAT, 0644) >= 0;',
    "this repository": 'return open("HERE", O_RDONLY) >= 0;',
    "a secret in the environment": 'return getenv("INFILL_SECRET") != nullptr;',
    "an open file": "for (int fd = 3; fd < 1024; fd++) if (fcntl(fd, F_GETFD) >= 0) return true; return false;",
    "the runner by ptrace": "return ptrace(PTRACE_ATTACH, getppid(), 0, 0) == 0;",
    "the runner's memory": "char b[8]; iovec l{b, 8}, r{(void*)&main, 8};"
    " return process_vm_readv(getppid(), &l, 1, &r, 1, 0) > 0;",
    "the end of the supervisor": "return kill(1, SIGKILL) == 0 && kill(1, 0) != 0;",
    "new namespaces": "return unshare(CLONE_NEWUSER) == 0;",
    "a clone in new namespaces": "return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) > 0;",
    "a mount": 'return mount("none", "/tmp", "tmpfs", 0, "") == 0;',
    "another root": 'return chroot("/tmp") == 0;',
    "being root": "return setuid(0) == 0;",
    "another system call table": "return syscall(SYS_bpf, 0, 0, 0) >= 0 || syscall(SYS_io_uring_setup, 1, 0) >= 0;",
    "much memory": "return malloc(3l << 30) != nullptr;",
    "a large file": 'signal(SIGXFSZ, SIG_IGN); std::ofstream f("big"); f << std::string(17 << 20, 0); f.close();'
    " return f.good();",
    "many processes": "for (int n = 0; n < 99; n++) { int p = fork(); if (p < 0) return false; if (!p) pause(); }"
    " return true;",
}
ATTACK = """
#include <iostream>
#include <fstream>
#include <string>
#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
int main();
bool attempt(int number) {
    switch (number) {
CASES
    }
    return true;
}
int main() { int number; std::cin >> number; std::cout << (attempt(number) ? "escaped" : "held"); }
"""


@needs_java
def test_a_program_may_close_its_standard_input() -> None:
    source = DOUBLE["java"].replace("RESULT", "2 * n").replace("); } }", "); System.in.close(); } }")
    source = source.replace("(String[] a)", "(String[] a) throws java.io.IOException")
    assert "System.in.close()" in source
    outcome = _run("java", source, CHECK)
    assert outcome.passed, outcome


@needs_cpp
def test_nothing_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFILL_SECRET", "x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        cases = "".join(f"case {number}: {{ {text} }}\n" for number, text in enumerate(ATTEMPTS.values()))
        port, here = str(server.getsockname()[1]), str(Path(__file__).parent)
        source = ATTACK.replace("CASES", cases.replace("PORT", port).replace("HERE", here))
        check = (
            f"names = {list(ATTEMPTS)!r}\nsaid = [remote('output')(str(n)) for n in range(len(names))]\n"
            "bad = {name: each for name, each in zip(names, said) if each != 'held'}\nassert not bad, bad"
        )
        outcome = _run("cpp", source, check)
    assert (outcome.status, outcome.detail) == ("passed", "")
    assert survivors() == []


@needs_cpp
@pytest.mark.parametrize(
    "body",
    [
        "kill(getppid(), SIGKILL);",
        "kill(-1, SIGKILL);",
        'for (int fd = 0; fd < 64; fd++) write(fd, "8", 1);',
        "std::cout << 8; raise(SIGSEGV);",
        "std::cout << 8; std::cout.flush(); pause();",
        "if (!fork()) { setsid(); pause(); } return 0;",
    ],
)
def test_no_answer_is_forged_and_nothing_outlives_its_time(body: str) -> None:
    source = f"#include <iostream>\n#include <signal.h>\n#include <unistd.h>\nint main() {{ {body} }}"
    outcome = _run("cpp", source, "assert remote('output')('4') == '8'\nassert remote('output')('5') == '10'", 4.0)
    assert outcome.status in {"failed", "timeout"}, outcome
    assert survivors() == []
