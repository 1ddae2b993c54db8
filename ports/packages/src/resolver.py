"""Runs pip or npm and hands out what it installed as a tar archive, part by part.

It is a function like any other: it runs in a jail, as nobody, with an empty home on a bounded disk of its own and a way to
the package index alone. What a hostile package does here ends with the jail.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile

WORK = "/tmp/work"
HOME = "/tmp/home"
STDERR_BYTES_KEPT = 16 << 10
PIP = ["-I", "-u", "-m", "pip", "install", "--only-binary=:all:", "--target", "packages", "--no-compile", "--no-input",
       "--no-color", "--disable-pip-version-check", "--no-warn-script-location", "--no-cache-dir",
       "--requirement", "requirements.txt"]
NPM = ["install", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-bin-links", "--no-update-notifier",
       "--no-progress", "--color=false", "--loglevel=silly", "--package-lock=true"]
# What the tools say when they follow a reference that is no name on the index, before they fetch it: the package or path, and
# who asks for it.
PIP_REFERENCES = [
    re.compile(r"\s*Collecting (?P<what>[\w.\-]+(?:\[[^\]]*\])? ?@ ?\S+)(?: \(from (?P<by>[^\s()]+?)(?:[<>=!~].*|->.*)?\))?$"),
    re.compile(r"\s*Processing (?P<what>\S+)(?: \(from (?P<by>[^\s()]+?)(?:[<>=!~].*|->.*)?\))?$"),
    re.compile(r"(?:ERROR: )?(?P<by>[\w.\-]+) depends on (?P<what>[\w.\-]+(?:\[[^\]]*\])? ?@ ?\S+)"),
]
PIP_WHEEL = re.compile(r"\s*Downloading \S*?/?(?P<name>[\w.]+)-(?P<version>[\w.+!]+)-[^/\s]*\.whl\b")
# Wheels that are looked into for the one that asks for such a reference, where pip does not say it (before 23.1).
ASKERS_MAX = 50
NPM_REFERENCE = re.compile(r"npm sill\w* fetch manifest (?P<what>@?[^@\s]+@(?!npm:)\S*[:/]\S*)")
NPM_CHATTER = re.compile(r"npm (sill|verb|http|info|timing)")
# Where the operator's index is, which is nobody else's business; of an address, what comes before the file's name.
PLACES = re.compile(r"^\s*Looking in (indexes|links):.*|\b[a-z+]+://[^\s'\"]*/")


class ToolMissing(Exception):
    pass


class DiskFull(Exception):
    pass


class Unresolvable(Exception):
    pass


class DirectReference(Exception):
    """Its lines: the reference, and the package that asks for it if that is known."""


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


class Said:
    """What a tool says, line by line: the end of its complaints, and the first reference that leads away from the index."""

    def __init__(self, tool):
        self.tool = tool
        self.kept = ""
        self.reference = None
        self.wheels = {}

    def read(self, stream, is_complaint):
        for line in stream:
            line = line[:STDERR_BYTES_KEPT].decode("utf-8", "replace")
            self.reference = self.reference or self.refers(line.rstrip())
            # What comes after the reference may not be on the index at all.
            if self.tool == "pip" and not self.reference and (wheel := PIP_WHEEL.match(line)):
                self.wheels[f"{wheel['name']}=={wheel['version']}"] = None
            if self.tool == "npm" and NPM_CHATTER.match(line):
                continue
            # For the log of the deploy.
            if shown := PLACES.sub("", line).replace(WORK, "").replace(HOME, "").rstrip():
                print(shown, flush=True)
            if is_complaint:
                self.kept = (self.kept + line)[-STDERR_BYTES_KEPT:]

    def refers(self, line):
        for pattern in PIP_REFERENCES if self.tool == "pip" else [NPM_REFERENCE]:
            if found := pattern.match(line):
                return "\n".join(filter(None, [found["what"], found.groupdict().get("by")]))
        return None


def run(name, command):
    environment = dict(os.environ, HOME=HOME, TMPDIR=HOME, LC_ALL="C.UTF-8")
    tool = subprocess.Popen(command, cwd=WORK, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    said = Said(name)
    beside = threading.Thread(target=said.read, args=(tool.stdout, False))
    beside.start()
    said.read(tool.stderr, True)
    beside.join()
    status = tool.wait()
    if said.reference:
        what, *by = said.reference.split("\n")
        by = by or [asker for asker in [asks_for(what, list(said.wheels)[-ASKERS_MAX:], environment)] if asker]
        raise DirectReference("\n".join([what, *by]))
    if status == 0:
        return
    text = said.kept
    if "No module named pip" in text:
        raise ToolMissing(name)
    if "No space left on device" in text or "ENOSPC" in text:
        raise DiskFull(name)
    raise Unresolvable(text.replace(WORK, "").replace(HOME, ""))


def asks_for(what, wheels, environment):
    """The package of these whose metadata has the reference; `None` where none has, or they cannot be had again."""
    if not wheels:
        return None
    folder = os.path.join(HOME, "wheels")
    again = [sys.executable, *PIP[:PIP.index("install")], "download", "--no-deps", "--only-binary=:all:", "--no-input",
             "--disable-pip-version-check", "--no-cache-dir", "--dest", folder, *wheels]
    subprocess.run(again, cwd=WORK, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=False)
    name, at, _ = what.partition("@")
    has = re.compile(re.escape(name.strip()) + r"\s*@" if at else r".*@\s*\S*" + re.escape(what), re.IGNORECASE)
    for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        try:
            with zipfile.ZipFile(os.path.join(folder, file)) as wheel:
                metadata = next(each for each in wheel.namelist() if each.endswith(".dist-info/METADATA"))
                with wheel.open(metadata) as text:
                    lines = text.read(1 << 20).decode("utf-8", "replace").splitlines()
        except (OSError, StopIteration, zipfile.BadZipFile):
            continue
        wanted = (line.removeprefix("Requires-Dist:").strip() for line in lines if line.startswith("Requires-Dist:"))
        if any(has.match(each) for each in wanted):
            return file.split("-")[0]
    return None


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
