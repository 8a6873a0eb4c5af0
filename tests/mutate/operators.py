"""Mutation operators: one small wrong change each, made in a parsed module. Message texts, types and docstrings are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider

COMPARISONS: dict[type[cst.CSTNode], tuple[type[cst.CSTNode], ...]] = {  # a boundary moved, a sense turned
    cst.LessThan: (cst.LessThanEqual, cst.GreaterThanEqual), cst.LessThanEqual: (cst.LessThan, cst.GreaterThan),
    cst.GreaterThan: (cst.GreaterThanEqual, cst.LessThanEqual), cst.GreaterThanEqual: (cst.GreaterThan, cst.LessThan),
    cst.Equal: (cst.NotEqual,), cst.NotEqual: (cst.Equal,), cst.In: (cst.NotIn,), cst.NotIn: (cst.In,), cst.Is: (cst.IsNot,), cst.IsNot: (cst.Is,)}
ARITHMETIC: dict[type[cst.CSTNode], type[cst.CSTNode]] = {
    cst.Add: cst.Subtract, cst.Subtract: cst.Add, cst.Multiply: cst.Divide, cst.Divide: cst.Multiply, cst.FloorDivide: cst.Multiply,
    cst.Modulo: cst.FloorDivide, cst.LeftShift: cst.RightShift, cst.RightShift: cst.LeftShift, cst.BitAnd: cst.BitOr, cst.BitOr: cst.BitAnd,
    cst.Power: cst.Multiply, cst.AddAssign: cst.SubtractAssign, cst.SubtractAssign: cst.AddAssign, cst.MultiplyAssign: cst.DivideAssign,
    cst.DivideAssign: cst.MultiplyAssign, cst.BitOrAssign: cst.BitAndAssign, cst.BitAndAssign: cst.BitOrAssign}
_PAIRS = (("min", "max"), ("any", "all"), ("startswith", "endswith"), ("removeprefix", "removesuffix"), ("lstrip", "rstrip"), ("floor", "ceil"),
          ("argmax", "argmin"), ("append", "appendleft"), ("glob", "rglob"), ("lower", "upper"), ("zeros", "ones"))
NAMES = {a: b for one, other in _PAIRS for a, b in ((one, other), (other, one))} | {"True": "False", "False": "True", "popleft": "pop"}
QUIET = ("bad", "print", "say", "warn", "warning", "info", "debug", "error", "cast", "TypeVar", "field", "super")  # calls whose arguments are texts or types
Change = tuple[str, cst.CSTNode]


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and the nodes before and after. span: lines of the statement; of the function for a default,
    of the class or module for what is read when it is imported. names: what such a statement gives a value, or whose default it is."""

    file: str
    line: int
    span: range
    imported: bool
    operator: str
    module: cst.Module
    node: cst.CSTNode
    new: cst.CSTNode
    names: tuple[str, ...] = ()

    def code(self) -> str:
        """The module's whole text with the change."""
        return cst.ensure_type(self.module.deep_replace(self.node, self.new), cst.Module).code

    def lines(self) -> tuple[str, str]:
        """The first lines in which the texts before and after differ."""
        before, after = self.module.code.splitlines(), self.code().splitlines()
        at = next((i for i, (x, y) in enumerate(zip(before, after)) if x != y), min(len(before), len(after)) - 1)
        return before[at].strip(), after[at].strip()


def comparison(node: cst.ComparisonTarget) -> Iterator[Change]:
    for other in COMPARISONS.get(type(node.operator), ()):
        yield "comparison", node.with_changes(operator=other())


def arithmetic(node: cst.BinaryOperation | cst.AugAssign) -> Iterator[Change]:
    if (other := ARITHMETIC.get(type(node.operator))) is not None and not m.matches(node, m.BinaryOperation(left=m.SimpleString() | m.FormattedString())):
        yield "arithmetic", node.with_changes(operator=other())


def boolean(node: cst.BooleanOperation) -> Iterator[Change]:
    yield "and/or", node.with_changes(operator=cst.Or() if isinstance(node.operator, cst.And) else cst.And())


def negation(node: cst.UnaryOperation) -> Iterator[Change]:
    if isinstance(node.operator, (cst.Not, cst.Minus)):
        yield "sign or not removed", node.expression


def condition(node: cst.If | cst.While | cst.IfExp | cst.CompIf) -> Iterator[Change]:
    inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield "condition inverted", node.with_changes(test=cst.UnaryOperation(cst.Not(), inner))


def number(node: cst.Integer | cst.Float) -> Iterator[Change]:
    value = node.evaluated_value
    if isinstance(node, cst.Integer):
        yield "constant", node.with_changes(value=repr(value + 1))
        if value > 1:
            yield "constant", node.with_changes(value=repr(value - 1))
    else:
        yield "constant", node.with_changes(value=repr(value * 2 if value else 1.0))


def name(node: cst.Name) -> Iterator[Change]:
    if node.value in NAMES:
        yield "name", node.with_changes(value=NAMES[node.value])


