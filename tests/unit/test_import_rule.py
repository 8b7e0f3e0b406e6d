"""Each package imports only what stands below it: schemas, streams, agents, infra; models apart."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("headwater", "schemas", "streams", "models", "agents", "infra", "tests")
ALLOWED: dict[str, tuple[str, ...]] = {
    "schemas": ("schemas",),
    "streams": ("schemas", "streams"),
    "models": ("schemas.errors", "models"),
    "agents": ("schemas", "streams", "models", "agents"),
    "infra": ("schemas", "streams", "models", "agents", "infra"),
}
MODULES = [path for package in ALLOWED for path in sorted((ROOT / package).rglob("*.py"))]


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what a piece of code imports, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def forbidden(source: str, allowed: tuple[str, ...]) -> list[str]:
    """Imports of ours, or relative ones, that are not under an allowed name."""
    return [
        name
        for name in imports(ast.parse(source))
        if name.split(".")[0] in (*OURS, "")
        and not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_it_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert forbidden(path.read_text(), ALLOWED[package]) == []


def test_the_public_door_reaches_the_command_line_only_from_its_main() -> None:
    tree = ast.parse((ROOT / "headwater.py").read_text())
    main = next(node for node in tree.body if getattr(node, "name", None) == "main")
    assert [name for name in imports(main) if name.startswith(OURS)] == ["infra.cli.app"]
    tree.body.remove(main)
    assert forbidden(ast.unparse(tree), ("schemas", "streams")) == []


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("schemas", "from streams import client"),
        ("streams", "def late():\n    import agents.runtime.worker"),
        ("models", "from schemas import events"),
        ("models", "import schemas.events"),
        ("models", "from streams.settings import load"),
        ("agents", "from infra.paths import ROOT"),
        ("infra", "from tests import conftest"),
        ("infra", "from . import paths"),
    ],
)
def test_a_breach_would_be_seen(package: str, source: str) -> None:
    assert len(forbidden(source, ALLOWED[package])) == 1


def test_models_may_raise_our_errors() -> None:
    for source in ("from schemas.errors import ModelUnavailable", "from schemas import errors"):
        assert forbidden(source, ALLOWED["models"]) == []
