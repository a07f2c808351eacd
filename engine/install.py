"""Make the project's `.venv`: `python3 engine/install.py [--dev] [--force]`, standard library only.

llama-cpp-python is compiled for this machine's processor, with the flags that keep GCC before 13
from miscompiling AMX, and the wheel is kept under a key of all that shaped it: pip's own cache
sees neither CFLAGS nor the processor. CC, CXX, CFLAGS, CXXFLAGS and CMAKE_ARGS are honoured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ingle-install.json"
NATIVE_PACKAGE = "llama-cpp-python"

# GCC before 13 thinks tile configuration reads 8 of its 64 bytes and drops the other stores.
AMX_FLAGS = ("-fno-tree-dse", "-fno-dse")
# Only libllama and ggml are loaded: without llama.cpp's `common` and `mtmd` the build halves.
# The package forces LLAMA_BUILD_COMMON on in the cache; a plain variable comes before the cache.
LEAN_BUILD = "set(LLAMA_BUILD_COMMON OFF)\n"
LEAN_ARGS = "-DLLAVA_BUILD=OFF"


class InstallError(Exception):
    """The message is the one line that the terminal shows."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Create .venv and install what Ingle needs.")
    parser.add_argument("--dev", action="store_true", help="also what tests and lint need")
    parser.add_argument("--force", action="store_true", help="compile and install everything anew")
    args = parser.parse_args()
    try:
        install(dev=args.dev, force=args.force)
    except InstallError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def install(*, dev: bool, force: bool) -> None:
    """Bring `.venv` up to date; returns at once when nothing changed since the last time."""
    if sys.version_info < (3, 11):  # noqa: UP036, this script meets whatever Python there is
        raise InstallError(f"Python 3.11 or newer is needed, this is {platform.python_version()}")
    dependencies, dev_dependencies = read_dependencies()
    build = build_inputs(pinned(dependencies))
    wanted = {
        "dependencies": dependencies,
        "dev": dev_dependencies if dev else None,
        "build": build,
    }
    if not force and is_current(wanted):
        return
    STAMP.unlink(missing_ok=True)
    create_venv()
    wheel = cached_wheel(build, force=force)
    pip("install", "--no-deps", "--force-reinstall", str(wheel))
    pip("install", *dependencies, *(dev_dependencies if dev else ()))
    STAMP.write_text(json.dumps(wanted))


def read_dependencies() -> tuple[list[str], list[str]]:
    """Run-time and development requirements, as pyproject.toml has them."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"], project["optional-dependencies"]["dev"]


def pinned(dependencies: list[str]) -> str:
    return next(item for item in dependencies if item.startswith(NATIVE_PACKAGE))


def is_current(wanted: dict[str, Any]) -> bool:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    if not venv_python().exists() or found.get("dependencies") != wanted["dependencies"]:
        return False
    if wanted["dev"] is not None and found.get("dev") != wanted["dev"]:
        return False
    # Without a compiler nothing could be rebuilt, so what is installed stays.
    return wanted["build"]["compilers"] is None or found.get("build") == wanted["build"]


# What shapes the wheel


def build_inputs(requirement: str) -> dict[str, Any]:
    """Everything that changes the compiled code, as JSON."""
    compilers = [native_macros("CC", "c"), native_macros("CXX", "c++")]
    return {
        "requirement": requirement,
        "python": sys.implementation.cache_tag,
        "machine": [platform.system(), platform.machine(), platform.processor()],
        "compilers": None if None in compilers else [digest(item) for item in compilers],
        "cflags": compile_flags("CFLAGS", compilers[0]),
        "cxxflags": compile_flags("CXXFLAGS", compilers[1]),
        "cmake_args": " ".join([LEAN_ARGS, os.environ.get("CMAKE_ARGS", "")]).strip(),
    }


def compiler_command(variable: str, language: str) -> list[str] | None:
    """The compiler that CMake would take: the variable, else cc or c++, else the GNU names."""
    chosen = os.environ.get(variable)
    if chosen:
        command = shlex.split(chosen)
        return command if command and shutil.which(command[0]) else None
    names = ("cc", "gcc", "clang") if language == "c" else ("c++", "g++", "clang++")
    return next(([name] for name in names if shutil.which(name)), None)


def native_macros(variable: str, language: str) -> dict[str, str] | None:
    """Predefined macros for this processor: they name the compiler, its version and the CPU."""
    command = compiler_command(variable, language)
    if command is None:
        return None
    for native in (["-march=native"], ["-mcpu=native"], []):
        result = subprocess.run(
            [*command, *native, "-dM", "-E", "-x", language, os.devnull],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            return dict(re.findall(r"^#define (\S+) ?(.*)$", result.stdout, re.MULTILINE))
    return None


def compile_flags(variable: str, macros: dict[str, str] | None) -> str:
    """The user's flags, with those that the compiler needs appended."""
    flags = shlex.split(os.environ.get(variable, ""))
    if macros is not None and miscompiles_amx(macros):
        flags += [flag for flag in AMX_FLAGS if flag not in flags]
    return shlex.join(flags)


