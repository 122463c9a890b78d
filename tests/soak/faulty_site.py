"""A site for the soak run, in its own process, that fails at random.

`python faulty_site.py SEED` prints its port.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from collections import Counter

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n"
)
KINDS = {
    "whole": 12,
    "slow": 4,
    "stall in head": 1,
    "stall in body": 1,
    "FIN in head": 1,
    "FIN in body": 1,
    "RST in head": 1,
    "RST in body": 1,
    "garbage in head": 1,
    "garbage in body": 1,
    "no UTF-8": 1,
    "empty": 1,
    "error": 3,
    "model failed": 1,
    "closed behind it": 1,
}


class FaultySite:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()

    async def handle(self, stream: SocketStream) -> None:
        received = BufferedByteReceiveStream(stream)
        try:
            while await self._answer(stream, received):
                pass
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.IncompleteRead, OSError):
            pass  # the client has closed the connection
        finally:
            await anyio.aclose_forcefully(stream)

    async def _answer(self, stream: SocketStream, received: BufferedByteReceiveStream) -> bool:
        head = (await received.receive_until(b"\r\n\r\n", 65536)).lower()
        await received.receive_exactly(int(head.partition(b"content-length:")[2].split()[0]))
        if head.startswith(b"post /faults"):
            body = json.dumps(self.faults).encode()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return True
        (kind,) = self.chance.choices([*KINDS], [*KINDS.values()])
        self.faults[kind] += 1
        if kind == "error":
            status = self.chance.choice((400, 401, 403, 429, 500, 502, 503))
            body = b'{"error":{"message":"no"}}'
            head = b"HTTP/1.1 %d No\r\nRetry-After: 0\r\nContent-Length: %d\r\n\r\n"
            await stream.send(head % (status, len(body)) + body)
            return True
        if kind == "garbage in head":
            await stream.send(self.chance.randbytes(99))
            return False
        if kind == "stall in head":
            await received.receive()
        if kind.endswith("in head"):
            await stream.send(HEAD[: self.chance.randrange(len(HEAD))])
        elif kind == "empty":
            await stream.send(HEAD + b"0\r\n\r\n")
            return True
        else:
            await self._say(stream, kind)
            if kind in ("whole", "slow", "no UTF-8", "model failed"):
                return True
        if kind.startswith("RST"):
            raw = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    async def _say(self, stream: SocketStream, kind: str) -> None:
        await stream.send(HEAD)
        for _ in range(self.chance.randrange(1, 9)):
            await stream.send(b"a\r\n0123456789\r\n")
            if kind == "slow" or self.chance.random() < 0.3:
                await anyio.sleep(self.chance.random() / 50)
        if kind == "stall in body":
            await stream.receive()
        elif kind == "garbage in body":
            await stream.send(b"zz\r\n" + self.chance.randbytes(99))
        elif kind == "no UTF-8":
            await stream.send(b"2\r\n\xff\xff\r\n0\r\n\r\n")
        elif kind == "model failed":
            await stream.send(b"15\r\nInternal server error\r\n0\r\n\r\n")
        elif not kind.endswith("in body"):
            await stream.send(b"0\r\n\r\n")


async def main(seed: int) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1000)
    sys.stdout.write(f"{listener.extra(SocketAttribute.local_port)}\n")
    sys.stdout.flush()
    await listener.serve(FaultySite(seed).handle)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]))
