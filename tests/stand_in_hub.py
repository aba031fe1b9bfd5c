"""A stand-in for the Hugging Face Hub: a server on the loopback that answers what a fetch and an upload ask."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def oid(data: bytes) -> str:
    """Return the name that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(ThreadingHTTPServer):
    """Repositories (name → path → bytes) and the paths that were fetched. Those in `forbidden` take no upload."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.fetched: list[str] = []
        self.forbidden: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None: ...

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, header in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        words = self.path.partition("?")[0].strip("/").split("/")
        api = words[:2] == ["api", "models"]
        name = "/".join(words[2:4] if api else words[:2])
        files = self.server.repositories.get(name)
        if files is None:
            return self.reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        rest = words[4:] if api else words[2:]
        if len(rest) > 1 and rest[1] not in ("main", COMMIT):
            return self.reply({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        if rest[0] == "resolve":
            data = files["/".join(rest[2:])]
            self.server.fetched.append("/".join(rest[2:]))
            return self.reply(data, ETag=f'"{oid(data)}"', X_Repo_Commit=COMMIT)
        if rest[0] == "tree":
            return self.reply(
                [{"type": "file", "path": path, "size": len(data), "oid": oid(data)} for path, data in files.items()]
            )
        self.reply({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.forbidden:
                return self.reply({"error": "Forbidden"}, 403)
            self.server.private[name] = asked.get("visibility") == "private" or asked.get("private") is True
            self.server.repositories.setdefault(name, {})
            return self.reply({"url": f"{self.server.address}/{name}", "id": name, "name": name})
        if "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.reply({"files": modes})
        if "/commit/" in self.path:
            name = "/".join(self.path.split("/")[3:5])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.address}/{name}/commit/{COMMIT}"
            return self.reply({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        self.reply({})  # the check of a card's head


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Run the hub in a thread."""
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
