"""The rules of language that a program can check: usual expressions, headings that name a task or a thing of the field."""

import argparse
import ast
import re
import shlex
from pathlib import Path

import pytest

from comedian.cli.main import COMMANDS, build_command_parser

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "examples" / "guides"
PAGES = [ROOT / "README.md", *(page for page in sorted(GUIDES.rglob("*.md")) if page.parent.name != "reference")]
CARDS = [
    *sorted(ROOT.glob("hub_configs/*/README.md")),
    ROOT / "examples" / "demo" / "model" / "README.md",
    ROOT / "src" / "comedian" / "hub" / "model_card_template.md",
]
SOURCE = ROOT / "src" / "comedian"
MODULES = sorted(SOURCE.rglob("*.py"))

# an expression that surprises a reader of technical English -> the usual one
REPLACE = {
    r"\b(that|which|what|they) cannot be(?=[.,;:)\n])": "invalid; an invalid combination of",
    r"\bis (no|none of) (file|folder|model|video|record|name|recipe)\b": "is not a file; not found; does not exist",
    r"\bthat (is|are) none\b": "not found; does not exist",
    r"\bfiner in time\b": "temporal precision; temporal resolution",
    r"\b(tell|tells|telling|told)\b[^.|\n]{0,40}\bapart\b": "distinguish; contrastive",
    r"\b(hear|hears|heard|hearing|listen|listens)\b": "takes the audio track as input",
    r"\btry-?out\b": "for a full training run",
    r"\b(go|goes|went|going) on\b": "continue; resume",
    r"\bgiven again\b": "when rerun",
    r"\bwhole or not at all\b": "atomically",
    r"\bfor those who\b": "for users",
    r"\bwords of (a|the) command\b": "command-line arguments",
    r"\bleft alone\b": "unchanged",
    r"\bleft out\b": "omitted",
    r"\b(is|are|was|were) told\b": "reported; printed",
    r"\bmade of\b": "computed from; consists of",
    r"\bholds? up\b": "reliability; is stable",
    r"\bcapitals stand\b": "replace names in CAPITALS with your own paths",
    r"\bown (videos|video|data|footage)\b": "your videos; custom data",
    r"\b(sure|surest|unsure)\b": "high confidence; low confidence",
    r"\b(mend|mends|mended)\b": "fix",
    r"\bnobody\b": "no one; no user",
    r"\b(model|command|page|message|card|report|log|logs|test|recipe|bank|line|score|file|encoder)s? "
    r"(tell|say|know|see|want|hear|ask|speak|think|believe)s?\b": "a verb for a program: prints, predicts, takes, needs",
}

# stems of the verbs and nouns of this field; a heading holds one of them
FIELD = (
    "action adapter audio augment average bank bound bytes check class clip code combin command compare concept "
    "confidence contribut convert correct curve data delay develop document domain download draw encod ensemble "
    "epoch error evaluat "
    "event example export extend extract feature file fine-tune finetune fit footage format frame gpu grid guide hub image "
    "index "
    "install label learning licence load match measure memory merge mirror model next option page parity part pipeline "
    "precision predict prepare publish python quantise read recipe reference reliab report result resume run sampl score "
    "see setting speed split spot stage stitch stream suppress table teacher temporal test threshold time token train "
    "transformer tubelet tune tutorial value version video watch weight window work wrong "
    "comedian"
).split()


