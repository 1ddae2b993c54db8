"""Attacks in Python: a function, and the program of an image."""
import importlib, json, os, signal, sys, time


def module(name):
    """By its name at run time: what a sandbox lacks is absent there, and no reason not to load."""
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def loop(event):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError, RuntimeError):
            pass
    while True:
        try:
            pass
        except BaseException:
            pass


def memory(event):
    hoard = []
    while True:
        hoard.append(b"x" * (4 << 20))


def fork(event):
    if not hasattr(os, "fork"):
        return {"absent": "there are no processes"}
    count = 0
    while count < 500:
        try:
            if os.fork() == 0:
                time.sleep(3600)
                os._exit(0)
            count += 1
        except OSError:
            break
    return {"count": count}


def daemon(event):
    if not hasattr(os, "fork"):
        return {"absent": "there are no processes"}
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.execv(sys.executable or "/usr/bin/python3", ["python3", "-c", "import time; time.sleep(600)", event["mark"]])
        os._exit(0)
    time.sleep(0.2)
    return {"left": True}


def clean(prefix):
    """What an attack wrote must not fill the disk of the next one."""
    try:
        for name in os.listdir("/tmp"):
            if name.startswith(prefix + "-"):
                os.remove("/tmp/" + name)
    except OSError:
        pass


def disk(event):
    total = 0
    try:
        for number in range(8):
            with open("/tmp/fill-%d" % number, "wb", buffering=0) as file:
                for _ in range(64):
                    total += file.write(b"x" * (1 << 20))
    except OSError as error:
        if total == 0:
            return {"absent": "nothing can be written"}
    finally:
        clean("fill")
    return {"count": total}


def files(event):
    count = 0
    try:
        while count < 50000:
            open("/tmp/many-%d" % count, "w").close()
            count += 1
    except OSError:
        if count == 0:
            return {"absent": "nothing can be written"}
    finally:
        clean("many")
    return {"count": count}


def descriptors(event):
    held = []
    try:
        while len(held) < 20000:
            held.append(open(__file__))
    except OSError:
        pass
    count = len(held)
    for file in held:
        file.close()
    return {"count": count}


def host(event):
    found = []
    for path in event["paths"]:
        try:
            if os.path.isdir(path):
                os.listdir(path)
            else:
                open(path, "rb").read(1)
            found.append(path)
        except OSError:
            pass
    return {"got": found}


def others(event):
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return {"absent": "there is no /proc"}
    own = []
    for name in names:
        try:
            line = open("/proc/%s/cmdline" % name, "rb").read().decode("utf-8", "replace")
        except OSError:
            continue
        if "piecework" in line and "/.piecework/run" not in line:
            own.append(line.replace("\0", " ")[:60])
    return {"got": own, "count": len(names)}


def network(event):
    socket = module("socket")
    if socket is None:
        return {"absent": "there is no network"}
    got = []
    for host, port in event["addresses"]:
        try:
            socket.create_connection((host, port), timeout=0.5).close()
            got.append("%s:%d" % (host, port))
        except Exception:
            pass
    for family in ("AF_PACKET", "AF_NETLINK", "AF_VSOCK"):
        try:
            kind = socket.SOCK_RAW if family != "AF_VSOCK" else socket.SOCK_STREAM
            socket.socket(getattr(socket, family), kind).close()
            got.append(family)
        except Exception:
            pass
    return {"got": got}


CALLS = {
    "keyctl": (250, 0, -3, 1), "unshare": (272, 0x10000000), "ptrace": (101, 0), "bpf": (321, 0), "perf_event_open": (298, 0),
    "io_uring_setup": (425, 1), "userfaultfd": (323, 0), "mount": (165, 0, 0, 0, 0), "chroot": (161, 0), "memfd_create": (319, 0),
}


def calls(event):
    if os.uname().machine != "x86_64" if hasattr(os, "uname") else True:
        return {"absent": "there are no system calls"}
    try:
        ctypes = module("ctypes")
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
    except Exception:
        return {"absent": "there are no system calls"}
    path = ctypes.create_string_buffer(b"/")
    got = []
    for name, arguments in CALLS.items():
        number, rest = arguments[0], list(arguments[1:])
        if name in ("chroot", "memfd_create"):
            rest = [ctypes.cast(path, ctypes.c_void_p), ctypes.c_long(0)]
        rest = [ctypes.c_long(one) if isinstance(one, int) else one for one in rest]
        if libc.syscall(ctypes.c_long(number), *rest) >= 0:
            got.append(name)
    return {"got": got}


def output(event):
    return {"flood": "x" * (8 << 20)}


def logs(event):
    for _ in range(40000):
        print("x" * 99, file=sys.stderr)
    return {"printed": 4000000}


def leave(event):
    try:
        open("/tmp/left", "w").write("mine")
    except OSError:
        return {"absent": "nothing can be written"}
    return {"left": True}


def find(event):
    return {"got": ["/tmp/left"] if os.path.exists("/tmp/left") else []}


def attack(event):
    return globals()[event["attack"]](event)


def handler(event, context):
    return attack(event)


if __name__ == "__main__":
    json.dump(attack(json.load(sys.stdin)), sys.stdout)
