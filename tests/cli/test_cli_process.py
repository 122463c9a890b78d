"""The command as a process: pipes, signals, terminals."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from support.commands import ended, read_until, terminal
from support.raw_site import (
    BOUND,
    HEAD,
    Exchange,
    Held,
    environment,
    raw_site,
    replying,
    running,
)

pytestmark = pytest.mark.slow

BACKENDS = ["--backend=asyncio", "--backend=trio"]

both_loops = pytest.mark.parametrize("backend", BACKENDS)
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and descriptors")


def forever(exchange: Exchange) -> None:
    """Start a reply, and leave it open until the client leaves."""
    exchange.send(HEAD)
    exchange.text("first ")
    exchange.until_left()


@both_loops
def test_text_appears_as_it_arrives(backend: str) -> None:
    held = Held()
    with raw_site(held) as site, running("ask", "Hi", backend, "--url", site.url) as process:
        assert process.stdout
        assert read_until(process.stdout, b" ") == b"first "
        held.go_on.set()
        assert ended(process) == (0, b"rest\n", b"")


@both_loops
def test_a_reply_of_the_embedded_site_within_three_seconds_of_cpu_time(backend: str) -> None:
    before = os.times()
    with running("ask", "Hello", backend) as process:
        status, out, err = ended(process)
    after = os.times()
    assert after.children_user - before.children_user < 3
    assert (status, out[-17:]) == (0, b" You said: Hello\n")
    assert err.count(b"\n") == 1


HANGING_LOOKUP = """
import socket, time
def hang(*arguments, **options):
    if arguments[5] & socket.AI_NUMERICHOST:
        raise socket.gaierror(socket.EAI_NONAME, "no number")
    time.sleep(600)
