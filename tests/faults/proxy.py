"""A proxy that does to a server's clients what networks and dying servers do to them.

One request a connection, so that each can have a fate of its own::

    pass     as if there were no proxy
    slow     answered by the server, handed on ``seconds`` later
    dribble  handed on a byte at a time, ``seconds`` apart, as if it never ended
    hang     taken, and never answered; the server does not see it
    500      answered 500; the server does not see it
    drop     the connection is reset; the server does not see it
    lost     the server does what is asked; its answer is not handed on

``down`` refuses connections until ``up``. A connection that asks to become a websocket is
handed through both ways, and is cut when the fate of new ones changes.
"""

import asyncio
import collections
import random
import re
import threading

FATES = ("pass", "slow", "dribble", "hang", "500", "drop", "lost")
_END = b"\r\n\r\n"
_BROKEN = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\noh"
)


class Proxy:
    """Stands before the server at ``port``; ``with Proxy(port) as proxy: proxy.address``.

    Attributes:
        seconds: Of ``slow`` and ``dribble``.
        suffered: How often each fate came.
    """

    def __init__(self, port):
        self._target, self.port = port, None
        self.seconds = 0.5
        self.suffered = collections.Counter()
        self._decide = lambda number, line: "pass"
        self._number = 0
        self._loop = asyncio.new_event_loop()
        self._server = None
        self._tasks = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def faults(self):
        """How many requests had another fate than to pass."""
        return sum(self.suffered.values()) - self.suffered["pass"]

    def __enter__(self):
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *error):
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def all(self, fate):
        """Let every request from now on have this fate."""
        self.follow(lambda number, line: fate)

    def storm(self, seed, share, fates):
        """Let a share of the requests have one of the fates, by a seed."""
        chance = random.Random(seed)
        self.follow(
            lambda number, line: chance.choice(fates) if chance.random() < share else "pass"
        )

    def after(self, count, fate):
        """Let ``count`` requests pass and all others have this fate."""
        self.follow(lambda number, line: "pass" if number < count else fate)

    def follow(self, decide):
        """Decide by ``decide(number, request line)``; requests are counted anew."""

        async def change():
            self._decide, self._number = decide, 0

        self._call(change())

    def down(self):
        """Refuse connections; cut those that there are."""
        self._call(self._close())
        self.suffered["down"] += 1

    def up(self):
        """Take connections, at the same port as before."""
        self._call(self._open())

    def mend(self):
        """Come back as a server that was started again: old connections are gone."""
        self.all("pass")
        self._call(self._close())
        self.up()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _open(self):
        self._server = await asyncio.start_server(
            self._meet, "127.0.0.1", self.port or 0, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self):
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _meet(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader, writer):
        head = await reader.readuntil(_END)
        line = head.split(b"\r\n", 1)[0].decode()
        fate = self._decide(self._number, line)
        self._number += 1
        self.suffered[fate] += 1
        if fate == "drop":
            writer.transport.abort()
            return
        if re.search(rb"^upgrade:", head, re.MULTILINE | re.IGNORECASE):
            await self._tunnel(head, reader, writer)
            return
        body = await _body(head, reader)
        if fate == "hang":
            await asyncio.sleep(3600)
        if fate == "500":
            writer.write(_BROKEN)
            await writer.drain()
            return
        answer = await self._ask(head, body)
        if fate == "lost":
            writer.transport.abort()
            return
        if fate == "slow":
            await asyncio.sleep(self.seconds)
        if fate == "dribble":
            for byte in answer:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(self.seconds)
        writer.write(answer)
        await writer.drain()

    async def _ask(self, head, body):
        """The server's whole answer; it is asked to close the connection behind it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            alone = re.sub(rb"(?im)^connection:[^\r]*\r\n", b"", head)
            writer.write(alone[:-2] + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    async def _tunnel(self, head, reader, writer):
        there, here = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            here.write(head)
            await asyncio.gather(_pour(reader, here), _pour(there, writer))
        finally:
            here.close()


async def _body(head, reader):
    length = re.search(rb"^content-length: *(\d+)", head, re.MULTILINE | re.IGNORECASE)
    if length:
        return await reader.readexactly(int(length[1]))
    if not re.search(rb"^transfer-encoding: *chunked", head, re.MULTILINE | re.IGNORECASE):
        return b""
    parts = []
    while True:
        size = await reader.readuntil(b"\r\n")
        parts += [size, await reader.readexactly(int(size, 16) + 2)]
        if int(size, 16) == 0:
            return b"".join(parts)


async def _pour(reader, writer):
    while part := await reader.read(65536):
        writer.write(part)
        await writer.drain()
    writer.close()
