"""Tables with any common delimiter and encoding, headers in any spelling, decimal commas.

A table is read cell by cell as text. Ambiguous tables are rejected: a row with more cells than the
header, two columns for one field and a comma that may separate thousands.
"""

import codecs
import csv
import datetime
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from comedian.errors import InputError

# an hour of play has a few kB of events; a zip of a few kB may unpack to terabytes
MAX_WORKBOOK_BYTES = 64 * 2**20
DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?\r?\n?', re.IGNORECASE)
# appended row, to detect a quotation mark that is not closed
_END = "end of the table"
_DECIMAL_COMMA = re.compile(r"[0-9:.]*[0-9],[0-9]+")

# field -> its aliases, spelled as by `_key`; the name of the field itself has priority
ALIASES: Mapping[str, Sequence[str]] = {
    "video": ("video", "file", "filename", "file_name", "video_file", "video_name", "video_path", "path"),
    "label": ("label", "event", "action", "class", "tag", "category", "event_type"),
    "time_s": (
        "time_s",
        "time",
        "timestamp",
        "timestamp_s",
        "start",
        "start_s",
        "start_time",
        "start_time_s",
        "time_sec",
        "time_seconds",
        "time_in_seconds",
    ),
    "time_ms": (
        "time_ms",
        "timestamp_ms",
        "start_ms",
        "start_time_ms",
        "position_ms",
        "time_milliseconds",
        "time_in_milliseconds",
        "milliseconds",
    ),
    "hour": ("hour", "hours"),
    "minute": ("minute", "minutes", "min"),
    "second": ("second", "seconds", "sec"),
}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: names of the columns, unchanged.
        rows: line of the file, from 1, and cells.
        delimiter: between cells.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    delimiter: str

    def columns(self, fields: Sequence[str]) -> dict[str, int]:
        """Return field -> index of its column, for the fields that have one; spelling and case of headers are ignored.

        Args:
            fields: names; those in `ALIASES` also match other headers.

        Raises:
            ValueError: two columns match the same field.
        """
        keys = [_key(name) for name in self.header]
        found = {}
        for field in fields:
            columns = [index for index, key in enumerate(keys) if key == field]
            if not columns:
                columns = [index for index, key in enumerate(keys) if key in ALIASES.get(field, ())]
            if len(columns) > 1:
                names = " and ".join(f"`{self.header[index]}`" for index in columns)
                raise ValueError(f"the columns {names} may both be `{field}`; rename or delete one")
            if columns:
                found[field] = columns[0]
        return found

    def cells(self, columns: Mapping[str, int]) -> Iterator[tuple[int, dict[str, str] | str]]:
        """Yield the line of each row and its cells, field -> text, or a description of what is wrong with the row."""
        for line, row in self.rows:
            if not any(row):
                continue
            # the index column of pandas is first and has no name; other columns without a name must be empty
            named = [not index or bool(name) for index, name in enumerate(self.header)]
            surplus = [
                cell
                for cell, is_named in zip_longest(row, named[: len(row)], fillvalue=False)
                if cell and not is_named
            ]
            if surplus:
                yield (
                    line,
                    f"{surplus[0]!r} is beyond the last column, of which there are {len(self.header)}; put texts with "
                    f"{self.delimiter!r} between quotes, and write numbers with a decimal point",
                )
            else:
                yield line, {field: row[index] if index < len(row) else "" for field, index in columns.items()}

    def number(self, text: str) -> str:
        """Return a number or time with a decimal point for one with a decimal comma.

        Raises:
            ValueError: the comma may separate thousands.
        """
        if not _DECIMAL_COMMA.fullmatch(text):
            return text
        if "." in text or (self.delimiter == "," and ":" not in text and re.search(r",[0-9]{3}$", text)):
            raise ValueError(f"{text!r} has a comma that may separate decimals or thousands; write a decimal point")
        return text.replace(",", ".")


