"""The broker's disk: conditions, ranges and lists, as the client of the broker needs them."""

from __future__ import annotations

import re

import httpx

from loadtests.harness.object_store import ObjectStore


def test_objects_are_written_on_condition_and_read_whole_or_in_part() -> None:
    with ObjectStore() as store, httpx.Client(base_url=f"http://127.0.0.1:{store.port}/bucket") as client:
        assert client.get("/a/b").status_code == 404
        first = client.put("/a/b", content=b"0123456789", headers={"If-None-Match": "*"})
        assert first.status_code == 200
        assert client.put("/a/b", content=b"x", headers={"If-None-Match": "*"}).status_code == 412
        assert client.put("/a/c", content=b"x", headers={"If-Match": '"nothing"'}).status_code == 412
        assert client.get("/a/b", headers={"Range": "bytes=2-4"}).content == b"234"
        assert client.get("/a/b", headers={"Range": "bytes=7-"}).content == b"789"
        assert client.get("/a/b", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
        head = client.head("/a/b")
        assert (head.headers["content-length"], head.content) == ("10", b"")
        second = client.put("/a/b", content=b"new", headers={"If-Match": first.headers["etag"]})
        assert second.status_code == 200
        assert client.put("/a/b", content=b"x", headers={"If-Match": first.headers["etag"]}).status_code == 412
        assert client.get("/a/b").content == b"new"
        assert client.delete("/a/b").status_code == 204
        assert client.get("/a/b").status_code == 404
        assert client.post("/a/b").status_code == 501


def test_lists_have_a_prefix_a_start_and_folders() -> None:
    with ObjectStore() as store, httpx.Client(base_url=f"http://127.0.0.1:{store.port}") as client:
        for name in ("a/1", "a/2", "a/b/3", "a/b/4", "z"):
            client.put(f"/bucket/{name}", content=b"x")
        client.put("/other/a/9", content=b"x")

        def listed(**query: str) -> tuple[list[str], list[str]]:
            text = client.get("/bucket", params={"list-type": "2", **query}).text
            return re.findall(r"<Key>(.*?)</Key>", text), re.findall(r"<Prefix>(.*?)</Prefix>", text)

        assert listed() == (["a/1", "a/2", "a/b/3", "a/b/4", "z"], [])
        assert listed(prefix="a/", delimiter="/") == (["a/1", "a/2"], ["a/b/"])
        assert listed(prefix="a/", **{"start-after": "a/2"}) == (["a/b/3", "a/b/4"], [])
