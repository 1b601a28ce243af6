"""A Hugging Face Hub on 127.0.0.1 that models are put on and fetched from: what `huggingface_hub` asks of one."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from hub_http import HubHandler, serving


@dataclass(kw_only=True)
class ModelHub:
    """A running hub.

    Attributes:
        url: what HF_ENDPOINT is set to.
        tokens: token -> account.
        models: `owner/name` -> path -> content.
        private: names that only their owner may see.
        commits: (name, message, paths) of each commit.
        large: contents that came through LFS, by SHA-256.
        refusing: part of a path -> status that requests with it are answered with.
    """

    url: str
    tokens: dict[str, str]
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    commits: list[tuple[str, str, list[str]]] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)
    refusing: dict[str, int] = field(default_factory=dict)

    def revision(self, name: str) -> str:
        """The commit that a model is at."""
        mine = [commit for commit in self.commits if commit[0] == name]
        return hashlib.sha1(repr((name, mine)).encode()).hexdigest()


@contextmanager
def serving_models(tokens: Mapping[str, str]) -> Iterator[ModelHub]:
    """Serve a hub without models."""
    with serving(_Handler, lambda url: ModelHub(url=url, tokens=dict(tokens))) as hub:
        yield hub


class _Handler(HubHandler):
    hub: ModelHub

    def answer(self, path: str, body: bytes) -> None:
        for part, status in self.hub.refusing.items():
            if part in path:
                return self.refuse(status, "not today")
        account = self.hub.tokens.get(self.token(), "")
        if self.token() and not account:
            return self.refuse(401, "Invalid credentials in Authorization header")
        if path.startswith("/lfs/"):
            return self._store(path.rpartition("/")[2], body)
        if path == "/api/validate-yaml":
            return self.send_json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body), account)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        parts = path.strip("/").removeprefix("api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        owner = parts[0] == account
        if name not in self.hub.models or (name in self.hub.private and not owner):
            return self.refuse(401 if not account else 404, "Repository not found", "RepoNotFound")
        if rest[:1] in (["preupload"], ["commit"]) and not owner:
            return self.refuse(403, f"{account or 'nobody'} may not write to {name}")
        if rest[:1] == ["preupload"]:
            return self._preupload(json.loads(body))
        if rest[:1] == ["commit"]:
            return self._commit(name, body)
        if rest[:1] in (["revision"], ["resolve"]) and rest[1] not in ("main", self.hub.revision(name)):
            return self.refuse(404, "Invalid rev id", "RevisionNotFound")
        if rest[:1] == ["resolve"]:
            return self._file(name, "/".join(rest[2:]))
        return self.send_json(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": self.hub.revision(name),
                "private": name in self.hub.private,
                "siblings": [{"rfilename": file} for file in sorted(self.hub.models[name])],
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
        )

    def _create(self, asked: dict[str, str], account: str) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not account:
            return self.refuse(401, "Invalid username or password.")
        if asked["organization"] != account:
            return self.refuse(403, f"You don't have the rights to create a model under {asked['organization']}")
        if name in self.hub.models:
            return self.refuse(409, "You already created this model repo")
        self.hub.models[name] = {}
        if asked.get("visibility") == "private":
            self.hub.private.add(name)
        return self.send_json({"url": f"{self.hub.url}/{name}", "name": name, "id": "1"})

    def _preupload(self, asked: dict[str, list[dict[str, str]]]) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        self.send_json({"files": files})

    def _batch(self, asked: dict[str, list[dict[str, str]]]) -> None:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}", "header": {}}}}
            for item in asked["objects"]
        ]
        self.send_json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "other content than announced")
        self.hub.large[oid] = body
        return self.send(200, b"", {})

    def _commit(self, name: str, body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        message, paths = "", []
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                continue
            paths.append(value["path"])
            if line["key"] == "file":
                self.hub.models[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.models[name][value["path"]] = self.hub.large[value["oid"]]
        self.hub.commits.append((name, message, sorted(paths)))
        revision = self.hub.revision(name)
        self.send_json(
            {"success": True, "commitUrl": f"{self.hub.url}/{name}/commit/{revision}", "commitOid": revision}
        )

    def _file(self, name: str, path: str) -> None:
        content = self.hub.models[name].get(path)
        if content is None:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.hub.revision(name)}
        return self.send(200, content, headers)
