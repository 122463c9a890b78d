"""A SyncClient as its process forks or ends."""

from __future__ import annotations

import os
import sys

import pytest
from support.raw_site import BOUND
from support.sync_clients import BACKENDS, POSIX, script
from support.sync_site import Site

from gprochat_anyio import SyncClient

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def test_at_exit(site: Site) -> None:
    client = SyncClient(site.url)
    pieces = iter(client.stream("hi"))
    next(pieces)
    with pytest.warns(ResourceWarning, match="a SyncClient was not closed"):
        client._loop._at_exit()
    client._loop._at_exit()
    del pieces  # nothing waits for the thread, which stops anywhere
    with pytest.raises(RuntimeError, match="closed"):
        client.ask("hi")
    client.close()


def test_after_a_fork(client: SyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.stream("hi") as chunks:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(RuntimeError, match="used before the process forked"):
                client.ask("hi")
            chunks.close()
            client.close()
            client._loop.abandon()
            client._loop._at_exit()
        assert chunks.read() == "HI"


FORSAKEN = {
    "idle": "client = SyncClient(url); client.ask('hi')",
    "stream": "client = SyncClient(url); chunks = client.stream('endless').__enter__()",
    "plain": "client = SyncClient(url); pieces = iter(client.stream('endless')); next(pieces)",
    "thread": (
        "client = SyncClient(url); pieces = iter(client.stream('endless')); next(pieces)\n"
        "threading.Thread(target=next, args=(pieces,), daemon=True).start()"
    ),
    "other thread": (
        "client = SyncClient(url)\n"
        "threading.Thread(target=client.ask, args=('endless',), daemon=True).start()\n"
        "client.ask('hi')"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", FORSAKEN)
def test_a_program_ends_without_closing(way: str, backend: str, site: Site) -> None:
    code = FORSAKEN[way].replace("SyncClient(url)", f"SyncClient(url, backend={backend!r})")
    with script(f"{code}\nprint('end')", site.url, flags=("-W", "default::ResourceWarning")) as p:
        out, err = p.communicate(timeout=BOUND)
    assert (out, p.returncode) == (b"end\n", 0)
    assert err.count(b"ResourceWarning: a SyncClient was not closed") == 1
    assert err.count(b"Warning") == 1
    assert b"Traceback" not in err


@pytest.mark.slow
@POSIX
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside threads, on purpose
def test_forks(site: Site) -> None:
    code = """
unused = SyncClient(url)
client = SyncClient(url)
print(client.ask('hi').text, flush=True)
stream = client.stream('two-')
stream.__enter__()
child = os.fork()
if not child:
    try: client.ask('hi')
    except RuntimeError as error: print(error, flush=True)
    stream.close()
    client.close()
    with unused: print(unused.ask('child').text, flush=True)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(stream.read(), client.ask('parent').text)
stream.close()
client.close()
unused.close()
"""
    flags = ("-W", "ignore::DeprecationWarning")
    with script(code, site.url, flags=flags) as process:
        out, err = process.communicate(timeout=BOUND)
    assert err == b""
    lines = out.decode().splitlines()
    assert lines[0] == "HI"
    assert "used before the process forked" in lines[1]
    assert lines[2:] == ["CHILD", "TWO- PARENT"]


FINALIZED = {
    "used": "client = SyncClient(url); client.ask('hi')",
    "unused": "client = SyncClient(url)",
    "stream": "client = SyncClient(url); chunks = client.stream('endless').__enter__()",
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("way", FINALIZED)
def test_a_finalizer_as_the_interpreter_ends(way: str, backend: str, site: Site) -> None:
    code = f"""
class Owner:
    def __del__(self):
        try: client.ask('hi')
        except RuntimeError as error: os.write(1, str(error).encode())
        if 'chunks' in globals(): chunks.close()
        client.close()
        os.write(1, b', closed')
{FINALIZED[way].replace("(url)", f"(url, backend={backend!r})")}
owner = Owner()
"""
    with script(code, site.url, flags=("-W", "ignore::ResourceWarning")) as p:
        out, err = p.communicate(timeout=BOUND)
    said = b"the interpreter is shutting down, which has stopped the loop of this SyncClient"
    assert (out, err, p.returncode) == (said + b", closed", b"", 0)


def test_a_loop_without_its_interpreter(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with SyncClient(site.url) as client:
        client.ask("hi")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "is_finalizing", lambda: True)
            client.close()
            with pytest.raises(RuntimeError, match="the interpreter is shutting down"):
                client.ask("hi")
        client.ask("hi")
