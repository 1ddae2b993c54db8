"""The Python side of the jail: a zygote that forks children into jails, and the runner that serves calls in a child.

Run as `python3 -I -S -B python.py` with the control socket on descriptor 3. The zygote never runs user code: it forks, the
child executes the steps that the agent sent (namespaces, mounts, identity, landlock, seccomp) and only then reads a program.

What goes over descriptor 3 of a child is told in ports/sandbox/src/runner.rs.
"""

import array
import base64
import binascii
import builtins
import ctypes
import gc
import importlib.util
import io
import json
import logging
import os
import socket
import sys
import threading
import traceback

# Modules that most functions import: shared with every child, so that a cold start does not pay for them.
import collections, datetime, functools, math, re, time  # noqa: E401, F401
import random
import types

CHANNEL = 3
# In a container the channel is two pipes, and there is no zygote.
IN_CONTAINER = "--container" in sys.argv
OUT = 4 if IN_CONTAINER else CHANNEL
CLONE3 = 435
CLONE_PARENT = 0x00008000
CLONE_PIDFD = 0x00001000
STACK_MAX = 16 * 1024
CHUNK_MAX = 64 * 1024
FUNCTION = "/function"
GREETING = b'{"protocol":3}'
CONTRACTS = "/runner/contracts/"
# What a call's answer has become where nothing is left to say but how it ended.
STREAMED = object()


class CloneArgs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")]


class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]


# PyDLL keeps the interpreter lock: the child of a bare clone must hold it.
LIBC = ctypes.PyDLL(None, use_errno=True)
SYSCALL = LIBC.syscall
SYSCALL.restype = ctypes.c_long


