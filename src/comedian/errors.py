"""The exception for invalid input that a user can fix, and the system errors that a user can fix."""

import difflib
import errno
import re
from collections.abc import Iterable

# a full disk, a quota, a limit, a folder that may not be written
STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
# a file where a folder is expected or the reverse, or a name that the file system does not take
NAME_ERRORS = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG}

# What is quoted from a file may be of any length; a line that is read begins with the place and ends with the advice.
MAX_HEAD, MAX_TAIL = 1500, 300
# more names than these do not help in a message
MAX_KNOWN = 30

# A position of a day or more is a wrong unit, and without a bound one would overflow the tables' integers.
MAX_POSITION_MS = 24 * 60 * 60 * 1000
# What breaks a line or gives orders to a terminal; no label has it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(ValueError):
    """Bad input: one line that names the file or argument, what was found and how to fix it.

    The command line prints the line alone and exits with code 2. What is quoted from a file can neither break the line nor
    give orders to the terminal: line ends become spaces, other characters that cannot be printed their escapes, and the
    middle of a line of more than some screens is omitted.
    """

    def __init__(self, message: str):
        line = " ".join(part.strip() for part in message.splitlines())
        if len(line) > MAX_HEAD + MAX_TAIL:
            line = f"{line[:MAX_HEAD]} ... {line[-MAX_TAIL:]}"
        super().__init__(printable(line))


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message on an unknown name: the one that was probably meant, or all that are known."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return (
        f"known: {', '.join(known)}" if len(known) <= MAX_KNOWN else f"see the documentation of its {len(known)} names"
    )


def printable(text: str) -> str:
    """Return a text with escapes for the characters that cannot be printed, such as those that give orders to a
    terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
