"""An object store for the broker of the tests: its disk, which outlives the broker.

As much of the S3 protocol as a client of the Rust crate `object_store` uses, without authentication, in memory, on a
port of the loopback interface: GET (ranges, conditions), HEAD, PUT (conditions), DELETE and lists.
"""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_NOT_FOUND = b"<Error><Code>NoSuchKey</Code></Error>"
_CONDITION = b"<Error><Code>PreconditionFailed</Code></Error>"
_TIME = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `length` where a HEAD has no body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    body: bytes
    tag: str


class ObjectStore:
    """The objects of all buckets, and a server for them on a thread of its own; use it as a context manager."""

    def __init__(self) -> None:
        self._objects: dict[str, _Stored] = {}
        self._names: list[str] = []
        self._written = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="object-store", daemon=True)

    def __enter__(self) -> ObjectStore:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10.0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def environment(self) -> dict[str, str]:
        """Returns the variables with which the crate finds this store."""
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONDITIONAL_PUT": "etag",
        }

    async def _close(self) -> None:
        self._server.close()
        for writer in self._connections:
            writer.close()  # its reader then finds the end
        own = asyncio.current_task()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not own))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                pairs = (line.partition(":") for line in lines[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                answer = self.answer(method, target, headers, body)
                length = len(answer.body) if answer.length is None else answer.length
                head = [f"HTTP/1.1 {answer.status} -", f"Content-Length: {length}"]
                head += [f"{name}: {value}" for name, value in (answer.headers or {}).items()]
                writer.write("\r\n".join([*head, "", ""]).encode() + answer.body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            self._connections.discard(writer)
            writer.close()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answers one request; 501 for what the store does not know."""
        parts = urlsplit(target)
        query = parse_qs(parts.query, keep_blank_values=True)
        name = unquote(parts.path).lstrip("/")
        if method == "GET" and "list-type" in query:
            return self._list(name, query)
        if method in ("GET", "HEAD"):
            return self._read(name, headers, whole=method == "HEAD")
        if method == "PUT" and "x-amz-copy-source" not in headers:
            return self._write(name, headers, body)
        if method == "DELETE":
            if self._objects.pop(name, None) is not None:
                self._names.remove(name)
            return Answer(204)
        return Answer(501)

    def _read(self, name: str, headers: Mapping[str, str], *, whole: bool) -> Answer:
        found = self._objects.get(name)
        if found is None:
            return Answer(404, b"" if whole else _NOT_FOUND)
        told = {"ETag": f'"{found.tag}"', "Last-Modified": formatdate(0, usegmt=True)}
        if headers.get("if-none-match") == told["ETag"]:
            return Answer(304, headers=told)
        if whole:
            return Answer(200, headers=told, length=len(found.body))
        if "range" in headers:
            first, _, last = headers["range"].removeprefix("bytes=").partition("-")
            part = found.body[int(first) : int(last) + 1 if last else None]
            told["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(found.body)}"
            return Answer(206, part, told)
        return Answer(200, found.body, told)

    def _write(self, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        found = self._objects.get(name)
        if "if-none-match" in headers and found is not None:
            return Answer(412, _CONDITION)
        if "if-match" in headers and (found is None or headers["if-match"] != f'"{found.tag}"'):
            return Answer(412, _CONDITION)
        self._written += 1
        self._objects[name] = stored = _Stored(body, f"{self._written:032x}")
        if found is None:
            insort(self._names, name)
        return Answer(200, headers={"ETag": f'"{stored.tag}"'})

    def _list(self, bucket: str, query: Mapping[str, list[str]]) -> Answer:
        root = bucket.rstrip("/") + "/"
        prefix = root + query.get("prefix", [""])[0]
        after = root + query["start-after"][0] if "start-after" in query else ""
        delimiter = query.get("delimiter", [""])[0]
        found: list[str] = []
        common: dict[str, None] = {}
        for at in range(bisect_left(self._names, max(prefix, after)), len(self._names)):
            name = self._names[at]
            if not name.startswith(prefix):
                break
            if name == after:
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                common[prefix[len(root) :] + head + delimiter] = None
            else:
                found.append(_entry(name[len(root) :], self._objects[name]))
        folders = [f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in common]
        inner = "".join(["<IsTruncated>false</IsTruncated>", *found, *folders])
        return Answer(200, f"<ListBucketResult>{inner}</ListBucketResult>".encode(), {"Content-Type": "text/xml"})


def _entry(name: str, stored: _Stored) -> str:
    return (
        f"<Contents><Key>{escape(name)}</Key><LastModified>{_TIME}</LastModified>"
        f"<ETag>&quot;{stored.tag}&quot;</ETag><Size>{len(stored.body)}</Size></Contents>"
    )
