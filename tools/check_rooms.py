#!/usr/bin/env python3
"""Holds the rooms of src/ and include/ against tools/rooms.toml. Exits 1 on any finding.

  tools/check_rooms.py [--root DIR]   check the tree
  tools/check_rooms.py --self-test    plant forbidden edges in a copy: each must be found

Checked: every #include of a room, the ROOMS of every CMakeLists.txt (allowed, and equal to what the
room includes), every folder that holds sources is a room, no two rooms include each other. Sources
that need the CUDA toolkit (*.cu, and those that include its headers or a *.cuh) stand behind the
word CUDA in CMakeLists.txt.
"""

import argparse
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

SOURCES = {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CMAKE_CALL = re.compile(r"\b(adder_room|adder_test)\s*\(([^)]*)\)", re.S)
CMAKE_WORDS = {"NAME", "SOURCES", "CUDA", "ROOMS", "LIBS", "LABELS", "TIMEOUT", "ENV"}


class Rooms:
    """rooms.toml, with the groups spelled out."""

    def __init__(self, root):
        self.root = root
        self.findings = []
        with open(root / "tools/rooms.toml", "rb") as file:
            table = tomllib.load(file)
        self.rooms = table["rooms"]
        self.everywhere = set(table["everywhere"])
        self.tests = set(table["tests"])
        self.groups = table.get("groups", {})
        self.third_party = table.get("third_party", {})
        self.cuda_headers = tuple(table["cuda"]["headers"])
        self.cuda_rooms = self.spelled_out(table["cuda"]["rooms"])
        self.includes = {}
        for name, room in self.rooms.items():
            allowed = self.spelled_out(room["includes"])
            for one in sorted(allowed):
                self.check_entry(name, one)
            free = set() if room.get("alone") else self.everywhere
            self.includes[name] = allowed | (free - {name})
        # "core/" -> core, "kernels/s6/" -> s6, "adder/" -> public: how an include names a room.
        self.prefixes = {
            room["folder"].split("/", 1)[1] + "/": name for name, room in self.rooms.items()
        }

    def spelled_out(self, entries):
        return {one for entry in entries for one in self.groups.get(entry, [entry])}

    def check_entry(self, name, one):
        if one not in self.rooms:
            self.find("tools/rooms.toml", 0, f"room {name} may include {one}, which is no room")
        elif self.rooms[one]["rank"] >= self.rooms[name]["rank"]:
            self.find("tools/rooms.toml", 0, f"room {name} may include {one} of no lower rank")

    def find(self, path, line, text):
        self.findings.append(f"{path}:{line}: {text}" if line else f"{path}: {text}")

    def of_folder(self, folder):
        """The room whose folder this is, or None."""
        return next((n for n, room in self.rooms.items() if room["folder"] == folder), None)

    def of_include(self, path, folder, quoted):
        """The room that an include path names, or None for a third-party or standard header."""
        if quoted and (self.root / folder / path).is_file():  # relative to the including file
            real = (self.root / folder / path).resolve().parent
            return self.of_folder(real.relative_to(self.root.resolve()).as_posix())
        known = [p for p in self.prefixes if path.startswith(p)]
        return self.prefixes[max(known, key=len)] if known else None

    def needs_toolkit(self, target, header):
        return header.endswith(".cuh") or (target is None and header.startswith(self.cuda_headers))


def is_test(path):
    return path.stem.endswith("_test")


def source_files(root):
    for top in ("src", "include"):
        yield from sorted(p for p in (root / top).rglob("*") if p.suffix in SOURCES)


def check_includes(rooms):
    """Reports forbidden includes; returns {room: {included room: "file:line"}} without tests."""
    edges = {name: {} for name in rooms.rooms}
    cuda_only = cuda_sources(rooms.root)
    for path in source_files(rooms.root):
        shown = path.relative_to(rooms.root).as_posix()
        folder = path.parent.relative_to(rooms.root).as_posix()
        name = rooms.of_folder(folder)
        if name is None:
            rooms.find(shown, 0, f"folder {folder} is no room of tools/rooms.toml")
            continue
        allowed = rooms.includes[name] | (rooms.tests if is_test(path) else set())
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = rooms.of_include(match[2], folder, match[1] == '"')
            if rooms.needs_toolkit(target, match[2]):
                if name not in rooms.cuda_rooms:
                    rooms.find(shown, number, f"room {name} may not include {match[2]} of CUDA")
                elif path.suffix != ".cuh" and path.resolve() not in cuda_only:
                    rooms.find(shown, number, f"{match[2]} needs the CUDA toolkit, but {path.name} "
                                              "is not behind CUDA in CMakeLists.txt")
            if target is None:
                check_third_party(rooms, name, path, f"{shown}:{number}", match[2])
            elif target != name:
                if target not in allowed:
                    rooms.find(shown, number, f"room {name} may not include {match[2]}")
                if not is_test(path):
                    edges[name].setdefault(target, f"{shown}:{number}")
    return edges


def cuda_sources(root):
    """The files that CMake compiles only with CUDA."""
    return {
        (path.parent / one).resolve()
        for path in (root / "src").rglob("CMakeLists.txt")
        for _, _, words in cmake_calls(path.read_text())
        for one in words.get("CUDA", [])
    }


def check_third_party(rooms, name, path, where, header):
    for prefix, users in rooms.third_party.items():
        tested = is_test(path) and prefix == "gtest/"
        if header.startswith(prefix) and name not in users and not tested:
            rooms.findings.append(f"{where}: {header} is private to {users or 'tests'}")


def check_mutual(rooms, edges):
    for a in edges:
        for b in edges[a]:
            if a < b and a in edges[b]:
                rooms.findings.append(f"{edges[a][b]}: {a} and {b} include each other "
                                      f"(the other way: {edges[b][a]})")


def cmake_calls(text):
    """Yields (function, line, {word: [values]}) for adder_room and adder_test."""
    text = re.sub(r"#[^\n]*", "", text)
    for match in CMAKE_CALL.finditer(text):
        words, current = {}, None
        for token in match[2].split():
            if token in CMAKE_WORDS:
                current = words.setdefault(token, [])
            elif current is not None:
                current.append(token.strip('"'))
        yield match[1], text.count("\n", 0, match.start()) + 1, words


def check_cmake(rooms, edges):
    linked = {}
    for path in sorted((rooms.root / "src").rglob("CMakeLists.txt")):
        shown = path.relative_to(rooms.root).as_posix()
        name = rooms.of_folder(path.parent.relative_to(rooms.root).as_posix())
        for function, line, words in cmake_calls(path.read_text()):
            links = set(words.get("ROOMS", []))
            allowed = rooms.includes.get(name, set())
            if name is None:
                rooms.find(shown, line, "a target in a folder that is no room")
            elif function == "adder_room":
                if words.get("NAME") != [name]:
                    rooms.find(shown, line, f"the target's NAME is not the room's: {name}")
                linked.setdefault(name, (shown, line, set()))[2].update(links)
            else:
                allowed = allowed | rooms.tests | {name}
            for one in sorted(links - allowed):
                rooms.find(shown, line, f"room {name} may not link {one}")
    for name, (shown, line, links) in linked.items():
        # `public` is headers only: there is nothing to link.
        included = {one for one in edges[name] if one != "public"}
        for one in sorted(included - links):
            where = edges[name][one]
            rooms.find(shown, line, f"{name} includes {one} ({where}) but does not link it")
        for one in sorted(links - included):
            rooms.find(shown, line, f"{name} links {one} but includes nothing of it")
    compiled = cuda_sources(rooms.root)
    for path in sorted((rooms.root / "src").rglob("*.cu")):
        if path.resolve() not in compiled:
            shown = path.relative_to(rooms.root).as_posix()
            rooms.find(shown, 0, "is not behind CUDA in CMakeLists.txt")
    for name in edges:
        has_code = any((rooms.root / rooms.rooms[name]["folder"]).glob("*.cpp"))
        if has_code and name not in linked:
            rooms.find(rooms.rooms[name]["folder"], 0, "has sources but no adder_room()")


def check(root):
    rooms = Rooms(root)
    edges = check_includes(rooms)
    check_mutual(rooms, edges)
    check_cmake(rooms, edges)
    return rooms.findings, edges


def plant(root, path, text):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


# A tiny house, correct as it stands, and bugs to plant in it: path, text, what must be said.
HOUSE = {
    "src/core/error.cpp": '#include "core/error.h"\n',
    "src/core/error.h": "#include <string>\n",
    "src/core/CMakeLists.txt": "adder_room(NAME core SOURCES error.cpp)\n",
    "src/kernels/s6/s6.cpp": '#include "core/error.h"\n',
    "src/kernels/s6/s6_test.cpp": '#include <gtest/gtest.h>\n#include "measure/compare.h"\n',
    "src/kernels/device/launch.cuh": '#include <cuda_runtime.h>\n#include "core/error.h"\n',
    "src/kernels/device/backend.cpp": '#include "kernels/device/launch.cuh"\n',
    "src/kernels/device/CMakeLists.txt": "adder_room(NAME device CUDA backend.cpp ROOMS core)\n",
    "src/kernels/s6/s6.cu": '#include <cub/cub.cuh>\n#include "kernels/device/launch.cuh"\n',
    "src/kernels/s6/CMakeLists.txt": "adder_room(NAME s6\n SOURCES s6.cpp CUDA s6.cu\n"
    " ROOMS core device)\n"
    "adder_test(NAME s6_test SOURCES s6_test.cpp ROOMS s6 measure)\n",
}
BUGS = [
    ("src/core/up.cpp", '#include "models/model.h"\n', "core may not include models/model.h"),
    ("src/kernels/s6/side.h", '#include "../norm/norm.h"\n', "s6 may not include"),
    ("src/kernels/s6/side.h", '#  include <kernels/norm/norm.h>\n', "s6 may not include"),
    ("src/kernels/s6/s6.h", '#include "measure/compare.h"\n', "s6 may not include measure"),
    ("src/core/error.h", '#include "kernels/s6/s6.h"\n', "include each other"),
    ("src/core/json.cpp", "#include <rapidjson/reader.h>\n", "is private to"),
    ("src/core/sub/a.h", "\n", "src/core/sub is no room"),
    ("include/adder/a.h", '#include "core/error.h"\n', "public may not include core"),
    ("src/core/CMakeLists.txt", "adder_room(NAME core\n ROOMS s6)\n", "core may not link s6"),
    ("src/kernels/s6/CMakeLists.txt", "adder_room(NAME s6 SOURCES s6.cpp)\n", "does not link it"),
    ("src/kernels/s6/s6.cpp", "\n", "links core but includes nothing"),
    ("src/kernels/s6/s6.cu", "\n", "links device but includes nothing"),
    ("src/core/gpu.cuh", "#include <cuda_fp16.h>\n", "core may not include cuda_fp16.h of CUDA"),
    ("src/kernels/s6/s6.cpp", '#include "core/a.h"\n#include <cub/cub.cuh>\n', "not behind CUDA"),
    ("src/kernels/s6/s6.h", '#include "kernels/device/launch.cuh"\n', "not behind CUDA"),
    ("src/kernels/s6/more.cu", "\n", "more.cu: is not behind CUDA"),
    ("src/kernels/device/up.cuh", '#include "kernels/s6/s6.h"\n', "device may not include"),
    ("src/text/bytes.cpp", "\n", "no adder_room()"),
]


def self_test(root):
    with tempfile.TemporaryDirectory() as folder:
        for number, (path, text, expected) in enumerate([(None, None, None), *BUGS]):
            house = Path(folder) / str(number)
            (house / "tools").mkdir(parents=True)
            shutil.copy(root / "tools/rooms.toml", house / "tools")
            for name, content in HOUSE.items():
                plant(house, name, content)
            plant(house, "src/kernels/norm/norm.h", "\n")
            plant(house, "src/measure/compare.h", "\n")
            if path:
                plant(house, path, text)
            if expected == "include each other":
                plant(house, "src/kernels/s6/s6.h", '#include "core/error.h"\n')
            findings = check(house)[0]
            found = any(expected in one for one in findings) if expected else not findings
            if not found:
                sys.exit(f"self-test: {path}: {text!r}: wanted {expected!r}, got {findings}")
        # The same in a copy of the real tree: a new file of core that reaches up.
        house = Path(folder) / "real"
        for top in ("src", "include", "tools"):
            shutil.copytree(root / top, house / top)
        plant(house, "src/core/planted_up.h", '#include "models/model.h"\n')
        if not any("planted_up.h:1" in one for one in check(house)[0]):
            sys.exit("self-test: an upward include in a copy of the tree was not found")
    print(f"check_rooms self-test: {len(BUGS) + 1} planted bugs found, the clean house is clean")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test(arguments.root)
        return
    findings, edges = check(arguments.root)
    print(*findings, sep="\n", end="\n" if findings else "")
    used = {name: targets for name, targets in edges.items() if targets}
    print(f"check_rooms: {len(edges)} rooms, {sum(map(len, used.values()))} edges, "
          f"{len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
