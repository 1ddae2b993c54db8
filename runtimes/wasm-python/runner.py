"""Runs a Python function inside the component: loads the handler once, then answers calls.

The codes of an answer; `ports/sandbox-wasm/src/answer.rs` has the same list.
"""

import ast
import gc
import json
import linecache
import os
import random
import sys
import traceback
import types

import preload

preload.preload()

import asyncio

# The bindings are looked up after the search path has become the bundle's.
import componentize_py_async_support
import componentize_py_types
import wit_world

import bundle
import levels
import loop
import stream
import touch

DONE = 0
RAISED = 1
NO_HANDLER = 2
SYNTAX = 3
UNSUPPORTED = 4
EXITED = 5
INVALID = 6
NO_MEMORY = 7
STREAMED = 8

STACK_BYTES_MAX = 16 << 10
# Modules and names that import well here and fail when used: a program that mentions them belongs elsewhere.
ABSENT_MODULES = frozenset(("subprocess", "socket", "ssl", "multiprocessing", "_thread", "ctypes", "socketserver", "pty"))
ABSENT_NAMES = frozenset(("Thread", "ThreadPoolExecutor", "ProcessPoolExecutor", "to_thread", "run_in_executor"))

_scan = json.decoder.JSONDecoder().scan_once
_handler = None
_name = ""
_version = 0


class Context:
    """What the handler learns about its invocation."""

    __slots__ = ("job_id", "function", "version", "deadline_ms", "parameters", "body")

    def __init__(self, job_id, deadline_ms, parameters, body):
        self.job_id = job_id
        self.function = _name
        self.version = _version
        self.deadline_ms = deadline_ms
        self.parameters = None if parameters == "null" else _scan(parameters, 0)[0]
        self.body = stream.Body() if body else None

    def __repr__(self):
        return f"Context(job_id={self.job_id!r}, function={self.function!r}, version={self.version!r})"


def _encoder():
    quote = json.encoder.encode_basestring
    return json.encoder.c_make_encoder({}, stream.default, quote, None, ":", ",", False, False, False)


_encode = _encoder()


def _dumps(value):
    global _encode
    try:
        text = "".join(_encode(value, 0))
    except BaseException:
        # The encoder's marks of containers that it was inside of are left behind.
        _encode = _encoder()
        raise
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            # Lone surrogates have no UTF-8; as escapes they are JSON.
            return json.dumps(value, default=stream.default, allow_nan=False)
    return text


def _own(filename):
    return filename.startswith("/") and not filename.startswith("/python/") and not filename.startswith("/0/")