def read_table(path: str | Path, fields: Sequence[str]) -> Table:
    """Read a table with one header line: text with commas, semicolons, tabs or bars between cells, or an Excel workbook.

    Text is UTF-8, UTF-16 or Windows-1252.

    Args:
        path: the file. A first line such as `sep=;`, which Excel writes, says the delimiter; else it is the one by
            which the header has most of `fields`.
        fields: names to look for in the header.

    Raises:
        InputError: the file cannot be read or is not such a table.
    """
    if Path(path).suffix.lower() == ".xlsx":
        return _read_workbook(path, fields)
    text, skipped, delimiter = _decode(path), 0, None
    if separator := _SEPARATOR_LINE.match(text):
        text, skipped, delimiter = text[separator.end() :], 1, separator[1]
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda delimiter: _num_found_with(delimiter, text, fields))
    reader = csv.reader(io.StringIO(f"{text}\n{_END}", newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(skipped + reader.line_num, tuple(cell.strip() for cell in row)) for row in reader]
    except csv.Error as error:
        raise InputError(f"`{path}`, line {skipped + max(reader.line_num, 1)}: {error}") from None
    if rows.pop()[1] != (_END,):
        line = rows[-1][0] + 1 if rows else 1
        raise InputError(f"`{path}`, line {line}: a quotation mark is not closed; close it")
    header = rows[0][1] if rows else ()
    return Table(header, tuple(rows[1:]), delimiter)


def _read_workbook(path: str | Path, fields: Sequence[str]) -> Table:
    """Read the sheet of an Excel workbook that has the most of `fields` in its first row; cells as they are displayed."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"`{path}` needs the package `openpyxl`: `pip install openpyxl`, or save it as CSV"
        ) from error
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_WORKBOOK_BYTES:
                raise InputError(f"`{path}` unpacks to more than {MAX_WORKBOOK_BYTES >> 20} MiB; save it as CSV")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        tables = {sheet.title: _sheet(sheet) for sheet in book.worksheets}
    except InputError:
        raise
    except Exception as error:  # a broken workbook can make the reader raise any exception
        raise InputError(f"`{path}` cannot be read as an Excel workbook: {error}; save it as CSV") from error
    counts = {title: _num_found(table, fields) for title, table in tables.items()}
    best = [title for title, count in counts.items() if count == max(counts.values())]
    if len(best) > 1 and counts[best[0]]:
        raise InputError(f"`{path}` has events in the sheets {', '.join(best)}; keep one of them")
    return tables[best[0]] if best else Table((), (), ";")


def _sheet(sheet) -> Table:
    rows = [tuple(map(_displayed, row)) for row in sheet.iter_rows()]
    return Table(rows[0] if rows else (), tuple(enumerate(rows[1:], 2)), ";")


def _displayed(cell) -> str:
    """Return a cell as text: times as the sheet shows them, so that 12:34 is read as in a CSV export."""
    value = cell.value
    if isinstance(value, datetime.time | datetime.timedelta):
        if isinstance(value, datetime.time):
            value = datetime.timedelta(
                hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
            )
        minutes, seconds = divmod(round(value.total_seconds(), 3), 60)
        shown = cell.number_format.lower()
        hours_and_minutes = f"{minutes // 60:.0f}:{minutes % 60:02.0f}"
        if "h" not in shown:
            return f"{minutes:.0f}:{seconds:06.3f}"
        return hours_and_minutes if "s" not in shown and not seconds else f"{hours_and_minutes}:{seconds:06.3f}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value).strip()


def _num_found(table: Table, fields: Sequence[str]) -> int:
    """Count the fields that a table has; all of them if two columns match the same field, which is reported later."""
    try:
        return len(table.columns(fields))
    except ValueError:
        return len(fields)


def _num_found_with(delimiter: str, text: str, fields: Sequence[str]) -> int:
    try:
        header = next(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return 0
    return _num_found(Table(tuple(header), (), delimiter), fields)


def _key(name: str) -> str:
    """Return a header in the spelling of `ALIASES`: `Time (ms)` is `time_ms`."""
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def _decode(path: str | Path) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null byte in the name
        raise InputError(f"{str(path)!r} is not a valid file name: {error}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"`{path}` is not text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8")
