"""What CPython on Linux has and this component lacks: whatever touches it ends the run.

The host is told what was touched and ends the instance there: `except` cannot swallow it, and nothing that CPython would not
have done gets out. Where the sandbox was chosen by the platform the call runs in another one; where it was named, the caller
is told.

Importing alone touches nothing: many programs import more than they use, and `try: import ssl` means something else where
it fails.
"""

import importlib.machinery
import json
import os
import sys
import types

import wit_world

# Module -> names that CPython has in it and that are not here.
missing = {}
_stubs = set()
_stat = os.stat


# Not yet while the component is built, where nobody is told anything.
is_live = False


def touched(what):
    """Does not return."""
    if not is_live:
        raise AttributeError(what)
    wit_world.touch(what)


class _Absent(types.ModuleType):
    """A module that is not here, until something of it is used."""

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        touched(f"the module `{self.__name__}`")


class _Loader:
    @staticmethod
    def create_module(spec):
        module = _Absent(spec.name)
        module.__path__ = []
        return module

    @staticmethod
    def exec_module(module):
        pass


class Finder:
    """The last: finds every part of the standard library that is not here."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname.partition(".")[0] in _stubs or _is_inner(fullname):
            return importlib.machinery.ModuleSpec(fullname, _Loader, is_package=True)
        return None


def _is_inner(fullname):
    """A module within a package of the standard library, which a bundle has not replaced by one of its own."""
    root, dot, _ = fullname.partition(".")
    if not dot or root not in sys.stdlib_module_names:
        return False
    origin = getattr(sys.modules.get(root), "__file__", None) or "/python/"
    return origin.startswith(("/python/", "/0/"))


def _watch(module, names):
    """Has a module tell of the names that it lacks."""
    name = module.__name__
    before = module.__dict__.get("__getattr__")

    def __getattr__(attribute):
        if attribute in names:
            touched(f"`{name}.{attribute}`")
        if before is not None:
            return before(attribute)
        raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

    module.__getattr__ = __getattr__


# Not compared: what is here are CPython's own names for other builds, or the runner's doing.
_ANY = frozenset(("sys", "builtins", "__main__", "site"))


def _compare(path):
    with open(path, encoding="utf-8") as file:
        known = json.load(file)
    for name, names in known.items():
        module = sys.modules.get(name)
        if module is None:
            if "." not in name:
                _stubs.add(name)
            continue
        if name in _ANY:
            continue
        absent = frozenset(one for one in names if not hasattr(module, one))
        if absent:
            missing[name] = absent
    # Afterwards: one module may have two names.
    for name, absent in missing.items():
        _watch(sys.modules[name], absent)
    for name in sys.stdlib_module_names:
        if name not in sys.modules and not name.startswith("_") and name not in sys.builtin_module_names:
            _stubs.add(name)


def is_absent(name):
    """Whether a module of the standard library is not here."""
    return name.partition(".")[0] in _stubs


# Where an operating system keeps its things.
_PLACES = ("/tmp", "/dev", "/proc", "/etc", "/sys", "/usr", "/var", "/home", "/root", "/run", "/opt", "/mnt", "/bin", "/lib")
# Reading has a bit of its own here.
_WRITES = (os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND) & ~os.O_RDONLY


def _exists(path):
    try:
        _stat(path)
    except (OSError, ValueError):
        return False
    return True


def _place(path):
    """Touches a place outside of the bundle. What the bundle has at the same path is the bundle's."""
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    elif not isinstance(path, str):
        path = getattr(path, "__fspath__", str)() if hasattr(path, "__fspath__") else ""
        path = os.fsdecode(path) if isinstance(path, bytes) else path
    if path.startswith(_PLACES) and not _exists(path):
        for place in _PLACES:
            if path == place or path.startswith(place + "/"):
                touched(f"`{place}`")


def _opened(path, mode, flags):
    if isinstance(path, int):
        return
    if (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (isinstance(flags, int) and flags & _WRITES):
        touched("files that can be written")
    _place(path)


_UTC = frozenset(("", "UTC", "UTC0", "GMT", "GMT0", "Etc/UTC", ":UTC", "Zulu", "Universal", "UCT"))


def check_zone(zone):
    """The C library here knows UTC alone."""
    if zone is not None and zone not in _UTC:
        touched("the variable TZ")


def _put(key, value):
    if key == b"TZ":
        check_zone(value.decode("utf-8", "replace"))


_EVENTS = {
    "open": _opened,
    "os.putenv": _put,
    "os.listdir": lambda path=None, *_: _place(path or "."),
    "os.scandir": lambda path=None, *_: _place(path or "."),
}
for _event in ("mkdir", "rename", "remove", "rmdir", "link", "symlink", "truncate", "utime", "chmod", "chown", "mkfifo", "mknod"):
    _EVENTS["os." + _event] = lambda *_: touched("files that can be written")
for _event in ("tempfile.mkstemp", "tempfile.mkdtemp"):
    _EVENTS[_event] = lambda *_: touched("files that can be written")
for _event in ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "os.kill"):
    _EVENTS[_event] = lambda *_: touched("processes")


def _audit(event, arguments):
    check = _EVENTS.get(event)
    if check is not None:
        check(*arguments)
    elif event.startswith("socket."):
        touched("the network")


def _refuse(what):
    def refuse(*_, **__):
        touched(what)

    return refuse


def _looks(name):
    """A function of `os` that asks for a path without an event."""
    own = getattr(os, name)

    def look(path, *arguments, **options):
        if not isinstance(path, int):
            _place(path)
        return own(path, *arguments, **options)

    look.__name__ = look.__qualname__ = name
    look.__doc__ = own.__doc__
    return look