def prose_of(text: str) -> str:
    """A page without code blocks, inline code and addresses."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)|<[^>\n]*>", " ", text)


def findings(text: str) -> list[str]:
    """One line for each expression to replace."""
    return [
        f"{found[0]!r}: write {usual!r}"
        for pattern, usual in REPLACE.items()
        for found in re.finditer(pattern, text, re.IGNORECASE)
    ]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=name_of)
def test_pages_use_the_usual_expressions(page):
    assert findings(prose_of(page.read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_headings_name_a_task_or_a_thing_of_the_field(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert [heading for heading in headings if not any(stem in heading.lower() for stem in FIELD)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_uses_the_usual_expressions(command):
    texts = (parser.format_help() for parser in parsers_of(command))
    # `%(default)s` and the like are filled in
    assert findings(prose_of("\n".join([COMMANDS[command], *texts]))) == []


def parsers_of(command: str) -> list[argparse.ArgumentParser]:
    """The parser of a command, and those of its sub-commands."""
    parser = build_command_parser(command)
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(sub_parser for action in nested for sub_parser in action.choices.values())]


ALL_PARSERS = [parser for command in COMMANDS for parser in parsers_of(command)]
each_parser = pytest.mark.parametrize("parser", ALL_PARSERS, ids=lambda parser: parser.prog)
# what `--help` of a short command may leave in argparse's group "options"
MAX_UNGROUPED = 3


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


@each_parser
def test_options_of_a_long_command_have_groups(parser):
    ungrouped = [action for action in parser._optionals._group_actions if action.dest != "help"]
    assert len(options_of(parser)) <= MAX_UNGROUPED or ungrouped == []


# a number's unit, or what it counts
UNITS = "second fps frame pixel point score share rate seed process batch events dimension head moment tubelet".split()


@each_parser
def test_help_of_a_number_has_its_unit(parser):
    numbers = [action for action in options_of(parser) if action.type in (int, float)]
    texts = {action.option_strings[0]: f"{action.help} {action.metavar}".lower() for action in numbers}
    assert [name for name, text in texts.items() if not any(unit in text for unit in UNITS)] == []


@each_parser
def test_help_of_an_option_has_its_default(parser):
    for action in options_of(parser):
        if action.nargs != 0 and action.default not in (None, ()):
            values = action.default if isinstance(action.default, list) else [action.default]
            shown = action.help.rpartition("default: ")[2]
            for value in values:
                assert (f"{value:g}" if isinstance(value, float) else str(value)) in shown, action.option_strings


@each_parser
def test_help_ends_with_an_example_that_the_command_takes(parser):
    example = parser.format_help().rpartition("example:\n")[2].splitlines()
    lines = [shlex.split(line) for line in example if line.strip().startswith(parser.prog)]
    assert lines
    for _, command, *words in lines:
        arguments, rest = build_command_parser(command).parse_known_args(words)
        # a command that trains takes fields of its recipe, too
        assert "overrides" in arguments or not rest, rest


def public_docstrings(tree: ast.Module) -> list[str]:
    """Docstrings of a module and of its public classes, functions and methods."""
    found, scopes = [ast.get_docstring(tree)], [tree]
    while scopes:
        for node in scopes.pop().body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                found.append(ast.get_docstring(node))
                scopes += [node] if isinstance(node, ast.ClassDef) else []
    return [text for text in found if text]


def error_messages(tree: ast.Module) -> list[str]:
    """The literal text in each `raise InputError(...)`, with a placeholder for each value."""
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call))
    messages = []
    for call in calls:
        if getattr(call.func, "id", None) == "InputError":
            for part in call.args:
                values = part.values if isinstance(part, ast.JoinedStr) else [part]
                messages.append("".join(v.value if isinstance(v, ast.Constant) else "VALUE" for v in values))
    return messages


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_docstrings_and_error_messages_use_the_usual_expressions(path):
    tree = ast.parse(path.read_text())
    texts = public_docstrings(tree) + error_messages(tree)
    assert {text: found for text in texts if (found := findings(prose_of(text)))} == {}


def test_an_error_message_and_a_docstring_with_another_expression_are_found():
    tree = ast.parse(
        'class Model:\n    def run(self):\n        """Hear it."""\n'
        '        raise InputError(f"`{path}` is no file; mend it")\n'
    )
    assert public_docstrings(tree) == ["Hear it."] and error_messages(tree) == ["`VALUE` is no file; mend it"]
    assert findings(public_docstrings(tree)[0]) and len(findings(error_messages(tree)[0])) == 2


@pytest.mark.parametrize(
    "text",
    [
        "a size that cannot be; give another",
        "`x` is no file",
        "# Finer in time",
        "told apart by contrast",
        "tell one-second clips apart",
        "a model that hears",
        "For more than a try-out",
        "it goes on from its last checkpoint",
        "Given again, it resumes",
        "Capitals stand for your folders",
        "Bring your own videos",
        "how sure the model is",
        "the message says",
        "the card tells what",
    ],
)
def test_other_expressions_are_found(text):
    assert findings(text)


@pytest.mark.parametrize(
    "text",
    ["a frame that cannot be decoded", "measured", "a video in its folder", "`left out` is code", "the leftmost"],
)
def test_usual_expressions_are_not_found(text):
    assert findings(prose_of(text)) == []
