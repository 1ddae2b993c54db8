"""ASGI 3 (and 2), spec version 2.4, with lifespan.

The app has one event loop for the life of its instance. The loop turns while a call runs, and stands still between calls.
"""

import asyncio
import inspect
import traceback

from _piecework import CHANNEL
from _piecework.request import Request, answer, status_of, streamed

VERSIONS = {"version": "3.0", "spec_version": "2.4"}
# Chunks that wait for whoever reads.
WAITING_MAX = 4
# Turns of the loop that an app with a complete answer has to return: then the answer is in one piece.
RETURNS_WITHIN = 5


def adapter(app, settings, runner):
    if inspect.isclass(app) or is_double(app):
        app = single(app)
    return Server(app, runner)


def is_double(app):
    called = app if inspect.isroutine(app) else type(app).__call__
    try:
        needed = [one for one in inspect.signature(app).parameters.values() if one.default is one.empty]
    except (TypeError, ValueError):
        return False
    return len(needed) == 1 and not inspect.iscoroutinefunction(called)


def single(app):
    async def called(scope, receive, send):
        await app(scope)(receive, send)

    return called


class Server:
    def __init__(self, app, runner):
        self.app = app
        self.runner = runner
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.lifespan = None
        self.state = None

    def __call__(self, event, context):
        request = Request(event, context)
        if self.lifespan is None:
            self.lifespan = Lifespan(self.app, self.loop)
            try:
                self.loop.run_until_complete(self.lifespan.start())
            except BaseException:
                self.lifespan = None
                raise
            self.state = self.lifespan.state
        before = asyncio.all_tasks(self.loop)
        exchange = Exchange(self, request, before)
        return self.loop.run_until_complete(exchange.begin())


