"""The JSON files of a folder or a zip in SoccerNet's layout."""

import lzma
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

from comedian.errors import InputError
from comedian.files import comparable, parse_json, read_json, walk

# A half has some 100 kB of labels; a zip of a few kB may hold terabytes.
MAX_MEMBER_BYTES = 64 * 2**20


class JsonTree:
    """The JSON files of a folder or a zip, read in place.

    Attributes:
        root: the folder or zip.
        folders: folder relative to the root, with forward slashes and in the form in which names are compared -> names of
            its JSON files.
    """

    def __init__(self, root: Path):
        self.root = root
        self._archive = None
        if root.is_dir():
            members = [str((folder / name).relative_to(root)) for folder, names in walk(root) for name in names]
        elif zipfile.is_zipfile(root):
            try:
                self._archive = zipfile.ZipFile(root)
            except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
                raise InputError(f"`{root}` cannot be read as a zip: {error}; make it again") from error
            members = self._archive.namelist()
        else:
            found = "is neither a folder nor a zip" if root.exists() else "does not exist"
            raise InputError(f"`{root}` {found}; give a folder or a zip in SoccerNet's layout")
        self._members: dict[PurePosixPath, str] = {}
        for member in sorted(members):
            path = PurePosixPath(comparable(Path(member).as_posix()))
            # A zip made on a Mac holds a hidden twin of each file.
            if path.suffix != ".json" or path.name.startswith("."):
                continue
            if path in self._members:
                raise InputError(f"`{root}` holds `{path}` twice; leave one of them")
            self._members[path] = member
        self.folders: dict[str, list[str]] = {}
        for path in self._members:
            self.folders.setdefault(path.parent.as_posix(), []).append(path.name)

    def read(self, path: PurePosixPath) -> Any:
        """Return the content of a JSON file."""
        if self._archive is None:
            return read_json(self.root / self._members[path])
        try:
            with self._archive.open(self._members[path]) as member:
                content = member.read(MAX_MEMBER_BYTES + 1)
            text = content.decode("utf-8-sig")
        # RuntimeError: encrypted
        except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise InputError(f"`{self.root}/{path}` cannot be read as JSON: {error}") from error
        if len(content) > MAX_MEMBER_BYTES:
            raise InputError(
                f"`{self.root}/{path}` unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB; give a file of a match's events"
            )
        return parse_json(text, f"{self.root}/{path}")
