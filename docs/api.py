"""The reference: a page for each chapter, read from the modules' text; nothing is imported.

A parameter's words are its docment, the comment behind it in the signature; a field's the comment behind or above it.
"""

import ast
import html
import io
import re
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path

from docs.pages import Page, exported, fenced, public_methods

WIDTH = 88  # a signature that is longer takes a line for each parameter
LONG_VALUE = 200  # characters of a constant that are shown
MARKS = r"[|*`\[]|\b_|_\b"  # what Markdown would read within code

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Comments = Mapping[int, str]  # line → the comment on it


def module_paths(package: Path) -> dict[str, Path]:
    "Module that a notebook exports → its file, chapters and rooms in alphabetical order."
    paths = sorted(path for path in package.glob("*/*.py") if not path.stem.startswith("__"))
    return {f"{package.name}.{path.parent.name}.{path.stem}": path for path in paths}


def comments_of(source: str) -> dict[int, str]:
    "Line number → the text of the comment on that line."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def parameters(function: Definition) -> list[tuple[ast.arg, ast.expr | None]]:
    "Each parameter with its default, `self` and `cls` left out."
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    without = [None] * (len(positional) - len(args.defaults))
    pairs = [*zip(positional, [*without, *args.defaults]), *zip(args.kwonlyargs, args.kw_defaults)]
    return [(arg, default) for arg, default in pairs if arg.arg not in ("self", "cls")]


def cell(text: str) -> str:
    "Text for a cell of a table."
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: str) -> str:
    "Code for a cell of a table: HTML, in which a bar needs no backslash."
    escaped = html.escape(text, quote=False)
    return f"<code>{re.sub(MARKS, lambda mark: f'&#{ord(mark[0])};', escaped)}</code>"


def table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    "Rows of name, type, default and words; empty where no row has words."
    rows = list(rows)
    if not any(words for *_, words in rows):
        return ""
    lines = ["| name | type | what it is |", "|---|---|---|"]
    for name, kind, default, words in rows:
        parts = [code(kind) if kind else "", f"= {code(default)}" if default else ""]
        lines.append(f"| {code(name)} | {' '.join(parts).strip()} | {cell(words)} |")
    return "\n".join(lines)


def signature(function: Definition, name: str) -> str:
    "A function as it is called, with types; a line for each parameter where it is long."
    arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(function.args))
    returned = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    line = f"{name}({arguments}){returned}"
    if len(line) <= WIDTH:
        return line
    shown = [
        ast.unparse(arg) + (f" = {ast.unparse(default)}" if default else "") for arg, default in parameters(function)
    ]
    keywords = len(shown) - len(function.args.kwonlyargs)
    if function.args.vararg:
        shown.insert(keywords, "*" + ast.unparse(function.args.vararg))
    elif function.args.kwonlyargs:
        shown.insert(keywords, "*")
    if function.args.posonlyargs:
        shown.insert(len(function.args.posonlyargs), "/")
    if function.args.kwarg:
        shown.append("**" + ast.unparse(function.args.kwarg))
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in shown) + f"){returned}"


def parameter_rows(function: Definition, comments: Comments) -> Iterable[tuple[str, str, str, str]]:
    "Rows of a function's parameters, and of what it returns where that has a docment."
    for arg, default in parameters(function):
        kind = ast.unparse(arg.annotation) if arg.annotation else ""
        yield arg.arg, kind, ast.unparse(default) if default else "", comments.get(arg.end_lineno or 0, "")
    for stars, rest in (("*", function.args.vararg), ("**", function.args.kwarg)):
        if rest and (words := comments.get(rest.end_lineno or 0)):
            yield stars + rest.arg, ast.unparse(rest.annotation) if rest.annotation else "", "", words
    end = function.returns and function.returns.end_lineno
    if function.returns and end and end in comments:
        yield "→", ast.unparse(function.returns), "", comments[end]


def field_rows(cls: ast.ClassDef, comments: Comments, lines: list[str]) -> Iterable[tuple[str, str, str, str]]:
    "Rows of a class's annotated fields."
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_":
            value = ast.unparse(node.value) if node.value else ""
            yield node.target.id, ast.unparse(node.annotation), value, words_at(node, comments, lines)


