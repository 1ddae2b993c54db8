"""WSGI (PEP 3333)."""

import io
import sys

from _piecework.request import Request, answer, status_of, streamed

# An answer of a known length up to this is sent in one piece.
WHOLE_BYTES_MAX = 1 << 20


def adapter(app, settings, runner):
    def handler(event, context):
        request = Request(event, context)
        return Exchange(app, runner.watch).run(environ_of(request))

    return handler


class Input(io.RawIOBase):
    """A streamed body, read as the app asks for it."""

    def __init__(self, body):
        self.body = body

    def readable(self):
        return True

    def readinto(self, buffer):
        part = self.body.read(min(len(buffer), 64 << 10))
        buffer[: len(part)] = part
        return len(part)


def environ_of(request):
    server, port = request.server()
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": request.base_path,
        "PATH_INFO": request.path_bytes().decode("latin-1"),
        "QUERY_STRING": request.raw_query,
        "REQUEST_URI": request.base_path + request.raw_path + ("?" + request.raw_query if request.raw_query else ""),
        "RAW_URI": request.raw_path + ("?" + request.raw_query if request.raw_query else ""),
        "SERVER_NAME": server,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "piecework",
        "REMOTE_ADDR": request.client.get("address", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(request.body) if request.stream is None else io.BufferedReader(Input(request.stream)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        # With an underscore it would pass for another header.
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        value = value.decode("latin-1")
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value
    if request.stream is None and request.body:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    return environ


class Exchange:
    """One request and its answer."""

    def __init__(self, app, watch):
        self.app = app
        self.watch = watch
        self.head = None
        self.sent = False
        # What was given to `write`.
        self.written = []

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.head is not None:
            raise AssertionError("start_response was called a second time, and without exc_info")
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.head = status_of(status.split(None, 1)[0]), pairs
        return self.written.append

    def run(self, environ):
        result = self.app(environ, self.start_response)
        closes = getattr(result, "close", None)
        try:
            chunks = self.chunks(result)
            first = next(chunks, b"")
            if self.head is None:
                raise RuntimeError("the app has not called start_response")
            status, pairs = self.head
            length = next((value for name, value in pairs if name.lower() == b"content-length"), b"")
            is_short = length.isdigit() and int(length) <= WHOLE_BYTES_MAX
            is_whole = isinstance(result, (list, tuple)) or getattr(result, "streaming", None) is False
            if is_whole or is_short or environ["REQUEST_METHOD"] == "HEAD":
                body = b"".join((first, *chunks))
                status, pairs = self.head
                return answer(status, pairs, body)
            closes, after = None, closes
        finally:
            if closes is not None:
                closes()
        self.sent = True
        self.watch.ask()
        return streamed(status, pairs, rest(first, chunks, after, self.watch))

    def chunks(self, result):
        """What is not empty; the head may still change before the first."""
        for chunk in result:
            if self.written:
                yield from self.take_written()
            if chunk:
                yield chunk
        yield from self.take_written()

    def take_written(self):
        written, self.written[:] = list(self.written), []
        return [chunk for chunk in written if chunk]


def rest(first, chunks, close, watch):
    """Until its end, or until a chunk has nobody to read it."""
    try:
        if first:
            yield first
        for chunk in chunks:
            if watch.look():
                return
            yield chunk
    finally:
        if close is not None:
            close()
