"""Make the reference from the source's docstrings: one page a room of `src/comedian`, and one of the commands.

python examples/guides/make_reference.py
"""

import argparse
import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import comedian
from comedian.cli.main import COMMANDS, build_command_parser

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src" / "comedian"
OUTPUT = HERE / "reference"
NOTICE = "<!-- made by `python examples/guides/make_reference.py`: edit the docstrings, not this page -->\n"

# page -> what it holds, in the order of the index
ROOMS = {
    "models": "configuration, models, losses, processor, pipeline, stitching and suppression",
    "video": "decoding, live sources, clips, frame stores, audio tracks",
    "soccernet": "folder layout, labels, annotations, splits, the `datasets` builder, downloads, `prepare`",
    "events": "events of any data set, their file formats, your videos, checks",
    "inference": "a video to spots",
    "features": "feature banks: extraction, import, reduction",
    "samples": "what training draws: windows, clips, targets, augmentation",
    "evaluation": "spots to scores",
    "training": "stages, their settings and trainers, recipes",
    "conversion": "checkpoints to models, models to graphs",
    "hub": "what goes to the Hub",
    "report": "results one opens: self-contained HTML pages",
}
# the second is the page of a Space
SKIPPED = ("__init__.py", "app.py")
PACKAGE_PAGE, COMMANDS_PAGE = "package", "commands"

Function = ast.FunctionDef | ast.AsyncFunctionDef
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
ENTRY = re.compile(r"(\w[\w, ]*?)( \(.*?\))?: (.*)")


def main() -> None:
    """Write the pages."""
    OUTPUT.mkdir(exist_ok=True)
    for name, text in pages().items():
        (OUTPUT / name).write_text(text)


def pages() -> dict[str, str]:
    """Return file name -> Markdown of every page."""
    made = {f"{COMMANDS_PAGE}.md": commands_page(), f"{PACKAGE_PAGE}.md": room_page(PACKAGE_PAGE, SOURCE.glob("*.py"))}
    made |= {f"{room}.md": room_page(room, (SOURCE / room).rglob("*.py")) for room in ROOMS}
    return {name: NOTICE + text for name, text in (made | {"README.md": index_page()}).items()}


def index_page() -> str:
    """The list of pages, and where each name that `comedian` itself offers is told of."""
    lines = ["# Reference", "", "Every class and function without a leading underscore that has a docstring.", ""]
    lines += [f"- [{room}]({room}.md): {about}" for room, about in ROOMS.items()]
    lines += [f"- [{PACKAGE_PAGE}]({PACKAGE_PAGE}.md): errors, files, the Hub's errors"]
    lines += [
        f"- [{COMMANDS_PAGE}]({COMMANDS_PAGE}.md): `comedian` on the command line",
        "",
        "`from comedian import`:",
        "",
    ]
    for name, module in sorted(comedian._EXPORTS.items()):
        room = module.split(".")[1]
        page = room if room in ROOMS else PACKAGE_PAGE
        lines.append(f"- [`{name}`]({page}.md#{name.lower()})")
    return "\n".join(lines) + "\n"


def room_page(room: str, modules: Iterable[Path]) -> str:
    """The page of some modules: first those of the names that `comedian` itself offers."""
    paths = sorted((path for path in modules if path.name not in SKIPPED), key=lambda path: (not offers(path), path))
    parts = [part for path in paths for part in module_parts(path)]
    return "\n\n".join([f"# {room}", *parts]) + "\n"


def offers(path: Path) -> bool:
    """Whether a module holds any of these names."""
    return any(map(is_offered, documented(ast.parse(path.read_text()).body)))


def is_offered(node: ast.ClassDef | Function) -> bool:
    """Whether `from comedian import` takes it."""
    return node.name in comedian.__all__


def module_parts(path: Path) -> Iterator[str]:
    """Yield the Markdown of a module: its docstring, its classes and functions; names that `comedian` offers first."""
    text = path.read_text()
    tree = ast.parse(text)
    name = ".".join(("comedian", *path.relative_to(SOURCE).with_suffix("").parts))
    yield f"## {name}"
    yield to_markdown(ast.get_docstring(tree) or "")
    for node in sorted(documented(tree.body), key=lambda node: not is_offered(node)):
        yield f"### {node.name}"
        yield code(class_signature(node, text) if isinstance(node, ast.ClassDef) else signature(node, text))
        yield to_markdown(ast.get_docstring(node))
        for member in documented(node.body) if isinstance(node, ast.ClassDef) else ():
            if isinstance(member, Function):
                yield f"#### {node.name}.{member.name}"
                yield code(signature(member, text))
                yield to_markdown(ast.get_docstring(member))