def words_at(node: ast.stmt, comments: Comments, lines: list[str]) -> str:
    "The comment behind a statement, or else the comment lines above it."
    behind = comments.get(node.end_lineno or node.lineno) or comments.get(node.lineno)
    if behind:
        return behind
    above = []
    number = node.lineno - 1
    while number in comments and lines[number - 1].lstrip().startswith("#") and not comments[number].startswith("%%"):
        above.insert(0, comments[number])
        number -= 1
    return " ".join(above)


def described(node: Definition | ast.ClassDef) -> str:
    "A docstring as Markdown, with its examples as code."
    text = ast.get_docstring(node) or ""
    return re.sub(r"^>>> (?:.+\n?)+", lambda example: fenced(example[0].rstrip("\n"), "pycon") + "\n", text, flags=re.M)


def function_parts(function: Definition, name: str, place: str, level: int, comments: Comments) -> list[str]:
    "Heading, signature, words and parameters of a function or method."
    head = f"{'#' * level} {name} {{#{place}}}"
    return [
        head,
        fenced(signature(function, name), "python"),
        described(function),
        table(parameter_rows(function, comments)),
    ]


def class_parts(cls: ast.ClassDef, place: str, comments: Comments, lines: list[str]) -> list[str]:
    "Heading, bases, words, fields and methods of a class."
    bases = ", ".join(ast.unparse(base) for base in cls.bases)
    decorators = [f"@{ast.unparse(decorator)}\n" for decorator in cls.decorator_list]
    head = "".join(decorators) + f"class {cls.name}" + (f"({bases})" if bases else "")
    parts = [f"### {cls.name} {{#{place}}}", fenced(head, "python"), described(cls)]
    parts.append(table(field_rows(cls, comments, lines)))
    for method in cls.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            parts += [fenced(signature(method, cls.name), "python"), described(method)]
            parts.append(table(parameter_rows(method, comments)))
    for method in public_methods(cls):
        parts += function_parts(method, f"{cls.name}.{method.name}", f"{place}.{method.name}", 4, comments)
    return parts


def value_parts(node: ast.stmt, name: str, place: str, words: str) -> list[str]:
    "Heading, value and words of a constant."
    text = ast.unparse(node)
    if len(text) > LONG_VALUE:
        text = text[:LONG_VALUE] + " …"
    return [f"### {name} {{#{place}}}", fenced(text, "python"), words]


def definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    "Name → the statement at a module's top level that defines it, the last where there are several."
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, Definition | ast.ClassDef):
            found[node.name] = node
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    found.setdefault(part.id, node)
    return found


def module_parts(module: str, path: Path) -> list[str]:
    "The section of a module: its sentence, where it is told, and its public names in the order of `__all__`."
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    comments = comments_of(source)
    lines = source.splitlines()
    parts = [f"## {module} {{#{module}}}", ast.get_docstring(tree) or ""]
    told = re.search(r"File to edit: \.\./\.\./(nbs/\S+)\.", source)
    if told:
        parts.append(f"Told, shown and tested in [{told[1].removeprefix('nbs/')}](../{told[1]}).")
    nodes = definitions(tree)
    for name in exported(tree):
        node = nodes.get(name)
        place = f"{module}.{name}"
        if isinstance(node, Definition):
            parts += function_parts(node, name, place, 3, comments)
        elif isinstance(node, ast.ClassDef):
            parts += class_parts(node, place, comments, lines)
        elif node is not None:
            parts += value_parts(node, name, place, words_at(node, comments, lines))
    return parts


def api_page(chapter: str, modules: Mapping[str, Path]) -> Page:
    "The reference of a chapter, modules in the given order."
    parts = [f"# fakeface.{chapter}"]
    for module, path in modules.items():
        parts += module_parts(module, path)
    return Page("", f"api/{chapter}.md", f"fakeface.{chapter}", "\n\n".join(part for part in parts if part))
