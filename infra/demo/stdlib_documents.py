"""The docstrings of the running interpreter's standard library, as documents."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from schemas.events import Document

# Modules that people know and that import without side effects.
MODULES: Final = [
    "argparse",
    "asyncio",
    "base64",
    "bisect",
    "builtins",
    "calendar",
    "collections",
    "contextlib",
    "copy",
    "csv",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "email.message",
    "enum",
    "fnmatch",
    "fractions",
    "functools",
    "glob",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "http.client",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "operator",
    "os",
    "os.path",
    "pathlib",
    "pickle",
    "platform",
    "pprint",
    "queue",
    "random",
    "re",
    "secrets",
    "shelve",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "traceback",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
    "uuid",
    "weakref",
    "zipfile",
    "zlib",
]
_DOCSTRING_CHARS_MIN: Final = 30


def stdlib_documents() -> Iterator[Document]:
    """One document for each module, public function and class that says what it does."""
    for name in MODULES:
        module = importlib.import_module(name)
        yield from _module_documents(name, module)


def _module_documents(name: str, module: ModuleType) -> Iterator[Document]:
    summary = inspect.getdoc(module)
    if summary:
        yield _document(name, name, f"The module {name}.", summary)
    for attribute in sorted(getattr(module, "__all__", None) or vars(module)):
        found = getattr(module, attribute, None)
        if attribute.startswith("_") or not (callable(found) and not isinstance(found, ModuleType)):
            continue
        doc = _own_docstring(found)
        if len(doc) >= _DOCSTRING_CHARS_MIN:
            full_name = attribute if name == "builtins" else f"{name}.{attribute}"
            yield _document(full_name, name, f"{full_name}{_signature(found)}", doc)


def _document(name: str, module: str, heading: str, doc: str) -> Document:
    return Document(
        text=f"{heading}\n\n{doc}",
        document_id=f"stdlib/{name}",
        title=name,
        source=f"python:{name}",
        metadata={"module": module},
    )


def _own_docstring(found: Any) -> str:
    """The object's docstring, unless it only inherits one."""
    doc = getattr(found, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _signature(found: Any) -> str:
    try:
        return str(inspect.signature(found))
    except (TypeError, ValueError):
        return "()"
