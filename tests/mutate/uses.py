"""Which tests might notice that what a module computes when it is imported has another value: those that run a use of the name, or name it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Uses:
    """Of modules' and of tests' texts by file."""

    def __init__(self, modules: Mapping[str, str], tests: Mapping[str, str]) -> None:
        self._modules = {file: ast.parse(text) for file, text in modules.items()}
        self._tests = {f"{file}::{test.name}": set(_names(test)) for file, text in tests.items() for test in _functions(ast.parse(text))}

    def lines(self, file: str, names: Sequence[str]) -> dict[str, set[int]]:
        """Lines of functions that use one of the names, or what is computed from it at import."""
        out: dict[str, set[int]] = {}
        todo, known = [(file, name) for name in names], set[tuple[str, str]]()
        while todo:
            at = todo.pop()
            if at not in known:
                known.add(at)
                for module, tree in self._modules.items():
                    for line, given in _uses(tree, at[1], module == at[0] or _takes(tree, *at)):
                        out[module] = out.get(module, set()) | set(line)
                        todo += [(module, name) for name in given]
        return {module: held for module, held in out.items() if held}

    def tests(self, names: Iterable[str]) -> set[str]:
        """Tests, without their parameters, in whose text one of the names stands."""
        wanted = set(names)
        return {test for test, held in self._tests.items() if held & wanted}


def _functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in tree.body if isinstance(node, Function) and node.name.startswith("test_"))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, (ast.Attribute, ast.keyword, ast.alias)):
            yield str(node.attr if isinstance(node, ast.Attribute) else node.arg if isinstance(node, ast.keyword) else node.name)


def _takes(tree: ast.Module, file: str, name: str) -> bool:
    """Whether a module imports the name from that file."""
    stem = PurePath(file).stem
    return any(isinstance(n, ast.ImportFrom) and (n.module or "").rpartition(".")[2] == stem and any(a.name == name for a in n.names) for n in ast.walk(tree))


def _uses(tree: ast.Module, name: str, plain: bool) -> Iterator[tuple[Iterable[int], list[str]]]:
    """(lines that run it, names that get their value from it at import) of each use; plain: the name alone is one, else x.name and name=."""
    def found(node: ast.AST) -> list[int]:
        return [n.lineno for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr == name or isinstance(n, ast.keyword) and n.arg == name
                or plain and isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]

    def statements(body: Sequence[ast.stmt]) -> Iterator[tuple[Iterable[int], list[str]]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from statements(node.body)
            elif isinstance(node, Function):
                yield [line for statement in node.body for line in found(statement)], []
                if found(node.args):
                    yield range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1), []
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and found(node):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield (), [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return statements(tree.body)
