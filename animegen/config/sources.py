"""Facts that are read from source files without importing them, since importing PyTorch takes seconds."""

from __future__ import annotations

import ast
from importlib import resources
from pathlib import Path
from typing import Any


def package_folder(name: str) -> Path:
    """Return the folder of a package of animegen, such as ``losses``."""
    return Path(__file__).parents[1] / name


def config_root() -> Path:
    """Return the folder of the configuration files, which ships as the package ``animegen.conf``."""
    return Path(str(resources.files("animegen.conf")))


def exported_docs(package: Path) -> dict[str, str]:
    """Return the names in ``__all__`` of a package, with the first line of each docstring.

    Args:
        package: folder of the package, whose ``__init__.py`` imports every name from a module of the same package.
    """
    tree = _tree(package / "__init__.py")
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    module_of = {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__"
    )
    docs = {module: _docs(package / f"{module.rpartition('.')[2]}.py") for module in set(module_of.values())}
    return {name: docs[module_of[name]].get(name, "") for name in names}


def calls_in(path: Path, function: str) -> list[dict[str, Any]]:
    """Return the constant keyword arguments of each call of a function in a file."""
    calls = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    return [
        {str(keyword.arg): keyword.value.value for keyword in call.keywords if isinstance(keyword.value, ast.Constant)}
        for call in calls
        if getattr(call.func, "id", None) == function
    ]


def _docs(path: Path) -> dict[str, str]:
    nodes = [node for node in _tree(path).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").split("\n")[0].rstrip(".") for node in nodes}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
