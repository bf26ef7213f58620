"""What the head of a request must be."""

from __future__ import annotations

import pytest

from service.api.request_head import framing_error

HOSTS = (b"", b"l", b"shop.example:8443", b"rec_1.svc.cluster.local", b"127.0.0.1:", b"[::1]:80", b"[fe80::1%25eth0]")
NO_HOSTS = (b"l, m", b"l,m", b"l m", b"l/../m", b"u@l", b"l:m", b"l:999999", b"[::1", b"::1", b"l?", b"\xff", b"l\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_host_is_one_host(version: str) -> None:
    assert [host for host in HOSTS if framing_error(version, [(b"host", host)]) is not None] == []
    assert [host for host in NO_HOSTS if framing_error(version, [(b"host", host)]) is None] == []
