"""The rules of language that a program can check: usual expressions, headings that name a task or a thing of the field."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

from comedian.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "examples" / "guides"
PAGES = [ROOT / "README.md", *(page for page in sorted(GUIDES.rglob("*.md")) if page.parent.name != "reference")]
CARDS = [
    *sorted(ROOT.glob("hub_configs/*/README.md")),
    ROOT / "examples" / "demo" / "model" / "README.md",
    ROOT / "src" / "comedian" / "hub" / "model_card_template.md",
]
# commands whose `--help` follows the rules; add a command when its texts are rewritten
HELP = ("average", "clips", "convert", "evaluate", "export", "label", "train", "tune")

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


@pytest.mark.parametrize("command", HELP)
def test_help_uses_the_usual_expressions(command):
    module = importlib.import_module(f"comedian.cli.commands.{command.replace('-', '_')}")
    parser = argparse.ArgumentParser(description=module.__doc__)
    module.add_arguments(parser)
    # `%(default)s` and the like are filled in
    assert findings(prose_of(f"{COMMANDS[command]}\n{parser.format_help()}")) == []


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