def clone(flags):
    """Forks into new namespaces; returns (pid, pidfd), in the child (0, -1)."""
    pidfd = ctypes.c_int(-1)
    arguments = CloneArgs(flags=flags | CLONE_PARENT | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = SYSCALL(ctypes.c_long(CLONE3), ctypes.byref(arguments), ctypes.c_long(ctypes.sizeof(arguments)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, os.strerror(error))
    return pid, pidfd.value


def prepare(argument, fds):
    """One argument of a step: {"int"}, {"bytes"} (base64), {"fd"} (as received), {"out"} (an earlier result), {"filter"}."""
    (kind, value), = argument.items()
    if kind == "int":
        return ctypes.c_long(value)
    if kind == "bytes":
        return ctypes.c_char_p(base64.b64decode(value))
    if kind == "fd":
        return ctypes.c_long(fds[value])
    if kind == "filter":
        program = base64.b64decode(value)
        return ctypes.byref(Filter(len(program) // 8, program))
    return value


def execute(steps, outs):
    """Runs the prepared steps in order; a failing step ends the process, since half a jail is none."""
    for name, optional, unless, number, arguments in steps:
        if unless is not None and outs[unless] >= 0:
            outs.append(0)
            continue
        result = SYSCALL(number, *[ctypes.c_long(outs[a]) if isinstance(a, int) else a for a in arguments])
        if result < 0 and not optional:
            error = ctypes.get_errno()
            os.write(2, ("jail: %s failed: %s\n" % (name, os.strerror(error))).encode())
            os._exit(125)
        outs.append(result)


def zygote():
    control = socket.socket(fileno=CHANNEL)
    gc.collect()
    gc.freeze()
    while True:
        message, ancillary, _, _ = control.recvmsg(1 << 20, socket.CMSG_SPACE(16 * 4))
        if not message:
            os._exit(0)
        fds = array.array("i")
        for _, _, packed in ancillary:
            fds.frombytes(packed)
        order = json.loads(message)
        steps = [(step["name"], step["optional"], step["unless"], ctypes.c_long(step["number"]),
                  [prepare(argument, fds) for argument in step["arguments"]]) for step in order["steps"]]
        try:
            pid, pidfd = clone(order["flags"])
        except OSError as error:
            control.send(json.dumps({"failed": str(error)}).encode())
            pid = None
        if pid == 0:
            execute(steps, [])
            control.detach()
            return
        for fd in fds:
            os.close(fd)
        if pid is not None:
            control.sendmsg([b'{"started":%d}' % pid],
                            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))])
            os.close(pidfd)


class Runner:
    """Serves one program's calls in a jailed child."""

    def __init__(self):
        self.buffer = b""
        self.handler = None
        self.settings = None
        # Of the present call; used by adapters of contracts.
        self.watch = None
        self.handler_watches = False
        # A thread of the function may ask for the body while another writes a chunk.
        self.writing = threading.Lock()
        # What the present call leaves behind, in words.
        self.left = []
        # The threads that were there once the program was loaded.
        self.standing = frozenset()

    def take(self, count):
        while len(self.buffer) < count:
            chunk = os.read(CHANNEL, max(65536, count - len(self.buffer)))
            if not chunk:
                os._exit(0)
            self.buffer += chunk
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def receive(self):
        frame = self.take(int.from_bytes(self.take(4), "little"))
        return frame[:16], frame[16:17], frame[17:]

    def send(self, secret, kind, payload):
        frame = memoryview(b"".join(((17 + len(payload)).to_bytes(4, "little"), secret, kind, payload)))
        with self.writing:
            while frame:
                frame = frame[os.write(OUT, frame):]

    def rehearse(self):
        """Loads and calls a program of our own: the pages that this copies are copied before the program comes."""
        self.settings = {"name": "", "version": 0, "output_bytes": 1 << 10}
        self.handler = import_file("/runner/warm.py").handler
        self.call(bytes(16), json.loads('{"job_id":"","deadline_ms":0,"parameters":null,"event":{"name":[1]}}'))
        del sys.modules["warm"]
        flush()

    def serve(self):
        self.rehearse()
        self.send(bytes(16), b"H", GREETING)
        while True:
            secret, kind, payload = self.receive()
            if kind == b"L":
                answer = self.load(json.loads(payload))
                self.standing = frozenset(thread.ident for thread in threading.enumerate())
            else:
                answer = self.call_with(secret, payload)
                if threading.active_count() > len(self.standing):
                    self.left += contracts().left_threads(self.standing)
                if self.left:
                    self.retire(secret)
            flush()
            self.send(secret, *answer)

    def leave(self, what):
        """Notes something that would go on in the next call."""
        self.left.append(what)

    def retire(self, secret):
        """What a call leaves behind ends with it: nobody else calls this instance."""
        text = "the handler returned and left %s running; what it left ends here, and the next call gets a new instance" % " and ".join(self.left)
        flush()
        os.write(2, ("<4>%s\n" % text).encode("utf-8", "backslashreplace"))
        self.send(secret, b"X", b"")

    def load(self, settings):
        self.settings = settings
        os.environ.clear()
        os.environ.update(settings["env"])
        # The zygote's zone is the machine's.
        time.tzset()
        path = os.path.join(FUNCTION, settings["file"])
        folder = os.path.dirname(settings["file"])
        roots = [os.path.join(FUNCTION, folder), FUNCTION] if folder else [FUNCTION]
        sys.path[:0] = [*roots, FUNCTION + "/packages"]
        make_way(roots)
        sys.argv = [path]
        if not os.path.isfile(path):
            return refuse("no_handler", "the bundle has no file %s" % settings["file"])
        try:
            module = import_file(path, folder)
        except SyntaxError as error:
            return refuse("syntax_error", "%s line %s: %s" % (relative(error.filename), error.lineno, error.msg))
        except SystemExit as error:
            leave(error)
        except BaseException as error:
            return refuse("load_failed", told_at_load(error), stack_of(error))
        return self.find_handler(module, settings)

    def find_handler(self, module, settings):
        """The function that is called, or the adapter of the contract that is named behind it. One that is found and not named
        is told to the agent, which asks again under its name."""
        function, _, contract = settings["function"].partition("@")
        target = getattr(module, function, None)
        if not contract:
            found = contracts().found(module, function, function == "handler")
            if found:
                return b"E", contracts().told(settings["file"], *found)
        if not callable(target):
            return refuse("no_handler", "%s has no function %s" % (settings["file"], function))
        try:
            self.handler = contracts().adapter(contract, target, settings, self) if contract else target
            self.handler_watches = bool(contract)
        except LookupError:
            return refuse("no_handler", "there is no contract `%s` in Python" % contract)
        except SystemExit as error:
            leave(error)
        except BaseException as error:
            return refuse("load_failed", told_at_load(error), stack_of(error))
        return b"D", b""

    def call_with(self, secret, payload):
        """The agent bounds the levels of an event; a function may have set a lower limit, or left no memory."""
        try:
            call = json.loads(payload)
        except MemoryError:
            return b"M", b""
        except RecursionError as error:
            return b"R", told(error)
        return self.call(secret, call)

    def call(self, secret, call):
        settings = self.settings
        body = Body(self, secret) if "body" in call else None
        context = types.SimpleNamespace(
            job_id=call["job_id"], function=settings["name"], version=settings["version"],
            deadline_ms=call["deadline_ms"], parameters=call["parameters"], body=body)
        self.watch = contracts().Watch(self, secret, body) if self.handler_watches else None
        try:
            value = self.handler(call["event"], context)
            if isinstance(value, types.CoroutineType):
                import asyncio
                value = asyncio.run(self.awaited(value, secret))
            stream = stream_in(value)
            if stream is not None:
                value = self.pour(secret, *stream)
        except SystemExit as error:
            leave(error)
        except MemoryError:
            return b"M", b""
        except Invalid as error:
            return b"I", str(error).encode("utf-8", "backslashreplace")[:1000]
        except BaseException as error:
            return b"R", told(error)
        finally:
            if body is not None:
                body.close()
            if self.watch is not None:
                self.watch.end()
        if value is STREAMED:
            return b"S", b""
        return encode(value, settings["output_bytes"])

    async def awaited(self, coroutine, secret):
        """What a coroutine returns. Chunks that come asynchronously are sent here: in the loop that they were made in."""
        import asyncio
        value = await coroutine
        stream = stream_in(value)
        if stream is not None and not hasattr(stream[1], "__next__"):
            await Answer(self, secret, stream[0]).send_async(stream[1])
            value = STREAMED
        tasks = len(asyncio.all_tasks()) - 1
        if tasks:
            # They are cancelled with the loop, and go on nowhere.
            flush()
            text = "the handler returned before %d of its tasks had ended; they were cancelled, so await them" % tasks
            os.write(2, ("<4>%s\n" % text).encode())
        return value

    def pour(self, secret, head, chunks):
        answer = Answer(self, secret, head)
        if hasattr(chunks, "__next__"):
            answer.send_all(chunks)
        else:
            import asyncio
            asyncio.run(answer.send_async(chunks))
        return STREAMED


class Invalid(Exception):
    """The function's answer is none, with a sentence."""


# What most outputs are: not looked at twice.
PLAIN = frozenset((str, int, float, bool, type(None), list, tuple, bytes, bytearray))


def is_stream(value):
    """Whether the value is given piece by piece: an iterator, or something to iterate over asynchronously. Neither is JSON."""
    kind = type(value)
    return kind not in PLAIN and (hasattr(kind, "__next__") or hasattr(kind, "__aiter__"))


def stream_in(value):
    """Head and chunks where the value is a streamed answer, else None."""
    if isinstance(value, dict):
        return (head_of(value), value["body"]) if is_stream(value.get("body")) else None
    return ((0, []), value) if is_stream(value) else None


def head_of(answer):
    for key in answer:
        if key not in ("status", "headers", "body"):
            raise Invalid("a streamed answer has status, headers and body, and no `%s`" % key)
    status = answer.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise Invalid("a streamed answer with a body has a whole number as its status")
    return int(status), header_pairs(answer.get("headers") or ())


def header_pairs(headers):
    """Names and values, from a mapping or from pairs; a value that is a list stands for several of that name."""
    pairs = []
    try:
        for name, value in headers.items() if hasattr(headers, "items") else headers:
            for one in value if isinstance(value, (list, tuple)) else (value,):
                pairs.append((header_text(name), header_text(one)))
    except (TypeError, ValueError):
        raise Invalid("headers are names with texts, numbers or lists of them") from None
    return pairs


def header_text(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise TypeError


class Answer:
    """A streamed answer. The head of one with a status is sent at once, else before the first chunk."""

    def __init__(self, runner, secret, head):
        self.runner = runner
        self.secret = secret
        self.head = head
        if head[0]:
            self.begin()

    def begin(self):
        if self.head is not None:
            (status, headers), self.head = self.head, None
            head = json.dumps({"status": status, "headers": headers}, ensure_ascii=False)
            self.runner.send(self.secret, b"h", head.encode("utf-8", "replace"))

    def send(self, value):
        chunk = chunk_of(value)
        if chunk:
            self.begin()
        for at in range(0, len(chunk), CHUNK_MAX):
            self.runner.send(self.secret, b"c", chunk[at:at + CHUNK_MAX])

    def send_all(self, chunks):
        for value in chunks:
            self.send(value)
        self.begin()

    async def send_async(self, chunks):
        async for value in chunks:
            self.send(value)
        self.begin()


def chunk_of(value):
    """Text is UTF-8, bytes are bytes, anything else is a line of JSON."""
    try:
        if isinstance(value, str):
            return value.encode("utf-8")
        if isinstance(value, (bytes, bytearray)):
            return value
        if isinstance(value, memoryview):
            return value.tobytes()
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
        return text.encode("utf-8") + b"\n"
    except MemoryError:
        raise
    except BaseException as error:
        raise Invalid("a chunk is neither text nor bytes nor JSON: %s" % error) from None


class Body:
    """The body of the request: `read`, iteration and `async for` give each byte once."""

    def __init__(self, runner, secret):
        self._runner = runner
        self._secret = secret
        self._rest = b""
        self._ended = False
        self._asked = False
        self._lock = threading.Lock()

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
        if not self._rest and not self._ended:
            with self._lock:
                self._ask()
            await contracts().readable(CHANNEL)
        part = self._next()
        if not part:
            raise StopAsyncIteration
        return part

    def close(self):
        """Ends the body. Nothing of it is in the channel afterwards, whoever waits for it."""
        if self._asked:
            self._runner.send(self._secret, b"Q", b"")
        with self._lock:
            self._ended = True
            if self._asked:
                self._receive()
            self._rest = b""

    def _next(self):
        """The next part, or nothing at the end."""
        with self._lock:
            if self._rest:
                part, self._rest = self._rest, b""
                return part
            if self._ended:
                return b""
            self._ask()
            return self._receive()

    def _ask(self):
        if not self._asked:
            self._asked = True
            self._runner.send(self._secret, b"B", b"")

    def _receive(self):
        _, kind, part = self._runner.receive()
        self._asked = False
        if kind != b"b":
            self._ended = True
        return part


def encode(value, limit):
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain)
        try:
            output = text.encode("utf-8")
        except UnicodeEncodeError:
            # Half a pair of surrogates has no UTF-8; as an escape it is JSON.
            output = json.dumps(value, allow_nan=False, separators=(",", ":"), default=plain).encode()
    except MemoryError:
        return b"M", b""
    except BaseException as error:
        return b"I", str(error).encode("utf-8", "backslashreplace")[:1000]
    if len(output) > limit:
        return b"T", b""
    return b"O", output


def plain(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": binascii.b2a_base64(value, newline=False).decode()}
    raise TypeError("a %s has no JSON form%s" % (type(value).__name__, INSTEAD.get(type(value).__name__, "")))


# What to return in place of a value that has no JSON form.
INSTEAD = {
    "datetime": "; return its isoformat()", "date": "; return its isoformat()", "time": "; return its isoformat()",
    "timedelta": "; return its total_seconds()", "Decimal": "; return str() or float() of it", "UUID": "; return str() of it",
    "set": "; return a list", "frozenset": "; return a list", "generator": "; return a list",
    "coroutine": "; await it", "Response": "; make its app the function's `app`",
}


# What a plain `python3 main.py` has imported before its first line: nothing takes their place.
BEFORE_ALL = frozenset(sys.builtin_module_names) | {
    "__main__", "_collections_abc", "_sitebuiltins", "abc", "codecs", "encodings", "genericpath", "importlib", "io", "os",
    "posixpath", "site", "stat", "zipimport"}


def make_way(roots):
    """A function's own modules win over those of the standard library that the runner has imported, as in any program."""
    for root in roots:
        try:
            names = os.listdir(root)
        except OSError:
            continue
        for name in names:
            stem, dot, ending = name.partition(".")
            is_module = ending == "py" or (not dot and os.path.isfile(os.path.join(root, name, "__init__.py")))
            if is_module and stem in sys.modules and stem not in BEFORE_ALL:
                for known in [known for known in sys.modules if known == stem or known.startswith(stem + ".")]:
                    del sys.modules[known]


def import_file(path, folder=""):
    """In a folder it is a module of that package, for the imports that are relative; its own name leads to it too."""
    name = os.path.splitext(os.path.basename(path))[0]
    parts = folder.split("/") if folder else []
    whole = ".".join([*parts, name]) if all(part.isidentifier() for part in parts) else name
    spec = importlib.util.spec_from_file_location(whole, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = sys.modules[whole] = module
    spec.loader.exec_module(module)
    return module


def contracts():
    """The package of adapters, under a name that no program has."""
    if "_piecework" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "_piecework", CONTRACTS + "__init__.py", submodule_search_locations=[CONTRACTS])
        module = importlib.util.module_from_spec(spec)
        sys.modules["_piecework"] = module
        spec.loader.exec_module(module)
    return sys.modules["_piecework"]


def well_formed(text):
    """Without half pairs of surrogates, which have no UTF-8."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def relative(path):
    return (path or "the code").removeprefix(FUNCTION + "/")


def refuse(reason, message, stack=""):
    return b"E", json.dumps({"code": "function." + reason, "message": message[:2000], "stack": stack}).encode()


def told_at_load(error):
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(FUNCTION)]
    place = " (%s line %s)" % (relative(frames[-1].filename), frames[-1].lineno) if frames else ""
    return "%s: %s%s" % (type(error).__name__, error, place)


def told(error):
    try:
        message = str(error)
    except BaseException:
        message = "(the error has no text)"
    told = {"type": type(error).__name__, "message": well_formed(message[:STACK_MAX]), "stack": well_formed(stack_of(error))}
    return json.dumps(told).encode()


def stack_of(error):
    """As Python prints it, from the first frame of the program on."""
    try:
        at = error.__traceback__
        while at is not None and not at.tb_frame.f_code.co_filename.startswith(FUNCTION):
            at = at.tb_next
        return "".join(traceback.format_exception(type(error), error, at))[-STACK_MAX:]
    except BaseException:
        return ""


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass


def leave(error):
    flush()
    code = error.code
    if code is None:
        os._exit(0)
    if isinstance(code, int):
        os._exit(code & 0xFF)
    os.write(2, (str(code) + "\n").encode("utf-8", "backslashreplace"))
    os._exit(1)


class Errors(io.TextIOWrapper):
    """Standard error: marks each line as an error, as syslog and systemd number severities. The agent takes marks off."""

    inside = False

    def write(self, text):
        if text:
            marked = text.replace("\n", "\n<3>")
            if text.endswith("\n"):
                marked = marked[:-3]
            super().write(marked if self.inside else "<3>" + marked)
            self.inside = not text.endswith("\n")
        return len(text)

    def write_marked(self, text):
        super().write("\n" + text if self.inside else text)
        self.inside = False


def emit(self, record):
    """In place of `logging.StreamHandler.emit`: each line on a standard stream has its record's level."""
    try:
        text = self.format(record)
        stream, level = self.stream, record.levelno
        if stream is sys.stderr or stream is sys.stdout:
            mark = "<3>" if level >= 40 else "<4>" if level >= 30 else "<6>" if level >= 20 else "<7>"
            text = mark + text.replace("\n", "\n" + mark)
        write = stream.write_marked if isinstance(stream, Errors) else stream.write
        write(text + self.terminator)
        self.flush()
    except RecursionError:
        raise
    except Exception:
        self.handleError(record)


def open_streams():
    logging.StreamHandler.emit = emit
    for name, fd, kind in (("stdout", 1, io.TextIOWrapper), ("stderr", 2, Errors)):
        raw = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
        stream = kind(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, "__%s__" % name, stream)
    sys.stdin = open(os.devnull, encoding="utf-8")


def main():
    # Before the children are forked: they share it.
    contracts()
    if not IN_CONTAINER:
        zygote()
    random.seed()
    # What `site` would have added; -S leaves it out.
    builtins.exit = builtins.quit = sys.exit
    open_streams()
    Runner().serve()


if __name__ == "__main__":
    main()
