"""Rules about the whole tree that no import contract can hold. What each file may do is said here once."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.pipeline import STAGES

ROOT = Path(__file__).parents[2]
PRODUCT = [*ROOT.glob("schemas/**/*.py"), *ROOT.glob("workers/**/*.py")]
NOT_OURS = {".git", ".venv", "__pycache__", "build", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"}

REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs|repo1?\.maven\.|proxy\.golang\.|crates\.io|docker\.io|ghcr\.io|quay\.io|gcr\.io"
    r"|--(?:extra-)?index-url"
)
REASON = re.compile(r"# noqa: BLE001\W+\w+(\s\S+){3,}")
"""A broad except says on its line why nothing narrower will do."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def reads_environment(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv"):
            return True
        case ast.ImportFrom(module="os", names=imported):
            return any(n.name in ("environ", "environb", "getenv") for n in imported)
        case ast.ImportFrom(module="dotenv") | ast.Import(names=[ast.alias(name="dotenv")]):
            return True
    return False


def is_broad(node: ast.AST) -> bool:
    """`except:`, `except Exception`, `except (X, BaseException)`, `suppress(Exception)`; not one that raises at its end."""
    match node:
        case ast.ExceptHandler(body=[*_, ast.Raise()]):
            return False
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=caught):
            named = ast.walk(caught)
        case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=args):
            named = (n for a in args for n in ast.walk(a))
        case _:
            return False
    return any(isinstance(n, ast.Name) and n.id in ("Exception", "BaseException") for n in named)


def test_only_the_settings_and_the_command_line_read_the_environment() -> None:
    readers = {name(path) for path in PRODUCT if any(map(reads_environment, nodes(path)))}
    elsewhere = {reader for reader in readers if not reader.startswith(("workers/cli/", "workers/laptop/"))}
    # LiteLLM and ONNX Runtime take wishes by the environment alone, before they are imported: not to fetch a price map, not to report home.
    assert elsewhere - {"workers/call/provider.py", "workers/__init__.py"} == {"workers/settings.py"}


def test_every_broad_except_says_why() -> None:
    silent = [
        f"{name(path)}:{node.lineno}"
        for path in PRODUCT
        for node in nodes(path)
        if is_broad(node) and not REASON.search(path.read_text().splitlines()[node.lineno - 1])
    ]
    assert silent == []


def test_every_module_says_what_it_is_for() -> None:
    assert [name(path) for path in PRODUCT if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_the_events_import_pydantic_and_nothing_else() -> None:
    allowed = {"pydantic", "schemas"} | sys.stdlib_module_names
    for path in ROOT.glob("schemas/**/*.py"):
        for node in nodes(path):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or "schemas"] if isinstance(node, ast.ImportFrom) else []
            assert {m.partition(".")[0] for m in modules} <= allowed, name(path)


@pytest.mark.parametrize(
    "module", ["workers.cli.main", "workers.runtime.fleet", "workers.classify.classify", "workers.attribute.attribute"]
)
def test_light_processes_do_not_load_litellm(module: str) -> None:
    """It takes seconds and 190 MB, in every stage but `call`."""
    code = f"import sys, {module}; print(*sorted({{'litellm', 'torch', 'onnxruntime'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_no_file_names_a_package_registry() -> None:
    """Whoever installs has an index or a mirror configured; a lock that names one works nowhere else."""
    named = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in NOT_OURS and not f.endswith(".egg-info")]  # nobody goes in there
        for path in (Path(folder, file) for file in files if file not in NOT_OURS):
            text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
            named += [f"{name(path)}: {found[0]}" for found in REGISTRY.finditer(text)]
    assert named == []


def test_the_command_line_knows_every_stage() -> None:
    code = "from workers.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "run", "no-such-stage"], cwd=ROOT, capture_output=True, text=True, check=False)
    words = set(re.findall(r"[a-z]+", done.stderr))
    assert done.returncode != 0
    assert set(STAGES) | {"all"} <= words
