"""Answers that are given piece by piece, and the body of a request.

The rules are those of runtimes/jail/python.py; ports/sandbox/src/conformance holds both to them. Every import of the host
waits as long as it must: nothing else of the function runs meanwhile.
"""

import json
from base64 import b64encode

import wit_world

CHUNK_BYTES_MAX = 64 << 10
# What most outputs are: not looked at twice.
_PLAIN = frozenset((str, int, float, bool, type(None), list, tuple, bytes, bytearray))


class Invalid(Exception):
    """The function's answer is none, with a sentence."""


def default(value):
    """The JSON form of bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": b64encode(value).decode("ascii")}
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


def _is_stream(value):
    kind = type(value)
    return kind not in _PLAIN and (hasattr(kind, "__next__") or hasattr(kind, "__aiter__"))


def found_in(value):
    """Head and chunks where the value is a streamed answer, else None."""
    if isinstance(value, dict):
        return (_head(value), value["body"]) if _is_stream(value.get("body")) else None
    return ((0, []), value) if _is_stream(value) else None


def is_asynchronous(chunks):
    return not hasattr(chunks, "__next__")


def _head(answer):
    for key in answer:
        if key not in ("status", "headers", "body"):
            raise Invalid(f"a streamed answer has status, headers and body, and no `{key}`")
    status = answer.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise Invalid("a streamed answer with a body has a whole number as its status")
    return int(status), _pairs(answer.get("headers") or ())


def _pairs(headers):
    pairs = []
    try:
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            for one in value if isinstance(value, (list, tuple)) else (value,):
                pairs.append((_text(name), _text(one)))
    except (TypeError, ValueError):
        raise Invalid("headers are names with texts, numbers or lists of them") from None
    return pairs


def _text(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise TypeError


class Answer:
    """A streamed answer. The head of one with a status is sent at once, else before the first chunk."""

    def __init__(self, head):
        self._head = head
        if head[0]:
            self._begin()

    def _begin(self):
        if self._head is not None:
            (status, headers), self._head = self._head, None
            wit_world.send_head(json.dumps({"status": status, "headers": headers}))

    def _send(self, value):
        chunk = _chunk(value)
        if chunk:
            self._begin()
        for at in range(0, len(chunk), CHUNK_BYTES_MAX):
            wit_world.send_chunk(chunk[at : at + CHUNK_BYTES_MAX])

    def send_all(self, chunks):
        for value in chunks:
            self._send(value)
        self._begin()

    async def send_async(self, chunks):
        async for value in chunks:
            self._send(value)
        self._begin()


def _chunk(value):
    """Text is UTF-8, bytes are bytes, anything else is a line of JSON."""
    try:
        if isinstance(value, str):
            return value.encode("utf-8")
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default)
        return text.encode("utf-8") + b"\n"
    except MemoryError:
        raise
    except BaseException as error:
        raise Invalid(f"a chunk is neither text nor bytes nor JSON: {error}") from None


class Body:
    """The body of the request: `read`, iteration and `async for` give each byte once."""

    def __init__(self):
        self._rest = b""
        self._ended = False

    def read(self, size=-1):
        """Waits for `size` bytes, or for all of them; fewer come at the end."""
        if size is None or size < 0:
            return b"".join(iter(self._next, b""))
        parts, missing = [], size
        while missing > 0:
            part = self._next()
            if not part:
                break
            self._rest, part = part[missing:], part[:missing]
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def __iter__(self):
        return self

    def __next__(self):
        part = self._next()
        if not part:
            raise StopIteration
        return part

    def __aiter__(self):
        return self

    async def __anext__(self):
        part = self._next()
        if not part:
            raise StopAsyncIteration
        return part

    def close(self):
        self._ended = True
        self._rest = b""

    def _next(self):
        """The next part, or nothing at the end."""
        if self._rest:
            part, self._rest = self._rest, b""
            return part
        if self._ended:
            return b""
        part = wit_world.next_part()
        self._ended = not part
        return part
