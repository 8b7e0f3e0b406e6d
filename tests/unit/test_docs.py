"""What README and docs say, held against what is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from typer.main import get_command

import headwater
from infra.cli import cli
from infra.commands.settings import GROUPS, environment_name, with_table
from schemas.topics import TOPICS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = ["README.md", "CHANGELOG.md", *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def tree_entries() -> Iterator[str]:
    """Each path that the README's tree names, relative to the root; folders end in a slash."""
    tree = README.split("<!-- tree -->\n```\n")[1].split("```")[0]
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            yield name
        else:
            yield folder + name


def top_level_folders() -> set[str]:
    """Folders of the checkout that hold a file, without the hidden and the ignored ones."""
    ignored = [
        line.strip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines() if line
    ]
    return {
        f"{folder.name}/"
        for folder in ROOT.iterdir()
        if folder.is_dir()
        and not folder.name.startswith(".")
        and not any(fnmatch(folder.name, pattern) for pattern in ignored)
        and any(path.is_file() for path in folder.rglob("*"))
    }


def test_the_settings_table_is_what_the_classes_say() -> None:
    assert with_table(README) == README, "write it anew: python -m infra.commands.settings"


def test_every_setting_says_what_it_means() -> None:
    silent = [
        environment_name(kind, name, field)
        for _, kind in GROUPS
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_a_setting_that_two_classes_read_has_one_default() -> None:
    defaults: dict[str, object] = {}
    for _, kind in GROUPS:
        for name, field in kind.model_fields.items():
            default = field.get_default(call_default_factory=True)
            assert defaults.setdefault(environment_name(kind, name, field), default) == default


def test_the_tree_names_what_exists() -> None:
    missing = [name for name in tree_entries() if not (ROOT / name).exists()]
    assert missing == []


def test_the_tree_names_every_top_level_folder() -> None:
    assert top_level_folders() - set(tree_entries()) == set()


def test_the_commands_are_those_of_the_command_line() -> None:
    table = README.split("## Commands\n")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `headwater ([a-z-]+)", table, re.MULTILINE))
    there = set(getattr(get_command(cli), "commands"))  # noqa: B009
    assert named == there


def test_every_topic_is_named() -> None:
    assert [topic.name for topic in TOPICS if f"`{topic.name}`" not in README] == []


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_parses_and_imports_what_there_is(snippet: str) -> None:
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.ImportFrom) and node.module == "headwater":
            assert {alias.name for alias in node.names} <= set(headwater.__all__)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#]+)", path.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"`((?:schemas|streams|models|agents|infra|tests)/[\w/.]+\.\w+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
