"""A small local Hugging Face Hub for the real client: repositories in memory, HTTP on a loopback port.

It answers what `huggingface_hub` asks for to create, upload, list and download (regular files in the commit, others through
LFS; no Xet), with the Hub's status codes and error headers, and remembers what was asked. Contents of LFS files come from
another host name, as from the Hub's CDN.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

from hub_repository import Repo, file_entry, git_hash, is_lfs, tree_entries

USER, TOKEN = "somebody", "hf_token_of_somebody"
TIME = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Asked:
    """One request: `path` is unquoted and without the query, `authorized` whether it carried a token."""

    method: str
    path: str
    status: int
    range: str | None
    authorized: bool


class HubStandIn:
    """The server and its state.

    Attributes:
        url: what `HF_ENDPOINT` must be.
        tokens: token -> user; repositories belong to the user or organisation that their id begins with.
        repos: `(repo_type, repo_id)` -> repository.
        asked: every request, in order.
        fetched: paths of the files whose content was asked for (and given), in order.
        page_size: entries a page of a file list.
        cut: path -> bytes after which the next answer with this file's content breaks off.
        damage: paths whose next content arrives with a wrong byte.
    """

    def __init__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads, self._server.hub = True, self
        self._thread: threading.Thread | None = None
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.cdn_url = f"http://localhost:{self._server.server_port}"
        self.reset()

    def start(self) -> None:
        """Serve, unless it does."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
            )
            self._thread.start()

    def reset(self) -> None:
        self.tokens = {TOKEN: USER}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.asked: list[Asked] = []
        self.fetched: list[str] = []
        self.page_size = 1000
        self.cut: dict[str, int] = {}
        self.damage: set[str] = set()
        self.lfs: dict[str, bytes] = {}

    def add(self, repo_id: str, files=None, branch="main", *, repo_type="dataset", **access) -> Repo:
        """Make `files`, path -> content, all that a branch holds; `access` are fields of a repository made for it."""
        repo = self.repos.setdefault((repo_type, repo_id), Repo(repo_id, repo_type, **access))
        if not repo.branches:
            repo.commit({})
        repo.commit(files or {}, branch)
        return repo


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str = ""):
        self.status, self.message, self.code = status, message, code