def arguments(node: cst.Call) -> Iterator[Change]:
    args = list(node.args)
    plain = [a.keyword is None and a.star == "" for a in args]
    for i in range(len(args) - 1):
        symmetric = m.matches(node.func, m.Name("min") | m.Name("max") | m.Attribute(attr=m.Name("suppress")))
        if plain[i] and plain[i + 1] and not symmetric and not args[i].value.deep_equals(args[i + 1].value):
            swapped = [*args[:i], args[i + 1].with_changes(comma=args[i].comma), args[i].with_changes(comma=args[i + 1].comma), *args[i + 2:]]
            yield "arguments swapped", node.with_changes(args=swapped)
    for i, arg in enumerate(args):
        if arg.keyword is not None and not m.matches(arg.value, m.SimpleString() | m.FormattedString() | m.ConcatenatedString()):
            yield "argument dropped", node.with_changes(args=[*args[:i], *args[i + 1:]])


def statement(node: cst.SimpleStatementLine) -> Iterator[Change]:
    if len(node.body) == 1 and m.matches(node.body[0], m.Expr(value=m.Call()) | m.AugAssign() | m.Raise() | m.Del() | m.Assign(targets=[m.AssignTarget(target=m.Attribute() | m.Subscript())])):
        yield "statement removed", node.with_changes(body=[cst.Pass()])
    if len(node.body) == 1 and m.matches(node.body[0], m.Break() | m.Continue()):
        yield "break/continue", node.with_changes(body=[cst.Continue() if isinstance(node.body[0], cst.Break) else cst.Break()])


def bounds(node: cst.Slice) -> Iterator[Change]:
    if node.lower is not None:
        yield "slice bound dropped", node.with_changes(lower=None)
    if node.upper is not None:
        yield "slice bound dropped", node.with_changes(upper=None)


def given(node: cst.CSTNode) -> list[str]:
    """The names to which an assignment gives a value."""
    if not isinstance(node, (cst.Assign, cst.AnnAssign)):
        return []
    targets = [t.target for t in node.targets] if isinstance(node, cst.Assign) else [node.target]
    parts = [e.value for t in targets for e in t.elements] if all(isinstance(t, cst.Tuple) for t in targets) else targets
    return [part.value for part in parts if isinstance(part, cst.Name)]


TABLE: Sequence[tuple[tuple[type[cst.CSTNode], ...], Callable[..., Iterator[Change]]]] = (
    ((cst.ComparisonTarget,), comparison), ((cst.BinaryOperation, cst.AugAssign), arithmetic), ((cst.BooleanOperation,), boolean),
    ((cst.UnaryOperation,), negation), ((cst.If, cst.While, cst.IfExp, cst.CompIf), condition), ((cst.Integer, cst.Float), number),
    ((cst.Name,), name), ((cst.Call,), arguments), ((cst.SimpleStatementLine,), statement), ((cst.Slice,), bounds))


class _Collector(cst.CSTVisitor):
    """Every (node, change) of a module, but for what no test could or should notice."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, str, cst.CSTNode, int, range, bool, tuple[str, ...]]] = []
        self._inside: list[cst.CSTNode] = []

    def _lines(self, node: cst.CSTNode) -> range:
        at = self.get_metadata(PositionProvider, node)
        return range(at.start.line, at.end.line + 1)

    def _span(self, node: cst.CSTNode) -> tuple[range, bool, tuple[str, ...]]:
        """The lines that running the node takes, whether an import does, and the names that it then gives a value."""
        scopes = [n for n in self._inside if isinstance(n, (cst.Module, cst.ClassDef, cst.FunctionDef))]
        body = self._inside[self._inside.index(scopes[-1]) + 1:]
        if isinstance(scopes[-1], cst.FunctionDef) and any(isinstance(n, cst.BaseSuite) for n in body):
            statements = [n for n in (*body, node) if isinstance(n, cst.SimpleStatementLine)]
            return self._lines(statements[-1] if statements else node.test if isinstance(node, (cst.If, cst.While)) else node), False, ()
        if isinstance(scopes[-1], cst.FunctionDef):  # one of its defaults
            owner = (scopes[-2].name.value,) if scopes[-1].name.value == "__init__" and isinstance(scopes[-2], cst.ClassDef) else ()
            return self._lines(scopes[-1]), True, (scopes[-1].name.value, *owner)
        return self._lines(scopes[-1]), True, tuple(n for statement in (*body, node) for n in given(statement))

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._inside.pop()

    def on_visit(self, node: cst.CSTNode) -> bool:
        deeper = self._visit(node)
        self._inside.append(node)
        return deeper

    def _visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.Annotation, cst.Decorator, cst.Assert, cst.FormattedString, cst.Import, cst.ImportFrom)):
            return False
        if m.matches(node, m.If(test=m.Name("TYPE_CHECKING"))) or m.matches(node, m.FunctionDef(name=m.Name("__repr__") | m.Name("__str__"))):
            return False
        for kinds, operator in TABLE:
            if isinstance(node, kinds):
                line = self.get_metadata(PositionProvider, node).start.line
                self.found += [(node, what, new, line, *self._span(node)) for what, new in operator(node)]
        return not isinstance(node, cst.Raise) and not self._quiet(node)

    @staticmethod
    def _quiet(node: cst.CSTNode) -> bool:
        return isinstance(node, cst.Call) and m.matches(node.func, m.OneOf(*(m.Name(q) for q in QUIET), *(m.Attribute(attr=m.Name(q)) for q in QUIET)))


def mutants(file: str, code: str) -> list[Mutant]:
    """All of one module's, in its order. file: what they are told by."""
    wrapper = MetadataWrapper(cst.parse_module(code))
    collector = _Collector()
    wrapper.visit(collector)
    return [Mutant(file, line, span, imported, what, wrapper.module, node, new, names) for node, what, new, line, span, imported, names in collector.found]
