"""OpenFaaS: `handle(event, context)` of the python3-http template, and `handle(req)` of the python3 template."""

import inspect
import types

from _piecework.request import Request, is_http, status_of


def adapter(target, settings, runner):
    takes_text = len(inspect.signature(target).parameters) == 1

    def handler(event, context):
        request = Request(event, context) if is_http(event) else None
        if takes_text:
            return target(request.body.decode("utf-8", "replace") if request else event)
        if request is None:
            given = types.SimpleNamespace(body=event, headers={}, method="POST", query={}, path="/")
            return answered(target(given, hosted(context)))
        body = request.stream.read() if request.stream is not None else request.body
        given = types.SimpleNamespace(
            body=body, headers=Headers(request), method=request.method,
            query=first_of(event.get("query_list") or ()), path=event.get("path", "/"))
        return answered(target(given, hosted(context)))

    return handler


class Headers(dict):
    """By names in any case, as the template's Flask has them."""

    def __init__(self, request):
        for name, value in request.headers:
            key, value = name.decode("latin-1"), value.decode("latin-1")
            dict.__setitem__(self, key, self[key] + "," + value if key in self else value)

    def __getitem__(self, name):
        return dict.__getitem__(self, name.lower())

    def __contains__(self, name):
        return dict.__contains__(self, name.lower())

    def get(self, name, default=None):
        return dict.get(self, name.lower(), default)


def first_of(pairs):
    """Of several values of a name, the first is what Flask gives."""
    first = {}
    for name, value in pairs:
        first.setdefault(name, value)
    return first


def hosted(context):
    return types.SimpleNamespace(hostname=context.function, **vars(context))


def answered(value):
    if isinstance(value, tuple):
        return of_tuple(*value)
    if not isinstance(value, dict) or not PARTS >= value.keys() or not value:
        return value
    return explicit(value.get("body"), value.get("statusCode", 200), value.get("headers") or {})


# What a dictionary has that is an answer.
PARTS = {"body", "statusCode", "headers"}


def of_tuple(body, status=200, headers=()):
    """`(body, status)`, `(body, headers)` or all three: the template hands them to Flask."""
    if not isinstance(status, (int, str)):
        status, headers = 200, status
    if isinstance(status, str):
        status = status.split(None, 1)[0]
    return explicit(body, status, dict(headers))


def explicit(body, status, headers):
    said = {"status": status_of(status), "headers": headers}
    if body is not None:
        said["body"] = body
    return said