def _install_functions():
    import _thread
    import asyncio.base_events
    import asyncio.events
    import locale
    import signal
    import socket
    import subprocess
    import threading
    import time
    import zoneinfo._common

    for name in ("stat", "lstat", "readlink", "statvfs"):
        if hasattr(os, name):
            setattr(os, name, _looks(name))
    access = os.access

    def _access(path, mode, **options):
        if mode & os.W_OK:
            touched("files that can be written")
        _place(path)
        return access(path, mode, **options)

    os.access = _access
    # The C library's own versions do nothing and say that it went well.
    for name in ("chmod", "chown", "lchown", "fchmod", "fchown", "umask"):
        if hasattr(os, name):
            setattr(os, name, _refuse("files that can be written"))
    for name in ("getppid", "getuid", "geteuid", "getgid", "getegid", "_exit", "cpu_count", "times", "uname", "getlogin", "kill"):
        if hasattr(os, name):
            setattr(os, name, _refuse(f"`os.{name}`"))
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        if hasattr(_thread, name):
            setattr(_thread, name, _refuse("threads"))
    threading._start_joinable_thread = _refuse("threads")
    threading._start_new_thread = _refuse("threads")
    subprocess.Popen.__init__ = _refuse("processes")
    socket.socket.__init__ = _refuse("the network")
    for name in ("getaddrinfo", "gethostbyname", "gethostname", "getfqdn", "create_connection", "socketpair"):
        if hasattr(socket, name):
            setattr(socket, name, _refuse("the network"))
    _drop_constants(socket)
    own_signal = signal.signal

    def _signal(number, handler):
        if number not in (getattr(signal, "SIGINT", 2), getattr(signal, "SIGTERM", 15)):
            touched("`signal.signal`")
        return own_signal(number, handler)

    signal.signal = _signal
    if hasattr(time, "tzset"):
        time.tzset = lambda: check_zone(os.environ.get("TZ"))
    own_locale = locale.setlocale

    def _setlocale(category, name=None):
        if name not in (None, "", "C", "POSIX", "C.UTF-8", "C.utf8"):
            touched("`locale.setlocale`")
        return own_locale(category, name)

    locale.setlocale = _setlocale
    _install_zones(zoneinfo)
    _install_loop(asyncio)
    _install_numbers()


def _install_zones(zoneinfo):
    own = zoneinfo._common.load_tzdata

    def load_tzdata(key):
        try:
            return own(key)
        except zoneinfo.ZoneInfoNotFoundError:
            # The package tzdata in the bundle does as well.
            touched(f"time zones (`{key}`)")

    zoneinfo._common.load_tzdata = load_tzdata
    zoneinfo.reset_tzpath(to=())
    zoneinfo.available_timezones = _refuse("time zones")


# Families of constants that this C library numbers in its own way.
_CONSTANTS = ("AF_", "AI_", "EAI_", "IPPROTO_", "IP_", "MSG_", "NI_", "SHUT_", "SOCK_", "SOL_", "SO_", "TCP_")


def _drop_constants(socket):
    names = [name for name in vars(socket) if name.startswith(_CONSTANTS)]
    missing["socket"] = missing.get("socket", frozenset()).union(names)
    for name in names:
        delattr(socket, name)
    _watch(socket, missing["socket"])


def _install_numbers():
    """What depends on the size of a machine word, or on the C library's names."""
    import _struct
    import hashlib
    import struct
    import time

    def check(form):
        text = form.decode("latin-1") if isinstance(form, (bytes, bytearray)) else str(form)
        if text[:1] not in ("<", ">", "!", "=") and any(letter in text for letter in "lLnNP"):
            touched("`struct` with the sizes of a 64-bit machine")

    def checked(own):
        def function(form, *arguments):
            check(form)
            return own(form, *arguments)

        function.__name__ = function.__qualname__ = own.__name__
        return function

    for name in ("calcsize", "pack", "pack_into", "unpack", "unpack_from", "iter_unpack"):
        setattr(struct, name, checked(getattr(_struct, name)))

    class Struct(_struct.Struct):
        def __init__(self, form):
            check(form)
            super().__init__(form)

    Struct.__module__ = "struct"
    struct.Struct = Struct
    own_new = hashlib.new

    def new(name, *arguments, **options):
        try:
            return own_new(name, *arguments, **options)
        except ValueError:
            touched(f"the digest `{name}`")

    hashlib.new = new
    own_strftime = time.strftime

    def strftime(form, *arguments):
        if "%Z" in form:
            touched("the name of the time zone")
        return own_strftime(form, *arguments)

    time.strftime = strftime


def _install_loop(asyncio):
    base = asyncio.base_events.BaseEventLoop
    network = ("create_connection", "create_datagram_endpoint", "create_server", "getaddrinfo", "getnameinfo", "sock_recv", "sock_sendall",
               "sock_connect", "sock_accept", "create_unix_connection", "create_unix_server", "add_reader", "add_writer", "connect_read_pipe",
               "connect_write_pipe", "start_tls", "sendfile")
    for name in network:
        setattr(base, name, _refuse("the network"))
    for name in ("subprocess_exec", "subprocess_shell"):
        setattr(base, name, _refuse("processes"))
    for name in ("add_signal_handler", "remove_signal_handler"):
        setattr(base, name, _refuse("signals"))


def install(path):
    """The last step but one of the build."""
    _compare(path)
    _install_functions()
    sys.meta_path.append(Finder)
    sys.addaudithook(_audit)
