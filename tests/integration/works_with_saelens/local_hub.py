"""A stand-in for the model hub on this machine: what uploading and downloading SAEs asks of it, over real HTTP."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Repositories in memory: `files[repo][path]` is a file's content."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """The few calls of the hub's API that upload_saes_to_huggingface and from_pretrained make."""

    server: Hub

    def log_message(self, format, *args):
        pass

    def answer(self, status, body=b"", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def missing(self, what):
        self.answer(404, {"error": f"{what} not found"}, **{"X-Error-Code": what, "X-Error-Message": f"{what} not found"})

    def do_GET(self):
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", self.path.split("?")[0])
        if api:
            repo = api[1]
            if repo not in self.server.files:
                return self.missing("RepoNotFound")
            return self.answer(
                200, {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": f} for f in self.server.files[repo]]}
            )
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path.split("?")[0])
        if not found or found[1] not in self.server.files:
            return self.missing("RepoNotFound")
        content = self.server.files[found[1]].get(found[2])
        if content is None:
            return self.missing("EntryNotFound")
        etag = hashlib.sha256(content).hexdigest()
        return self.answer(200, content, ETag=f'"{etag}"', **{"X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            self.server.files.setdefault(repo, {})
            return self.answer(200, {"url": f"{self.server.url}/{repo}", "id": repo})
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            answers = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in paths]
            return self.answer(200, {"files": answers})
        commit = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", self.path.split("?")[0])
        if commit:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[commit[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self.answer(200, {"commitUrl": f"{self.server.url}/{commit[1]}/commit/{COMMIT}", "commitOid": COMMIT})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        return self.answer(404, {"error": self.path})


@contextmanager
def local_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine, until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