socket.getaddrinfo = hang
"""


def test_a_name_lookup_that_hangs_does_not_outlast_the_timeout() -> None:
    arguments = ("ask", "Hi", "--url=http://chat.example.org", "--timeout-total=0.2")
    with running(*arguments, setup=HANGING_LOOKUP) as process:
        assert ended(process)[0] == 4


@posix
@both_loops
class TestCtrlC:
    def test_stops_a_reply(self, backend: str) -> None:
        with (
            raw_site(forever) as site,
            running("ask", "Hi", backend, "--url", site.url) as process,
        ):
            assert process.stdout
            read_until(process.stdout, b"first ")
            process.send_signal(signal.SIGINT)
            assert ended(process) == (130, b"", b"")

    def test_stops_waiting_for_a_reply(self, backend: str) -> None:
        held = Held("")
        with raw_site(held) as site:
            with running("ask", "Hi", backend, "--url", site.url) as process:
                assert held.asked.wait(BOUND)
                process.send_signal(signal.SIGINT)
                assert ended(process) == (130, b"", b"")
            held.go_on.set()

    def test_stops_the_embedded_site_too(self, backend: str) -> None:
        with running("ask", "word " * 2000, backend) as process:
            assert process.stdout
            read_until(process.stdout, b"This")
            process.send_signal(signal.SIGINT)
            status, _, err = ended(process)
        assert status == 130
        assert err.count(b"\n") == 1

    def test_stops_waiting_for_stdin(self, backend: str) -> None:
        setup = "import gprochat_anyio.cli._prompt as p; p.PATIENCE = 0"
        with running("ask", "Hi", backend, setup=setup, stdin=subprocess.PIPE) as process:
            assert process.stderr
            assert b"rest of the prompt" in read_until(process.stderr, b"\n")
            process.send_signal(signal.SIGINT)
            assert ended(process) == (130, b"", b"")

    def test_stops_while_a_full_pipe_is_not_read(self, backend: str) -> None:
        def flood(exchange: Exchange) -> None:
            exchange.send(HEAD)
            for _ in range(40):
                exchange.text("x" * 65536)
            exchange.until_left()

        with (
            raw_site(flood) as site,
            running("ask", "Hi", backend, "--url", site.url) as process,
        ):
            assert process.stdout
            read_until(process.stdout, b"x")
            process.send_signal(signal.SIGINT)
            status, _, err = ended(process)
        assert (status, err) == (130, b"")

    def test_stops_serving(self, backend: str) -> None:
        with running("serve", "--port=0", backend) as process:
            assert process.stdout
            assert process.stderr
            assert read_until(process.stdout, b"\n").startswith(b"http://127.0.0.1:")
            assert read_until(process.stderr, b"\n") == b"gprochat: Ctrl-C stops it\n"
            process.send_signal(signal.SIGINT)
            assert ended(process) == (130, b"", b"")

    def test_is_ignored_if_the_caller_ignores_it(self, backend: str) -> None:
        held = Held()
        ignored = "s.signal(s.SIGINT, s.SIG_IGN)"  # as nohup and `&` in a script have it
        with (
            raw_site(held) as site,
            running("ask", "Hi", backend, "--url", site.url, setup=ignored) as process,
        ):
            assert process.stdout
            read_until(process.stdout, b"first ")
            process.send_signal(signal.SIGINT)
            held.go_on.set()
            assert ended(process) == (0, b"rest\n", b"")


@both_loops
def test_a_closed_pipe_ends_it_quietly(backend: str) -> None:
    held = Held()
    with raw_site(held) as site, running("ask", "Hi", backend, "--url", site.url) as process:
        assert process.stdout
        assert process.stderr
        read_until(process.stdout, b"first ")
        process.stdout.close()
        held.go_on.set()
        assert process.stderr.read() == b""
        assert process.wait(BOUND) == 0


@posix
@both_loops
def test_the_same_pipe_for_both_streams_may_close(backend: str) -> None:
    held = Held()
    with raw_site(held) as site:
        arguments = ("ask", "Hi", backend, "--stats", "--url", site.url)
        with running(*arguments, stderr=subprocess.STDOUT) as process:
            assert process.stdout
            read_until(process.stdout, b"first ")
            process.stdout.close()
            held.go_on.set()
            assert process.wait(BOUND) == 0


@posix
def test_without_a_stdout_it_says_so() -> None:
    closed = ("sh", "-c", 'exec "$@" >&-', "sh")
    with running("ask", "Hi", prefix=closed) as process:
        status, _, err = ended(process)
    assert (status, err) == (1, b"gprochat: there is no stdout to write to\n")


@posix
def test_without_a_stdin_the_argument_is_the_prompt() -> None:
    closed = ("sh", "-c", 'exec "$@" <&-', "sh")
    with (
        raw_site(replying("ok")) as site,
        running("ask", "Hi", "--url", site.url, prefix=closed) as process,
    ):
        assert ended(process) == (0, b"ok\n", b"")
    assert site.prompts == ["Hi"]


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_is_an_error() -> None:
    with (
        open("/dev/full", "wb") as full,  # noqa: PTH123
        raw_site(replying("ok")) as site,
        running("ask", "Hi", "--url", site.url, stdout=full) as process,
    ):
        status, _, err = ended(process)
    assert (status, err) == (1, b"gprochat: cannot write to stdout: No space left on device\n")


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_site_is_served_even_if_its_address_cannot_be_written() -> None:
    with (
        open("/dev/full", "wb") as full,  # noqa: PTH123
        running("serve", "--port=0", stdout=full) as process,
    ):
        assert process.stderr
        assert process.stderr.readline().startswith(b"gprochat: serving at http://127.0.0.1:")
        assert process.stderr.readline() == b"gprochat: Ctrl-C stops it\n"


@posix
class TestTerminal:
    def test_is_not_driven_by_the_site(self) -> None:
        text = "\x1b[2J\x1b]0;title\x07red\x9b31m\x00\b\rover\r\nnext\tЙ 🙂."
        with (
            terminal() as (person, command),
            raw_site(replying(text)) as site,
            running("ask", "Hi", "--url", site.url, stdout=command) as process,
        ):
            seen = read_until(person, b".\r\n").decode()
            assert ended(process)[0] == 0
        assert seen == ("\\x1b[2J\\x1b]0;title\\x07red\\x9b31m\\x00\\x08over\r\nnext\tЙ 🙂.\r\n")

    def test_that_knows_fewer_characters_gets_their_numbers(self) -> None:
        env = environment(PYTHONIOENCODING="ascii")
        with (
            terminal() as (person, command),
            raw_site(replying("й.")) as site,
            running("ask", "Hi", "--url", site.url, stdout=command, env=env) as process,
        ):
            assert read_until(person, b".\r\n") == b"\\u0439.\r\n"
            assert ended(process)[0] == 0

    def test_is_not_waited_for_as_stdin(self) -> None:
        with terminal() as (_, command), running("ask", stdin=command) as process:
            status, out, err = ended(process)
        assert (status, out) == (2, b"")
        assert b"the prompt is empty" in err