def _told(error):
    """Type, message and stack of an exception, without the runner's own frames."""
    trace = error.__traceback__
    first = trace
    while first is not None and not _own(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    if isinstance(error, SyntaxError) and first is None:
        trace = None
    else:
        trace = first if first is not None else trace
    try:
        stack = "".join(traceback.format_exception(type(error), error, trace))
    except MemoryError:
        raise
    except BaseException:
        stack = ""
    try:
        message = str(error)
    except MemoryError:
        raise
    except BaseException:
        message = "(the message could not be read)"
    if len(stack) > STACK_BYTES_MAX:
        stack = stack[: STACK_BYTES_MAX // 2] + "\n  ...\n" + stack[-STACK_BYTES_MAX // 4 :]
    told = {"type": type(error).__name__, "message": message[:STACK_BYTES_MAX], "stack": stack}
    # Half a letter is no text for the host.
    return json.dumps({name: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for name, text in told.items()})


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass


def _exit_text(error):
    code = error.code
    if code is None:
        return "0"
    if isinstance(code, int):
        return str(code)
    print(code, file=sys.stderr)
    return "1"


def _unsupported(error):
    """Why the failed import is this sandbox's fault, or None."""
    if isinstance(error, ModuleNotFoundError):
        name = error.name or str(error)
        if name.partition(".")[0] in sys.stdlib_module_names:
            return f"the module `{name}` does not exist in WebAssembly"
        return f"the module `{name}` is not in the bundle, or only as native code"
    if isinstance(error, ImportError):
        frame = error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename.startswith(bundle.PACKAGES + "/"):
                return f"a package does not import in WebAssembly: {error}"
            frame = frame.tb_next
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return "threads do not exist in WebAssembly"
    if isinstance(error, OSError) and error.errno in (52, 58, 76, 138, 141):
        return f"the system call is not there in WebAssembly: {error}"
    return None


def _is_of_no_use(module):
    return touch.is_absent(module) or module.partition(".")[0] in ABSENT_MODULES


def _absent(node):
    """The first thing below `node` that WebAssembly lacks; whatever stands in a `try` is prepared to miss it."""
    for child in ast.iter_child_nodes(node):
        names = ()
        match child:
            case ast.Try(handlers=[_, *_]):
                continue
            case ast.Import():
                names = [alias.name for alias in child.names if _is_of_no_use(alias.name)]
            case ast.ImportFrom(level=0):
                names = [
                    f"{child.module}.{alias.name}"
                    for alias in child.names
                    if alias.name in touch.missing.get(child.module, ()) or alias.name in ABSENT_NAMES
                ]
                names += [child.module] if _is_of_no_use(child.module) else []
            case ast.Attribute(value=ast.Name(id=module), attr=attribute) if attribute in touch.missing.get(module, ()):
                names = [f"{module}.{attribute}"]
            case ast.Attribute(attr=attribute) if attribute in ABSENT_NAMES:
                names = [attribute]
            case ast.Constant(value=str(text)) if text == "/tmp" or text.startswith("/tmp/"):
                names = ["/tmp"]
        for name in names:
            return name
        found = _absent(child)
        if found:
            return found
    return None


def _mentions_absent():
    for path, _, _ in list(bundle.known.values()):
        if path.startswith(bundle.PACKAGES + "/"):
            continue
        with open(path, "rb") as file:
            name = _absent(ast.parse(file.read()))
        if name:
            return f"{path[1:]} uses `{name}`, which does not exist in WebAssembly"
    return None


def _syntax(error):
    told = json.loads(_told(error))
    told["file"] = (error.filename or "").lstrip("/")
    told["line"] = error.lineno or 0
    return json.dumps(told)


def _import_entry(entry):
    """In a folder it is a module of that package, for the imports that are relative; its own name leads to it too."""
    path = bundle.ROOT + entry
    folder, _, file = entry.rpartition("/")
    name = file.removesuffix(".py")
    parts = folder.split("/") if folder else []
    whole = ".".join([*parts, name]) if all(part.isidentifier() for part in parts) else name
    if whole not in bundle.known and not os.path.isfile(path):
        return None
    spec = bundle.spec(whole, path, False)
    module = types.ModuleType(whole)
    module.__spec__ = spec
    module.__file__ = spec.origin
    module.__loader__ = spec.loader
    module.__package__ = spec.parent
    sys.modules[name] = sys.modules[whole] = module
    exec(spec.loader.get_code(whole), module.__dict__)
    return module


# What a plain `python3 main.py` has imported before its first line: nothing takes their place.
_BEFORE_ALL = frozenset(sys.builtin_module_names) | {
    "__main__", "_collections_abc", "_sitebuiltins", "abc", "codecs", "encodings", "genericpath", "importlib", "io", "os",
    "posixpath", "site", "stat", "zipimport",
}


def _make_way(folder):
    """A function's own modules win over those of the standard library that are in the image, as in any program."""
    roots = [bundle.ROOT, bundle.ROOT + folder] if folder else [bundle.ROOT]
    for root in roots:
        try:
            names = os.listdir(root)
        except OSError:
            continue
        for name in names:
            stem, dot, ending = name.partition(".")
            if stem not in sys.modules or stem in _BEFORE_ALL:
                continue
            if ending == "py" or (not dot and os.path.isfile(f"{root}/{name}/__init__.py")):
                for known in [known for known in sys.modules if known == stem or known.startswith(stem + ".")]:
                    del sys.modules[known]


# As in the jail, unless the program says otherwise.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}


def _load(setup):
    global _handler, _name, _version
    _name, _version = setup["function_name"], setup["version"]
    entry, function = setup["entry"], setup["function"]
    folder = entry.rpartition("/")[0]
    sys.path.insert(0, bundle.ROOT)
    if folder:
        sys.path.insert(0, bundle.ROOT + folder)
    _make_way(folder)
    checks = not bundle.known
    module = _import_entry(entry)
    if module is None:
        return NO_HANDLER, f"the bundle has no file `{entry}`"
    if checks:
        reason = _mentions_absent()
        if reason:
            return UNSUPPORTED, reason
    handler = getattr(module, function, None)
    contract = _contract(module, function, handler)
    if contract:
        return UNSUPPORTED, f"`{contract}` of `{entry}` is no handler of `event` and `context`, and other contracts need the jail"
    if not callable(handler):
        what = "does not define" if handler is None else "has something that is no function as"
        return NO_HANDLER, f"`{entry}` {what} `{function}`"
    _handler = handler
    return DONE, ""


# Where other contracts are looked for when there is no `handler`; `found` of runtimes/jail/contracts says which one it is.
OTHER_NAMES = ("app", "application", "api", "asgi", "wsgi", "lambda_handler", "handle")
OTHER_PARAMETERS = (("scope", "receive"), ("environ", "start_response"))


def _contract(module, function, handler):
    """The name of what keeps another contract than a handler's, if that is what would be called."""
    if handler is None and function == "handler":
        return next((name for name in OTHER_NAMES if callable(getattr(module, name, None))), None)
    if function == "lambda_handler" or type(handler).__module__.partition(".")[0] == "mangum":
        return function
    own = getattr(handler, "__code__", None)
    code = own or getattr(getattr(type(handler), "__call__", None), "__code__", None)
    names = code.co_varnames if code else ()
    return function if names[0 if own else 1 :][:2] in OTHER_PARAMETERS else None


class WitWorld:
    def load(self, setup, code):
        # The bindings run every export inside a loop of their own, in which no other could run.
        asyncio.events._set_running_loop(None)
        touch.is_live = True
        try:
            setup = json.loads(setup)
            os.environ.clear()
            os.environ.update(_ENVIRONMENT)
            os.environ.update(setup["env"])
            random.seed()
            if code:
                bundle.restore(code)
            return _load(setup)
        except SyntaxError as error:
            return SYNTAX, _syntax(error)
        except SystemExit as error:
            return EXITED, _exit_text(error)
        except MemoryError:
            return NO_MEMORY, ""
        except BaseException as error:
            reason = _unsupported(error)
            return (UNSUPPORTED, reason) if reason else (RAISED, _told(error))
        finally:
            _flush()

    def compiled(self):
        return bundle.dump()

    def call(self, event, job, deadline_ms, parameters, body):
        asyncio.events._set_running_loop(None)
        context = Context(job, deadline_ms, parameters, body)
        try:
            result = _handler(_scan(event, 0)[0], context)
            if type(result) is types.CoroutineType:
                result = asyncio.run(_awaited(result))
            found = stream.found_in(result)
            if found is not None:
                _pour(*found)
                result = _POURED
        except SystemExit as error:
            return EXITED, _exit_text(error)
        except MemoryError:
            return NO_MEMORY, ""
        except stream.Invalid as error:
            return INVALID, str(error)
        except BaseException as error:
            reason = _unsupported(error)
            if reason:
                touch.touched(reason)
            return RAISED, _told(error)
        finally:
            if body:
                context.body.close()
            _flush()
        return (STREAMED, "") if result is _POURED else _answer(result)


# What a call's result has become where nothing is left to say but how it ended.
_POURED = object()


async def _awaited(coroutine):
    """What a coroutine returns. Chunks that come asynchronously are sent here: in the loop that they were made in."""
    result = await coroutine
    found = stream.found_in(result)
    if found is None or not stream.is_asynchronous(found[1]):
        return result
    await stream.Answer(found[0]).send_async(found[1])
    return _POURED


def _pour(head, chunks):
    answer = stream.Answer(head)
    if stream.is_asynchronous(chunks):
        asyncio.run(answer.send_async(chunks))
    else:
        answer.send_all(chunks)


def _answer(result):
    try:
        return DONE, _dumps(result)
    except MemoryError:
        return NO_MEMORY, ""
    except (TypeError, ValueError, RecursionError) as error:
        return INVALID, f"{type(error).__name__}: {error}"
    except BaseException as error:
        return RAISED, _told(error)


def _settle():
    """The last step of the build: everything until here is in the image that each instance starts from."""
    import warnings

    warnings.filterwarnings("ignore", category=DeprecationWarning)
    loop.install()
    levels.install()
    touch.install(os.path.join(os.path.dirname(__file__), "cpython-names.json"))
    bundle.install()
    sys.platform = "linux"
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    # A bundle may have modules of these names.
    for name in ("bundle", "levels", "loop", "preload", "stream", "touch"):
        del sys.modules[name]
    linecache.clearcache()
    _dumps({"warm": [1, 2.5, "é", None, True]})
    gc.collect()
    gc.freeze()


_settle()
