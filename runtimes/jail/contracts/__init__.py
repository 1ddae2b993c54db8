"""Contracts: the interfaces that other people's programs have, each met by an adapter that is called like a handler.

    asgi                an ASGI app (FastAPI, Starlette, Django, Quart)
    wsgi                a WSGI app (Flask, Django, Bottle)
    lambda              an AWS Lambda handler; at a URL it gets the event of a Function URL, payload 2.0
    functions-framework functions that `functions_framework` has registered
    openfaas            `handle(event, context)` or `handle(req)`

The runner asks `found` once a module is imported. Each adapter is in a module of its own and is imported where it is needed.
"""

import importlib
import inspect
import json
import select
import sys
import threading
import time

# Where the agent is.
CHANNEL = 3
MODULES = {"asgi": "asgi", "wsgi": "wsgi", "lambda": "aws", "functions-framework": "framework", "openfaas": "openfaas"}
# Where an app is looked for when no name was given and there is no `handler`.
APPS = ("app", "application", "api", "asgi", "wsgi")


def adapter(contract, target, settings, runner):
    """The handler that stands in for `target`. `runner.leave` is told in words what a call leaves behind, and `runner.watch` tells when
    nobody reads its answer any more. Unknown contracts are refused with `LookupError`."""
    if contract not in MODULES:
        raise LookupError(contract)
    return importlib.import_module("_piecework." + MODULES[contract]).adapter(target, settings, runner)


def found(module, name, by_default):
    """The name and the contract of what the module offers; None where that is a plain handler, or nothing."""
    target = getattr(module, name, None)
    if target is not None:
        contract = contract_of(target, name)
        return (name, contract) if contract else None
    if not by_default:
        return None
    framework = registered(module)
    if framework:
        return framework, "functions-framework"
    for name in APPS:
        contract = contract_of(getattr(module, name, None), name)
        if contract:
            return name, contract
    for name, contract in (("lambda_handler", "lambda"), ("handle", "openfaas")):
        if callable(getattr(module, name, None)):
            return name, contract
    return None


def told(file, name, contract):
    """What the agent hears of a contract that was found and not asked for."""
    message = "%s has no handler, and `%s` keeps the contract `%s`" % (file, name, contract)
    said = {"code": "function.no_handler", "message": message, "stack": "", "contract": "%s:%s@%s" % (file, name, contract)}
    return json.dumps(said).encode()


def contract_of(target, name):
    """The contract that an object keeps, told by its shape; None for a handler of `event` and `context`."""
    if target is None or not callable(target):
        return None
    if name == "lambda_handler" or type(target).__module__.partition(".")[0] == "mangum":
        return "lambda"
    if registered_as(target):
        return "functions-framework"
    if inspect.isclass(target):
        return "asgi" if parameters(target) == ["scope"] else None
    called = target if inspect.isroutine(target) else type(target).__call__
    names = parameters(target)
    if names is None:
        return None
    if names[:3] == ["scope", "receive", "send"] or (len(names) == 3 and inspect.iscoroutinefunction(called)):
        return "asgi"
    if names[:2] == ["environ", "start_response"]:
        return "wsgi"
    is_app = name in APPS or not inspect.isroutine(target)
    if len(names) == 2 and names[:2] != ["event", "context"] and is_app and not inspect.iscoroutinefunction(called):
        return "wsgi"
    return None


def parameters(target):
    """Names of the parameters that have to be given in their place; None where that cannot be told."""
    try:
        all_of_them = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    placed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in all_of_them if one.kind in placed and one.default is inspect.Parameter.empty]


def registry():
    known = sys.modules.get("functions_framework._function_registry")
    return getattr(known, "REGISTRY_MAP", None) or {}


def registered(module):
    """The function that `functions_framework` has registered last from this module."""
    names = [name for name in registry() if callable(getattr(module, name, None))]
    return names[-1] if names else None


def registered_as(target):
    return getattr(target, "__name__", None) in registry()


# Threads that end with a call are given this long to do so.
THREADS_END_WITHIN_S = 0.01


def left_threads(standing):
    """In words, the threads beside the standing ones that do more than to wait for work."""
    until = time.monotonic() + THREADS_END_WITHIN_S
    while True:
        new = [thread for thread in threading.enumerate() if thread.ident not in standing]
        busy = [thread for thread in new if not is_resting(thread)]
        if not busy:
            return []
        if time.monotonic() > until:
            names = ", ".join(thread.name for thread in busy[:4])
            return ["%d thread%s (%s)" % (len(busy), "s" * (len(busy) > 1), names)]
        time.sleep(0.0005)


def is_resting(thread):
    """Whether a thread does nothing until somebody gives it work: an idle worker of a pool, or the reader of a queue."""
    frame = sys._current_frames().get(thread.ident)
    if frame is None:
        return True
    code = frame.f_code
    if code.co_name == "_worker" and code.co_filename.endswith("concurrent/futures/thread.py"):
        return True
    return code.co_name == "wait" and code.co_filename == threading.__file__ and frame.f_locals.get("timeout", 0) is None


class Watch:
    """Tells an adapter that nobody reads the answer of its call any more. It says nothing while the body of the request is read: both
    come over one channel."""

    def __init__(self, runner, secret, body):
        self.runner = runner
        self.secret = secret
        self.body = body
        self.asked = False
        self.gone = False

    def ask(self):
        """Whether it will be told."""
        if not self.asked and (self.body is None or self.body._ended):
            self.asked = True
            self.runner.send(self.secret, b"W", b"")
        return self.asked

    def take(self):
        self.runner.receive()
        self.gone = True

    def look(self):
        """Whether the reader has gone, as far as that was told by now."""
        if self.asked and not self.gone and select.select([CHANNEL], [], [], 0)[0]:
            self.take()
        return self.gone

    def end(self):
        """Nothing of it is in the channel afterwards."""
        if self.asked and not self.gone:
            self.runner.send(self.secret, b"V", b"")
            self.take()


async def readable(fd):
    import asyncio
    loop = asyncio.get_running_loop()
    came = loop.create_future()
    loop.add_reader(fd, lambda: came.done() or came.set_result(None))
    try:
        await came
    finally:
        loop.remove_reader(fd)
