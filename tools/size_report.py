#!/usr/bin/env python3
"""The scoreboard of sizes. Exits 1 only when a ceiling is broken.

  tools/size_report.py [--root DIR]   report on the tree
  tools/size_report.py --self-test    plant one breach of each ceiling: each must be found

Aims and ceilings: files 250 / 600 lines (.cu 700), host functions 30 / 80, GPU kernels 200, lines
of 100 columns. Functions are found by matching braces outside comments and strings: approximate.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

FILE_AIM, FILE_CEILING, CUDA_FILE_CEILING = 250, 600, 700
FUNCTION_AIM, FUNCTION_CEILING, KERNEL_CEILING = 30, 80, 200
COLUMNS = 100
CPP = {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh"}
OTHERS = {".py", ".sh"}
SHEBANGS = {"run", "test", ".ci/run"}  # scripts without a suffix

# Text that hides braces: comments, raw strings, strings, characters (but not 1'000), lines of the
# preprocessor.
HIDDEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
    re.S | re.M,
)
CONTAINER = re.compile(r"(?:(?:typedef|static|const|constexpr|inline)\s+)*"
                       r"(?:(?:namespace|class|struct|union|enum)\b|extern\s*$)")
# The words that may stand between the last parenthesis of a function's head and its body.
TAIL = re.compile(r"(?:\s|const\b|noexcept\b|override\b|final\b|try\b|&|[A-Z_][A-Z0-9_]*\b|->.*"
                  r"|requires\b.*|.*\}$)*", re.S)
TEMPLATE = re.compile(r"\btemplate\s*<(?:[^<>]|<(?:[^<>]|<[^<>]*>)*>)*>")
ATTRIBUTE = re.compile(r"\b(?:__launch_bounds__|__cluster_dims__|__attribute__)\s*"
                       r"\((?:[^()]|\([^()]*\))*\)")
ACCESS = re.compile(r"\b(?:public|private|protected)\s*:(?!:)")


@dataclass
class Function:
    path: str
    line: int
    name: str
    lines: int
    kernel: bool

    def ceiling(self):
        return KERNEL_CEILING if self.kernel else FUNCTION_CEILING


def blank(text):
    """The code with everything HIDDEN replaced by spaces, newlines kept."""
    return HIDDEN.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def without_parentheses(text):
    while True:
        shorter = re.sub(r"\([^()]*\)", " ", text)
        if shorter == text:
            return text
        text = shorter


def brace_kind(header):
    """What a brace after `header` opens outside functions: function, container, init or value."""
    head = TEMPLATE.sub(" ", ACCESS.sub(" ", header)).strip()
    if CONTAINER.match(head) or re.search(r"\bnamespace\b[^()]*$", head):
        return "container"
    flat = without_parentheses(head)
    if "operator" not in head and re.search(r"=(?!=)", flat):
        return "value"
    if "(" not in head:
        return "container" if not head else "value"
    # A member initializer in braces, `Foo() : a_{1}`: the header of the function goes on after it.
    if re.search(r"(?<!:):(?!:)", flat) and re.search(r"[\w>]$", flat.rstrip()) and re.search(
            r"[:,]\s*[\w:<>]+$", head):
        return "init"
    if not TAIL.fullmatch(head[head.rindex(")") + 1:]):
        return "value"
    return "function"


def functions_of(path, text):
    """Yields a Function for each definition outside of other functions."""
    code = blank(text)
    stack, start, position = [], 0, 0
    for match in re.finditer(r"[{};]", code):
        position, mark = match.start(), match[0]
        inside = any(kind in ("function", "value", "init") for kind, _ in stack)
        if mark == "{":
            kind = "inner" if inside else brace_kind(code[start:position])
            stack.append((kind, start))
            if kind == "container":
                start = position + 1
        elif mark == "}" and stack:
            kind, begin = stack.pop()
            if kind == "function":
                yield make_function(path, code, begin, position)
            if not inside or kind == "function":
                start = position + 1
        elif mark == ";" and not inside:
            start = position + 1


def make_function(path, code, begin, end):
    header = ACCESS.sub(lambda m: " " * len(m[0]), code[begin:end])
    begin += len(header) - len(header.lstrip())
    signature = ATTRIBUTE.sub(" ", TEMPLATE.sub(" ", header.split("{")[0]))
    name = re.search(r"([\w:~]+|operator[^\w\s(]+)\s*\(", signature)
    first = code.count("\n", 0, begin) + 1
    last = code.count("\n", 0, end) + 1
    kernel = "__global__" in signature or "__device__" in signature
    return Function(path, first, name[1] if name else "?", last - first + 1, kernel)


def room_of(path):
    parts = Path(path).parts
    if parts[0] == "src":
        return "/".join(parts[: 3 if parts[1] == "kernels" else 2][: len(parts) - 1])
    return parts[0] if len(parts) > 1 else "."


def tracked(root):
    """What git tracks or would track; in a folder without git (the self-test), every file."""
    if (root / ".git").exists():
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
            check=True, capture_output=True, text=True).stdout.splitlines()
    else:
        listed = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    for name in sorted(set(listed)):
        if (Path(name).suffix in CPP | OTHERS or name in SHEBANGS) and (root / name).is_file():
            yield name


class Report:
    def __init__(self, root):
        self.rooms, self.files, self.functions, self.breaches = defaultdict(int), {}, [], []
        for name in tracked(root):
            self.read(name, (root / name).read_text())
        for function in self.functions:
            if function.lines > function.ceiling():
                self.breaches.append(f"{function.path}:{function.line}: function {function.name} "
                                     f"has {function.lines} lines, ceiling {function.ceiling()}")

    def read(self, name, text):
        lines = text.splitlines()
        self.files[name] = len(lines)
        self.rooms[room_of(name)] += len(lines)
        ceiling = CUDA_FILE_CEILING if name.endswith(".cu") else FILE_CEILING
        if len(lines) > ceiling:
            self.breaches.append(f"{name}: {len(lines)} lines, ceiling {ceiling}")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS:
                self.breaches.append(f"{name}:{number}: {len(line)} columns, ceiling {COLUMNS}")
        if Path(name).suffix in CPP:
            self.functions += functions_of(name, text)

    def show(self):
        print("lines a room:")
        for room, lines in sorted(self.rooms.items()):
            print(f"  {lines:6}  {room}")
        print(f"  {sum(self.rooms.values()):6}  in {len(self.files)} files")
        print(f"files over {FILE_AIM} lines (aim), largest first:")
        for name, lines in sorted(self.files.items(), key=lambda item: -item[1]):
            if lines > FILE_AIM:
                print(f"  {lines:6}  {name}")
        long = [f for f in self.functions if f.lines > FUNCTION_AIM]
        print(f"functions: {len(self.functions)}, over {FUNCTION_AIM} lines (aim): {len(long)}, "
              f"over {FUNCTION_CEILING}: {sum(f.lines > FUNCTION_CEILING for f in long)}; longest:")
        for f in sorted(long, key=lambda f: -f.lines)[:12]:
            print(f"  {f.lines:6}  {f.path}:{f.line} {f.name}")
        print(*self.breaches, sep="\n", end="\n" if self.breaches else "")
        print(f"size_report: {len(self.breaches)} ceilings broken")


def body(lines):
    return "  int a = 0;\n" * lines


# Breaches to find, and code that only looks like one.
BREACHES = {
    "src/a/file.cpp": "int a;\n" * (FILE_CEILING + 1),
    "src/a/file.cu": "int a;\n" * (CUDA_FILE_CEILING + 1),
    "src/a/columns.h": "//" + "x" * (COLUMNS - 1) + "\n",
    "src/a/function.cpp": "int f(int x) {\n" + body(FUNCTION_CEILING - 1) + "}\n",
    "src/a/method.h": "namespace n {\nstruct S : B<int> {\n  S() : a_{1}, b_(2) {\n"
    + body(FUNCTION_CEILING - 1) + "  }\n};\n}\n",
    "src/a/template.h": "template <class T, int N = (3)>\nauto g(T t = {}) -> int {\n"
    + body(FUNCTION_CEILING - 2) + "}\n",
    "src/a/kernel.cu": "__global__ void __launch_bounds__(f(256)) k(int x) {\n"
    + body(KERNEL_CEILING - 1) + "}\n",
    "src/a/host.cu": "void f(int x) {\n" + body(FUNCTION_CEILING - 1) + "}\n",
    "src/a/c.cpp": "extern \"C\" int c(void) {\n" + body(FUNCTION_CEILING - 1) + "}\n",
    "src/a/case_test.cpp": "TEST(A, B) {\n" + body(FUNCTION_CEILING - 1) + "}\n",
}
CLEAN = {
    "src/b/file.cpp": "int a;\n" * FILE_CEILING,
    "src/b/columns.h": "//" + "é" * (COLUMNS - 2) + "\n",
    "src/b/function.cpp": "int f(int x) {\n" + body(FUNCTION_CEILING - 2) + "}\n",
    "src/b/kernel.cu": "__global__ void k(int x) {\n" + body(KERNEL_CEILING - 2) + "}\n",
    # Each unbalanced brace here is inside a comment, a string, a character or a macro.
    "src/b/hidden.cpp": "int f() {\n  // {\n  /* { */\n  g(\"{\", '{', R\"x({)x\", 1'000);\n}\n"
    "#define X \\\n  {\n" + "int h() { return 0; }\n" * 90,
    "src/b/table.cpp": "const Line kTable[] = {\n" + "  {f(1), [] { return 2; }},\n" * 90 + "};\n",
    "src/b/class.h": "class C {\n public:\n" + "  int a() const { return 0; }\n" * 90 + "};\n",
}


def write_all(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def self_test():
    for name, text in BREACHES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_all(Path(folder), CLEAN | {name: text})
            breaches = Report(Path(folder)).breaches
            if len(breaches) != 1 or not breaches[0].startswith(name) or "bounds" in breaches[0]:
                sys.exit(f"self-test: planted {name}, got {breaches}")
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), CLEAN)
        report = Report(Path(folder))
        found = sum(f.path == "src/b/class.h" for f in report.functions)
        if report.breaches or found != 90:
            sys.exit(f"self-test: clean files gave {report.breaches}, {found} methods of 90")
    print(f"size_report self-test: {len(BREACHES)} planted breaches found, clean files are clean")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return
    report = Report(arguments.root)
    report.show()
    sys.exit(1 if report.breaches else 0)


if __name__ == "__main__":
    main()
