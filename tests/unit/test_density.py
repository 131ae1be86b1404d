"""How much a line carries and how much a function does, counted in nodes of the syntax tree.

A function's density is the number of nodes of its tree, signature included, over the lines of its body (docstring,
blank lines and comments not counted). A line of timm carries about 9 nodes, one of scikit-learn about 10.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fakeface"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "_modidx.py"))
DENSITY = 15.0  # nodes a body line over the library
MODULE_DENSITY = 20.0  # and in each module
LARGEST = 400  # nodes in a function
LARGE: dict[str, str] = {}  # functions that may be larger, at most five, with the reason
COLUMNS = 120


def functions(tree, inside=False):
    "Functions and methods of a module; one that stands in another counts as part of it."
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and not inside:
            yield node
        yield from functions(node, inside or is_function)


def size(node):
    return sum(1 for _ in ast.walk(node))


def body_lines(function, lines):
    "Numbers of the lines in a function's body that hold code."
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(getattr(body[0].value, "value", None), str):
        body = body[1:]
    span = range(body[0].lineno, function.end_lineno + 1) if body else ()
    return [n for n in span if lines[n - 1].strip() and not lines[n - 1].lstrip().startswith("#")]


def counts(text):
    "(nodes, body lines) of all functions of a module."
    lines = text.splitlines()
    measured = [(size(f), len(body_lines(f, lines))) for f in functions(ast.parse(text))]
    measured = [(nodes, n) for nodes, n in measured if n]
    return sum(nodes for nodes, _ in measured), sum(n for _, n in measured)


def test_the_measure_itself():
    loose = 'def f(a):\n    "Doc."\n    b = a\n    # why\n\n    return b\n'
    assert counts(loose) == (size(ast.parse(loose).body[0]), 2)
    dense = "def f(a): b = a; return b\n"
    assert counts(dense)[1] == 1 and counts("x = 1\n") == (0, 0)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_module_is_not_dense(path):
    text = path.read_text(encoding="utf-8")
    nodes, lines = counts(text)
    assert nodes <= MODULE_DENSITY * lines, f"{nodes / lines:.1f} nodes a line"
    large = {f.name: size(f) for f in functions(ast.parse(text)) if size(f) > LARGEST and f.name not in LARGE}
    assert not large and len(LARGE) <= 5, f"take these apart: {large}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lines_fit(path):
    "All but `__all__`, which nbdev wraps in its own way."
    lines = path.read_text(encoding="utf-8").splitlines()
    wide = [number for number, line in enumerate(lines, 1) if len(line) > COLUMNS]
    inside = [number for number, line in enumerate(lines, 1) if line.startswith(("__all__ = [", "           '"))]
    assert set(wide) <= set(inside), f"lines {sorted(set(wide) - set(inside))} are wider than {COLUMNS} columns"


def test_library_is_not_dense():
    nodes, lines = map(sum, zip(*(counts(p.read_text(encoding="utf-8")) for p in MODULES)))
    assert nodes <= DENSITY * lines, f"{nodes / lines:.1f} nodes a line"
