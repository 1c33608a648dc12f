"""A repository of the stand-in of the Hub: its commits, and how the Hub lists and hashes files."""

import hashlib
import uuid
from dataclasses import dataclass, field

LFS_SUFFIXES = (".bin", ".safetensors", ".parquet", ".npy", ".mkv", ".mp4", ".zip")


@dataclass
class Repo:
    """One repository; a commit is a dict path -> content."""

    repo_id: str
    repo_type: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make `files` all that `branch` holds and return the commit."""
        sha = hashlib.sha1(uuid.uuid4().bytes).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


def is_lfs(path: str, content: bytes) -> bool:
    return path.endswith(LFS_SUFFIXES) or b"\0" in content[:512]


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if is_lfs(path, content):
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return entry


def tree_entries(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict]:
    """Return the entries below `folder`; none where there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    entries = {}
    for path, content in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            parent = prefix + "/".join(parts[:depth])
            entries.setdefault(
                parent, {"type": "directory", "path": parent, "size": 0, "oid": git_hash(parent.encode())}
            )
        if recursive or len(parts) == 1:
            entries[path] = file_entry(path, content)
    return list(entries.values())