class Lifespan:
    """Start-up, in the first call. An app that does not know of it runs without."""

    def __init__(self, app, loop):
        self.state = {}
        self.app = app
        self.started = loop.create_future()
        self.asked = False
        self.task = None

    async def start(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.task = asyncio.ensure_future(self.app(scope, self.receive, self.send))
        await asyncio.wait((self.task, self.started), return_when=asyncio.FIRST_COMPLETED)
        if self.started.done():
            failed = self.started.result()
            if failed is not None:
                if self.task.done() and self.task.exception() is not None:
                    raise self.task.exception()
                raise RuntimeError("the app's start-up failed: %s" % (failed or "it says no more"))
        elif not self.task.cancelled() and isinstance(self.task.exception(), (SystemExit, KeyboardInterrupt, MemoryError)):
            raise self.task.exception()

    async def receive(self):
        if not self.asked:
            self.asked = True
            return {"type": "lifespan.startup"}
        # An instance ends without a word: there is no shutdown.
        await asyncio.get_running_loop().create_future()

    async def send(self, message):
        if self.started.done():
            return
        if message["type"] == "lifespan.startup.complete":
            self.started.set_result(None)
        elif message["type"] == "lifespan.startup.failed":
            self.started.set_result(message.get("message", ""))


class Disconnected(OSError):
    """What is sent has nobody to read it."""


class Exchange:
    """One request and its answer.

        start -> (body, more)* -> body           the answer is complete; the app may go on (background tasks)
    """

    def __init__(self, server, request, before):
        self.server = server
        self.request = request
        self.before = before
        self.asked = False
        self.head = None
        self.chunks = []
        self.complete = False
        self.changed = asyncio.Event()
        self.room = asyncio.Event()
        self.over = server.loop.create_future()
        self.task = None
        self.watch = server.runner.watch
        self.watches = False
        # Nobody reads any more.
        self.gone = False

    def scope(self):
        request = self.request
        path = request.base_path.encode("latin-1", "replace") + request.path_bytes()
        host, port = request.server()
        address = request.client.get("address")
        return {
            "type": "http",
            "asgi": VERSIONS,
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.scheme,
            "path": path.decode("utf-8", "replace"),
            "raw_path": (request.base_path + request.raw_path).encode("latin-1", "replace"),
            "query_string": request.raw_query.encode("latin-1", "replace"),
            "root_path": request.base_path,
            "headers": request.headers,
            "client": (address, request.client.get("port", 0)) if address else None,
            "server": (host, port),
            "state": dict(self.server.state),
            "extensions": {},
        }

    async def begin(self):
        """The answer in one piece, or its head and an iterator that turns the loop."""
        self.task = asyncio.ensure_future(self.server.app(self.scope(), self.receive, self.send))
        self.task.add_done_callback(self.ended)
        while not self.task.done() and not self.chunks and not self.complete:
            await self.next_change()
        for _ in range(RETURNS_WITHIN):
            if not self.complete or self.task.done():
                break
            await asyncio.sleep(0)
        if self.task.done():
            self.check()
            if self.gone:
                return self.finished(None)
            status, pairs = self.head
            return self.finished(answer(status, pairs, b"".join(self.chunks)))
        self.watch_reader()
        status, pairs = self.head
        if self.complete and not any(name.lower() == b"content-length" for name, _ in pairs):
            # Whoever asked has it all when it is there: what the app does afterwards is not waited for.
            length = str(sum(map(len, self.chunks))).encode()
            pairs = [*pairs, (b"content-length", length)]
        return streamed(status, pairs, Chunks(self))

    def watch_reader(self):
        """Has the app told when its client goes away."""
        if not self.watches and not self.task.done() and self.watch.ask():
            self.watches = True
            self.server.loop.add_reader(CHANNEL, self.reader_went)

    def reader_went(self):
        self.server.loop.remove_reader(CHANNEL)
        self.watch.take()
        self.gone = True
        if not self.over.done():
            self.over.set_result(None)
        self.chunks.clear()
        self.room.set()
        self.changed.set()

    async def next_change(self):
        self.changed.clear()
        await self.changed.wait()

    def ended(self, _):
        if self.watches and not self.gone:
            self.server.loop.remove_reader(CHANNEL)
        self.changed.set()
        if not self.over.done():
            self.over.set_result(None)

    def check(self):
        """Raises what the app raised. An answer that is complete stands, whatever comes after it."""
        error = None if self.task.cancelled() else self.task.exception()
        if self.gone and isinstance(error, (Disconnected, asyncio.CancelledError, type(None))):
            return
        if (self.complete or self.gone) and isinstance(error, Exception):
            traceback.print_exception(error)
        elif error is not None:
            raise error
        elif self.head is None:
            raise RuntimeError("the app has ended without an answer")
        elif not self.complete:
            raise RuntimeError("the app has ended in the middle of its answer")

    def finished(self, value):
        tasks = asyncio.all_tasks(self.server.loop) - self.before - {asyncio.current_task()}
        if tasks:
            self.server.runner.leave("%d asyncio task%s" % (len(tasks), "s" * (len(tasks) > 1)))
        return value

    async def next_chunk(self):
        """The next chunk; None when the app has returned."""
        while not self.chunks:
            if self.task.done():
                self.check()
                return self.finished(None)
            await self.next_change()
        chunk = self.chunks.pop(0)
        self.room.set()
        return chunk

    async def receive(self):
        if not self.asked:
            if self.request.stream is None:
                self.asked = True
                return {"type": "http.request", "body": self.request.body, "more_body": False}
            async for part in self.request.stream:
                return {"type": "http.request", "body": part, "more_body": True}
            self.asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if not self.over.done():
            self.watch_reader()
            await asyncio.shield(self.over)
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if self.gone:
            raise Disconnected("the client has gone away")
        if kind == "http.response.start":
            if self.head is not None:
                raise RuntimeError("the app has sent the head of its answer twice")
            pairs = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
            self.head = status_of(message["status"]), pairs
        elif kind == "http.response.body":
            if self.head is None or self.complete:
                raise RuntimeError("the app has sent a part of its answer %s" % ("after its end" if self.complete else "before its head"))
            chunk = message.get("body") or b""
            if chunk:
                self.chunks.append(bytes(chunk))
            if not message.get("more_body", False):
                self.complete = True
                if not self.over.done():
                    self.over.set_result(None)
            self.changed.set()
            while len(self.chunks) >= WAITING_MAX and not self.complete and not self.gone:
                self.room.clear()
                await self.room.wait()
        else:
            raise RuntimeError("the app has sent `%s`, which no extension allows" % kind)


class Chunks:
    """An answer's chunks; the loop turns while one is waited for."""

    def __init__(self, exchange):
        self.exchange = exchange

    def __iter__(self):
        return self

    def __next__(self):
        chunk = self.exchange.server.loop.run_until_complete(self.exchange.next_chunk())
        if chunk is None:
            raise StopIteration
        return chunk