def documented(body: Iterable[ast.stmt]) -> list[ast.ClassDef | Function]:
    """The public classes and functions that have a docstring; `__call__` is public."""
    nodes = (node for node in body if isinstance(node, (ast.ClassDef, *Function.__args__)))
    return [
        node for node in nodes if (node.name[0] != "_" or node.name == "__call__") and ast.get_docstring(node, False)
    ]


def signature(node: Function, text: str) -> str:
    """A function's head as it stands in the source, with its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    # the docstring begins the body
    lines = text.splitlines()[first - 1 : node.body[0].lineno - 1]
    return inspect.cleandoc("\n".join(lines)).removesuffix(":")


def class_signature(node: ast.ClassDef, text: str) -> str:
    """A class's name and bases, and how it is made: its constructor's arguments, or its fields and their defaults."""

    def source(part: ast.expr) -> str:
        return " ".join(ast.get_source_segment(text, part).split())

    bases = ", ".join(source(base) for base in node.bases)
    lines = [f"class {node.name}({bases})" if bases else f"class {node.name}"]
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            head = text.splitlines()[member.lineno - 1 : member.body[0].lineno - 1]
            lines += [line for line in head if line.strip()]
            lines[-1] = lines[-1].removesuffix(":")
        elif isinstance(member, ast.AnnAssign) and member.target.id[0] != "_":
            default = field_default(member.value)
            end = "" if default is None else f" = {source(default)}"
            lines.append(f"    {member.target.id}: {source(member.annotation)}{end}")
    return "\n".join(lines)


def field_default(value: ast.expr | None) -> ast.expr | None:
    """The default of a dataclass's field; what `field(...)` makes of `default` or `default_factory`."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field":
        named = {keyword.arg: keyword.value for keyword in value.keywords}
        return named.get("default", named.get("default_factory"))
    return value


def commands_page() -> str:
    """The page of the commands: what `--help` says."""
    parts = ["# commands"]
    for name, about in COMMANDS.items():
        parser = build_command_parser(name)
        parts += [f"## comedian {name}", f"*{about}*", *argument_parts(parser)]
    return "\n\n".join(parts) + "\n"


def argument_parts(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a command's description, its arguments by group, its example, and a section for each sub-command."""
    yield escape(inspect.cleandoc(parser.description))
    nested = (argparse._SubParsersAction, argparse._HelpAction)
    for group in parser._action_groups:
        lines = [f"- {argument_line(each, parser)}" for each in group._group_actions if not isinstance(each, nested)]
        if lines:
            yield f"**{group.title}**\n\n" + "\n".join(lines)
    yield "**example**\n\n```bash\n" + inspect.cleandoc(parser.epilog.partition("\n")[2]) + "\n```"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub_parser in action.choices.values():
                yield f"### {sub_parser.prog}"
                yield from argument_parts(sub_parser)


def argument_line(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """One argument: its name, what follows it and its help."""
    values = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else action.dest.upper())
    values = " ".join(values) if isinstance(values, tuple) else values
    if action.nargs in ("+", "*"):
        values += " ..."
    if action.option_strings:
        values = " ".join(action.option_strings) + ("" if action.nargs == 0 else f" {values}")
    needed = " (required)" if action.option_strings and action.required else ""
    return f"`{values}`{needed}: {escape(parser._get_formatter()._expand_help(action))}"


def code(text: str) -> str:
    """A Python block."""
    return f"```python\n{text}\n```"


def to_markdown(docstring: str) -> str:
    """Turn a docstring's sections into lists; everything else is Markdown already."""
    lines, section = [], None
    for line in inspect.cleandoc(docstring).splitlines():
        if found := SECTION.fullmatch(line):
            section = found[1]
            lines += [f"**{section}**", ""]
        elif section is None or not line.startswith("    "):
            section = section if not line else None
            lines.append(line if line.startswith("    ") else escape(line))
        elif section in ("Returns", "Yields") or line.startswith("        "):
            # further lines of an entry, or plain words
            lines.append("  " * (section not in ("Returns", "Yields")) + escape(line.strip()))
        elif found := ENTRY.fullmatch(line.strip()):
            lines.append(f"- `{found[1]}`{escape(found[2] or '')}: {escape(found[3])}")
        else:
            lines.append(escape(line.strip()))
    return "\n".join(lines)


def escape(text: str) -> str:
    """Keep `<name>` from being taken for HTML, turn [`name`] into `name` and a line's `::` into `:`."""
    text = text.removesuffix(":") if text.endswith("::") else text
    parts = re.sub(r"\[(`[^`]*`)\](?!\()", r"\1", text).split("`")
    return "`".join(part if index % 2 else part.replace("<", "\\<") for index, part in enumerate(parts))


if __name__ == "__main__":
    main()