def miscompiles_amx(macros: dict[str, str]) -> bool:
    """True for GCC before 13 on x86-64; Clang and Intel's compilers define `__GNUC__` too."""
    is_gcc = "__GNUC__" in macros and not {"__clang__", "__INTEL_COMPILER"} & macros.keys()
    return is_gcc and "__x86_64__" in macros and int(macros["__GNUC__"]) < 13


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


# Doing it


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def create_venv() -> None:
    """A new one too where the present one is of another Python or lost its pip."""
    tag = sys.implementation.cache_tag
    check = f"import pip, sys; sys.exit(sys.implementation.cache_tag != {tag!r})"
    if venv_python().exists() and run_quietly([str(venv_python()), "-c", check]):
        return
    say(f"creating {VENV.name} with Python {platform.python_version()}")
    if not run_quietly([sys.executable, "-m", "venv", "--clear", str(VENV)]):
        raise InstallError(
            f"{sys.executable} cannot make a virtual environment: install its venv and pip "
            "modules (Debian, Ubuntu: apt install python3-venv)"
        )


def run_quietly(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def pip(*arguments: str) -> None:
    command = [str(venv_python()), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    say(f"pip {arguments[0]}: {len([a for a in arguments[1:] if a[0] != '-'])} requirements")
    result = subprocess.run([*command, *arguments, "--quiet", "--quiet"], check=False)
    if result.returncode != 0:
        raise InstallError("pip could not install the dependencies; its own message is above")


def cache_directory() -> Path:
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "ingle"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/ingle"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "ingle" / "Cache"
    return Path.home() / ".cache" / "ingle"


def cached_wheel(inputs: dict[str, Any], *, force: bool) -> Path:
    """The wheel for these inputs, compiled unless an earlier build left it in the cache."""
    directory = cache_directory() / "wheels" / digest(inputs)
    found = sorted(directory.glob("*.whl"))
    if found and not force:
        say(f"using the wheel compiled before: {found[0]}")
        return found[0]
    if inputs["compilers"] is None and os.name != "nt":
        raise InstallError(
            "no C and C++ compiler found: install one (Debian, Ubuntu: apt install build-essential;"
            " macOS: xcode-select --install) or set CC and CXX"
        )
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="build-") as scratch:
        built = compile_wheel(inputs, Path(scratch), directory / "build.log")
        return Path(shutil.move(str(built), directory / built.name))


def compile_wheel(inputs: dict[str, Any], scratch: Path, log: Path) -> Path:
    lean = scratch / "lean.cmake"
    lean.write_text(LEAN_BUILD)
    lean_arg = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={lean.as_posix()}"
    environment = os.environ | {
        "CFLAGS": inputs["cflags"],
        "CXXFLAGS": inputs["cxxflags"],
        "CMAKE_ARGS": f"{shlex.quote(lean_arg)} {inputs['cmake_args']}",
    }
    command = [str(venv_python()), "-m", "pip", "wheel", "--verbose", "--no-deps"]
    command += ["--no-cache-dir", "--no-binary", NATIVE_PACKAGE]
    command += ["--wheel-dir", str(scratch), inputs["requirement"]]
    say(f"compiling {inputs['requirement']} for this machine (a few minutes); log: {log}")
    if watch_build(command, environment, log) != 0:
        raise InstallError(f"the build of {NATIVE_PACKAGE} failed: {last_error(log)}; log: {log}")
    return next(scratch.glob("*.whl"))


def watch_build(command: list[str], environment: dict[str, str], log: Path) -> int:
    """Run the build with its output in `log`; tell the terminal how far it is."""
    live = sys.stderr.isatty()
    said, start = 0, time.monotonic()
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with log.open("w", encoding="utf-8") as sink, process:
        assert process.stdout is not None
        for line in process.stdout:
            sink.write(line)
            step = re.match(r"\s*\[(\d+)/(\d+)\]", line)
            percent = 100 * int(step[1]) // int(step[2]) if step else 0
            if percent >= said + (1 if live else 10):
                said = percent
                say(f"compiling: {percent} % after {time.monotonic() - start:.0f} s", live=live)
    if live:
        sys.stderr.write("\n")
    return process.returncode


def last_error(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    errors = re.findall(r"^.*(?:error:|CMake Error).*$", text, re.MULTILINE | re.IGNORECASE)
    return errors[0].strip()[:200] if errors else "see the end of the log"


def say(message: str, *, live: bool = False) -> None:
    sys.stderr.write(f"install: {message}" + ("\r" if live else "\n"))
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