REPO = r"(?P<repo_id>[^/]+/[^/]+)"
API = rf"/api/(?P<repo_type>model|dataset|space)s/{REPO}"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "delete"),
    ("GET", rf"{API}(/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?", "tree"),
    ("GET", rf"{API}/refs", "refs"),
    ("POST", rf"{API}/branch/(?P<branch>[^/]+)", "create_branch"),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"{API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", rf"/((?P<repo_type>dataset|space)s/)?{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_put"),
    ("GET", rf"/((?P<repo_type>dataset|space)s/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ("GET", r"/cdn/(?P<oid>\w+)/(?P<path>.+)", "cdn"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> HubStandIn:
        return self.server.hub

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        split = urlsplit(self.path)
        self.query = parse_qs(split.query)
        self.body = self._read_body()
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        method = "GET" if self.command == "HEAD" else self.command
        try:
            if self.token and self.token not in self.hub.tokens:
                raise Refused(401, "Invalid credentials in Authorization header")
            for route_method, pattern, name in ROUTES:
                if method == route_method and (match := re.fullmatch(pattern, split.path)):
                    groups = {key: value and unquote(value) for key, value in match.groupdict().items()}
                    if "repo_type" in groups:
                        groups["repo_type"] = groups["repo_type"] or "model"
                    getattr(self, name)(**groups)
                    return
            raise Refused(404, f"the stand-in has no {method} {split.path}")
        except Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            self._answer({"error": refused.message}, refused.status, headers)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

    # what the routes do

    def whoami(self) -> None:
        if not self.token:
            raise Refused(401, "Invalid username or password.")
        self._answer({"type": "user", "name": self.user, "fullname": self.user, "orgs": [], "auth": {}})

    def validate_yaml(self) -> None:
        head = re.match(r"---\n(.*?)\n---", self._json()["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError as error:
            self._answer({"errors": [{"message": str(error)}]}, 400)
        else:
            self._answer(
                {"errors": [], "warnings": [] if metadata else [{"message": "empty or missing yaml metadata"}]}
            )

    def create(self) -> None:
        asked = self._json()
        repo_type = asked.get("type") or "model"
        if not self.user:
            raise Refused(401, "Invalid username or password.")
        namespace = asked.get("organization") or self.user
        if namespace != self.user:
            raise Refused(403, f"You don't have the rights to create a {repo_type} under the namespace {namespace!r}")
        repo_id = f"{namespace}/{asked['name']}"
        url = f"{self.hub.url}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"
        if (repo_type, repo_id) in self.hub.repos:
            self._answer({"error": f"You already created this {repo_type} repo", "url": url}, 409)
            return
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.add(repo_id, repo_type=repo_type, private=private)
        self._answer({"url": url, "name": repo_id})

    def delete(self) -> None:
        asked = self._json()
        repo_id = f"{asked.get('organization') or self.user}/{asked['name']}"
        repo = self._repo(asked.get("type") or "model", repo_id, write=True)
        del self.hub.repos[repo.repo_type, repo.repo_id]
        self._answer({})

    def info(self, repo_type: str, repo_id: str, revision: str | None) -> None:
        repo = self._repo(repo_type, repo_id)
        sha = self._sha(repo, revision or "main")
        answer = {"id": repo_id, "author": repo_id.split("/")[0], "sha": sha, "private": repo.private, "tags": []}
        answer |= {"gated": "manual" if repo.gated else False, "disabled": False, "downloads": 0, "likes": 0}
        answer |= {"lastModified": TIME, "createdAt": TIME}
        self._answer(answer | {"siblings": [{"rfilename": path} for path in sorted(repo.commits[sha])]})

    def tree(self, repo_type: str, repo_id: str, revision: str, path: str | None) -> None:
        repo = self._repo(repo_type, repo_id)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = tree_entries(repo.commits[self._sha(repo, revision)], path or "", recursive)
        if path and not entries:
            raise Refused(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        start = int(self.query.get("cursor", ["0"])[0])
        stop = start + self.hub.page_size
        more = self.hub.url + urlsplit(self.path).path + f"?recursive={recursive}&cursor={stop}"
        self._answer(entries[start:stop], headers={"Link": f'<{more}>; rel="next"'} if stop < len(entries) else {})

    def refs(self, repo_type: str, repo_id: str) -> None:
        branches = self._repo(repo_type, repo_id).branches.items()
        refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in branches]
        self._answer({"branches": refs, "tags": [], "converts": [], "pullRequests": []})

    def create_branch(self, repo_type: str, repo_id: str, branch: str) -> None:
        repo = self._repo(repo_type, repo_id, write=True)
        if branch in repo.branches:
            raise Refused(409, f"Reference refs/heads/{branch} already exists")
        repo.branches[branch] = self._sha(repo, self._json().get("startingPoint", "main"))
        self._answer({})

    def preupload(self, repo_type: str, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_type, repo_id, write=True)
        present = repo.commits[self._sha(repo, revision)]
        answers = []
        for file in self._json()["files"]:
            lfs = is_lfs(file["path"], base64.b64decode(file["sample"]))
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if (content := present.get(file["path"])) is not None:
                answer["oid"] = hashlib.sha256(content).hexdigest() if lfs else git_hash(content)
            answers.append(answer)
        self._answer({"files": answers})

    def commit(self, repo_type: str, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_type, repo_id, write=True)
        parent = self._sha(repo, revision)
        files = dict(repo.commits[parent])
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header" and value.get("parentCommit", parent) != parent:
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile" and value["oid"] not in self.hub.lfs:
                raise Refused(400, f"{value['path']}: the LFS object {value['oid']} was not uploaded")
            elif key == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: content for path, content in files.items() if not path.startswith(folder)}
        sha = repo.commit(files, revision)
        self._answer({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})

    def paths_info(self, repo_type: str, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_type, repo_id)
        files = repo.commits[self._sha(repo, revision)]
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = self._json()["paths"] if is_json else parse_qs(self.body.decode())["paths"]
        folders = {entry["path"]: entry for entry in tree_entries(files, "", True) if entry["type"] == "directory"}
        known = folders | {path: file_entry(path, content) for path, content in files.items()}
        self._answer([known[path] for path in paths if path in known])

    def lfs_batch(self, repo_type: str, repo_id: str) -> None:
        self._repo(repo_type, repo_id, write=True)
        objects = [{"oid": item["oid"], "size": item["size"]} for item in self._json()["objects"]]
        for item in objects:
            if item["oid"] not in self.hub.lfs:
                item["actions"] = {"upload": {"href": f"{self.hub.cdn_url}/lfs/{item['oid']}"}}
        self._answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what its oid says")
        self.hub.lfs[oid] = self.body
        self._answer({})

    def resolve(self, repo_type: str, repo_id: str, revision: str, path: str) -> None:
        repo = self._repo(repo_type, repo_id, content=True)
        sha = self._sha(repo, revision)
        if path not in repo.commits[sha]:
            raise Refused(404, "Entry not found", "EntryNotFound")
        content = repo.commits[sha][path]
        headers = {"X-Repo-Commit": sha}
        if is_lfs(path, content):
            oid = hashlib.sha256(content).hexdigest()
            self.hub.lfs[oid] = content
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            headers["Location"] = f"{self.hub.cdn_url}/cdn/{oid}/{quote(path)}"
            self._answer({}, 302, headers)
        else:
            self._send_content(path, content, headers | {"ETag": f'"{git_hash(content)}"'})

    def cdn(self, oid: str, path: str) -> None:
        self._send_content(path, self.hub.lfs[oid], {"ETag": f'"{oid}"'})

    # who may do what

    @property
    def user(self) -> str | None:
        return self.hub.tokens.get(self.token)

    def _repo(self, repo_type: str, repo_id: str, *, write: bool = False, content: bool = False) -> Repo:
        """Return a repository that the user may see, write to, or read the contents of."""
        repo = self.hub.repos.get((repo_type, repo_id))
        is_owner = self.user == repo_id.split("/")[0]
        may_read = repo is not None and (is_owner or self.user in repo.readers)
        if repo is None or (repo.private and not may_read):
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if content and repo.gated and not may_read:
            message = (
                f"Access to {repo_type} {repo_id} is restricted. You must have access to it and be authenticated."
            )
            raise Refused(403 if self.user else 401, message, "GatedRepo")
        if write and not is_owner:
            raise Refused(403 if self.user else 401, "You don't have write access to this repository")
        return repo

    def _sha(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    # HTTP

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _json(self) -> dict:
        return json.loads(self.body)

    def _answer(self, content, status: int = 200, headers=None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send_content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        size, status, start = len(content), 200, 0
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(match[1]), min(int(match[2] or size - 1) + 1, size)
            if start >= size:
                raise Refused(416, "Requested range not satisfiable")
            status, content = 206, content[start:stop]
            headers = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        cut = None
        if self.command == "GET":
            self.hub.fetched.append(path)
            cut = self.hub.cut.pop(path, None)
            if path in self.hub.damage:
                self.hub.damage.discard(path)
                content = bytes([content[0] ^ 1]) + content[1:]
        self._send(content, status, {"Accept-Ranges": "bytes"} | headers, cut)

    def _send(self, body: bytes, status: int, headers: dict[str, str], cut: int | None = None) -> None:
        asked_range, path = self.headers.get("Range"), unquote(urlsplit(self.path).path)
        self.hub.asked.append(Asked(self.command, path, status, asked_range, bool(self.token)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None
