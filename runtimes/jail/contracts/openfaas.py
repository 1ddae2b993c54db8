"""OpenFaaS: `handle(event, context)` of the python3-http template, and `handle(req)` of the python3 template."""

import inspect
import types

from _piecework.request import Request, is_http


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
            body=body, headers=event.get("headers") or {}, method=request.method,
            query=event.get("query") or {}, path=event.get("path", "/"))
        return answered(target(given, hosted(context)))

    return handler


def hosted(context):
    return types.SimpleNamespace(hostname=context.function, **vars(context))


def answered(value):
    if not isinstance(value, dict) or "statusCode" not in value:
        return value
    said = {"status": value["statusCode"], "headers": value.get("headers") or {}}
    if value.get("body") is not None:
        said["body"] = value["body"]
    return said
