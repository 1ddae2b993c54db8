"""The request behind the event of a call at a URL. A direct call may give the same fields; what is missing has a default."""

import base64
import json
from urllib.parse import unquote_to_bytes


def is_http(event):
    return isinstance(event, dict) and "method" in event and "raw_path" in event and "header_list" in event


class Request:
    __slots__ = ("method", "raw_path", "base_path", "raw_query", "headers", "scheme", "client", "body", "stream")

    def __init__(self, event, context):
        if not isinstance(event, dict):
            raise TypeError("this function answers HTTP requests: call it by its URL, or with an event that has `method` and `path`")
        self.method = event.get("method", "GET")
        self.raw_path = event.get("raw_path") or event.get("path") or "/"
        self.base_path = event.get("base_path", "")
        self.raw_query = event.get("raw_query", "")
        pairs = event.get("header_list")
        if pairs is None:
            pairs = (event.get("headers") or {}).items()
        # One character is one byte.
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs]
        self.scheme = event.get("scheme", "http")
        self.client = event.get("client") or {}
        self.stream = context.body
        self.body = b"" if self.stream is not None else body_of(event)

    def path_bytes(self):
        return unquote_to_bytes(self.raw_path)

    def header(self, name):
        for other, value in self.headers:
            if other == name:
                return value
        return None

    def server(self):
        """Host and port, as the client named them."""
        host = (self.header(b"host") or b"localhost").decode("latin-1")
        name, colon, port = host.rpartition(":")
        if colon and port.isdigit() and not name.endswith(":"):
            return name, int(port)
        return host, 443 if self.scheme == "https" else 80


def body_of(event):
    """The body's own bytes."""
    encoded = event.get("body_base64")
    if encoded is not None:
        return base64.b64decode(encoded)
    text = event.get("raw_body")
    if text is None:
        text = event.get("body")
    if text is None:
        return b""
    if not isinstance(text, str):
        text = json.dumps(text)
    return text.encode("utf-8", "surrogatepass")


def status_of(status):
    """A status that no answer has would pass for data."""
    number = int(status)
    if not 200 <= number < 600:
        raise ValueError("the status of an answer is 200 to 599, and this one is %s" % number)
    return number


TEXTS = ("text/", "application/json", "application/javascript", "application/xml", "application/problem+json", "image/svg+xml")


def answer(status, pairs, body):
    """An answer in one piece. Text is kept readable, for whoever looks at the job."""
    listed = texts_of(pairs)
    said = {"status": status, "header_list": listed}
    if not body:
        return said
    kind = next((value for name, value in listed if name.lower() == "content-type"), "")
    # Without a type of its own an answer must not get that of a text.
    if kind.startswith(TEXTS):
        try:
            said["body"] = body.decode("utf-8")
            return said
        except UnicodeDecodeError:
            pass
    said["body_base64"] = base64.b64encode(body).decode()
    return said


def streamed(status, pairs, chunks):
    return {"status": status, "headers": texts_of(pairs), "body": chunks}


def texts_of(pairs):
    return [(name.decode("latin-1"), text_of(value)) for name, value in pairs]


def text_of(value):
    """A header's value; it is sent as UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
