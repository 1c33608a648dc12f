"""XML files: read without what a document may define, of bounded size and depth; written whole.

A document type, in which entities are defined, is refused: an entity may stand for another file, an address, or any amount
of text.
"""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, TreeBuilder, indent
from xml.parsers import expat

from comedian.errors import InputError
from comedian.files import MAX_DEPTH, atomic_path

# an hour of play has some 100 kB of events
MAX_XML_BYTES = 64 * 2**20
# what XML 1.0 has no way to write
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

__all__ = ["Element", "SubElement", "child_text", "read_xml", "write_xml"]


def read_xml(path: str | Path) -> Element:
    """Read an XML file and return its outermost element; names of elements are without namespaces' addresses.

    Raises:
        InputError: the file cannot be read, is not XML, has a document type, is too large or is nested too deep.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{str(path)!r} is no name of a file: {error}") from error
    if len(content) > MAX_XML_BYTES:
        raise InputError(f"`{path}` has more than {MAX_XML_BYTES >> 20} MiB; give a file of events")
    builder, depth = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"`{path}` is nested more than {MAX_DEPTH} deep; give a file of events")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse_document_type(*_) -> None:
        raise InputError(f"`{path}` has a document type (`<!DOCTYPE`), which is not read; delete it")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse_document_type
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise InputError(f"`{path}` is not valid XML: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that does not exist, or none of text
        if isinstance(error, InputError):
            raise
        raise InputError(f"`{path}` is not valid XML: {error}") from None
    return builder.close()


def write_xml(path: str | Path, root: Element) -> None:
    """Write XML as UTF-8, indented, atomically.

    Raises:
        InputError: a text has a character that XML cannot hold.
    """
    for element in root.iter():
        for text in (element.text or "", *element.attrib.values()):
            if found := _FORBIDDEN.search(text):
                raise InputError(f"{text[:60]!r} has the character {found[0]!r}, which XML cannot hold; delete it")
    indent(root)
    with atomic_path(path) as partial, partial.open("wb") as file:
        ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
        file.write(b"\n")


def child_text(element: Element, name: str) -> str:
    """Return the text of a child, without spaces around it; empty where there is none."""
    return (element.findtext(name) or "").strip()
