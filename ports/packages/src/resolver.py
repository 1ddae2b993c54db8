"""Runs pip or npm and hands out what it installed as a tar archive, part by part.

It is a function like any other: it runs in a jail, as nobody, with an empty home on a bounded disk of its own and a way to
the package index alone. What a hostile package does here ends with the jail.
"""

import os
import shutil
import stat
import subprocess
import sys
import tarfile

WORK = "/tmp/work"
HOME = "/tmp/home"
STDERR_BYTES_KEPT = 16 << 10
PIP = ["-I", "-m", "pip", "install", "--only-binary=:all:", "--target", "packages", "--no-compile", "--no-input",
       "--no-color", "--disable-pip-version-check", "--no-warn-script-location", "--no-cache-dir",
       "--requirement", "requirements.txt"]
NPM = ["install", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-bin-links", "--no-update-notifier",
       "--no-progress", "--color=false", "--loglevel=error", "--package-lock=true"]


class ToolMissing(Exception):
    pass


class DiskFull(Exception):
    pass


class Unresolvable(Exception):
    pass


def handler(event, context):
    os.makedirs(WORK)
    os.makedirs(HOME)
    tool = event["tool"]
    manifest, folder, extra = {
        "pip": ("requirements.txt", "packages", []),
        "npm": ("package.json", "node_modules", ["package-lock.json"]),
    }[tool]
    with open(os.path.join(WORK, manifest), "w", encoding="utf-8") as file:
        file.write(event["manifest"])
    if event["lock"]:
        with open(os.path.join(WORK, "package-lock.json"), "w", encoding="utf-8") as file:
            file.write(event["lock"])
    run(tool, pip_command() if tool == "pip" else npm_command())
    return archive([folder, *extra])


def pip_command():
    # This interpreter is the one that functions run on: compiled wheels are chosen for it.
    return [sys.executable, *PIP]


def npm_command():
    npm = shutil.which("npm")
    if npm is None:
        raise ToolMissing("npm")
    return [npm, *NPM, "--cache", os.path.join(HOME, "npm")]


def run(name, command):
    environment = dict(os.environ, HOME=HOME, TMPDIR=HOME, LC_ALL="C.UTF-8")
    tool = subprocess.Popen(command, cwd=WORK, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE)
    said = b""
    while part := tool.stderr.read1(4096):
        said = (said + part)[-STDERR_BYTES_KEPT:]
    if tool.wait() == 0:
        return
    text = said.decode("utf-8", "replace")
    if "No module named pip" in text:
        raise ToolMissing(name)
    if "No space left on device" in text or "ENOSPC" in text:
        raise DiskFull(name)
    raise Unresolvable(text.replace(WORK, "").replace(HOME, ""))


class Parts:
    """Where the archive writes to; what it wrote is taken away after each file."""

    def __init__(self):
        self.waiting = []

    def write(self, data):
        self.waiting.append(bytes(data))
        return len(data)

    def take(self):
        taken, self.waiting = b"".join(self.waiting), []
        return taken


def archive(names):
    """Regular files alone, in order of their names. Links are passed over: nothing outside is ever read."""
    parts = Parts()
    with tarfile.open(fileobj=parts, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for path in files(names):
            entry = tarfile.TarInfo(path)
            with open(os.path.join(WORK, path), "rb") as file:
                entry.size = os.fstat(file.fileno()).st_size
                tar.addfile(entry, file)
            if data := parts.take():
                yield data
    if data := parts.take():
        yield data


def files(names):
    for name in names:
        top = os.path.join(WORK, name)
        if is_file(top):
            yield name
            continue
        for folder, folders, found in os.walk(top):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            for file in sorted(found):
                path = os.path.join(folder, file)
                if is_file(path):
                    yield os.path.relpath(path, WORK)


def is_file(path):
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
