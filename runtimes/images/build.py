#!/usr/bin/env python3
"""Makes a base image of Python or Node from this machine's own packages, as an OCI layout: no registry is needed.

    runtimes/images/build.py python|javascript FOLDER [--add HOST_PATH:IMAGE_PATH]... [-- ENTRYPOINT...]

The interpreter, its standard library, the shared libraries of both, certificates, and what `--add` names in a second layer. The same
files give the same bytes: entries are sorted, without times and owners.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "dist-packages", "site-packages", "ensurepip"}
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\napp:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DIRECTORIES = ["tmp", "root", "home", "home/app"]


def asked(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def libraries(path):
    """What the loader reads for this file, the loader itself included."""
    try:
        told = asked("ldd", str(path))
    except subprocess.CalledProcessError:
        return []
    return re.findall(r"(/[^\s:()]+)", told)


class Root:
    """Files of the image by their paths in it: where they lie here, or what they say."""

    def __init__(self):
        self.files = {}

    def add(self, here, inside=None):
        """A file with the links that lead to it. Its place is the machine's own unless it is said."""
        here = pathlib.Path(here)
        if inside is not None:
            self.files[inside.strip("/")] = here.resolve()
            return
        real = here.resolve()
        # Where /lib is a link into /usr, both names lead to the same place in the image too.
        self.files[str(here).strip("/")] = real
        self.files[str(real).strip("/")] = real

    def add_program(self, path):
        self.add(path)
        for library in libraries(path):
            self.add(library)

    def add_tree(self, folder):
        for at, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
            for name in sorted(files):
                path = pathlib.Path(at, name)
                if name.endswith((".pyc", ".a")) or not path.is_file():
                    continue
                self.add(path, str(path))
                if ".so" in name:
                    for library in libraries(path):
                        self.add(library)

    def tar(self, directories=()):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
            made = set(directories)
            for path in self.files:
                made.update(str(parent) for parent in pathlib.PurePosixPath(path).parents if str(parent) != ".")
            for path in sorted(made):
                entry = tarfile.TarInfo(path)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
                archive.addfile(entry)
            for path, source in sorted(self.files.items()):
                is_text = isinstance(source, str)
                content = source.encode() if is_text else source.read_bytes()
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                entry.mode = 0o755 if not is_text and os.access(source, os.X_OK) else 0o644
                archive.addfile(entry, io.BytesIO(content))
        return out.getvalue()


def python(root):
    program = pathlib.Path(asked("/usr/bin/python3", "-I", "-c", "import sys; print(sys.executable)").strip())
    library = asked("/usr/bin/python3", "-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))").strip()
    root.add_program(program)
    root.add(program, "usr/bin/python3")
    root.add_tree(library)
    return ["/usr/bin/python3"]


def javascript(root):
    program = shutil.which("node") or sys.exit("node is not installed")
    real = pathlib.Path(program).resolve()
    root.add(real, "usr/bin/node")
    for path in libraries(real):
        root.add(path)
    return ["/usr/bin/node"]


def write(folder, layers, config):
    blobs = pathlib.Path(folder, "blobs", "sha256")
    blobs.mkdir(parents=True, exist_ok=True)

    def put(kind, content):
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    kept = [gzip.compress(layer, compresslevel=6, mtime=0) for layer in layers]
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    document = {"architecture": architecture, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put("application/vnd.oci.image.config.v1+json", json.dumps(document, sort_keys=True).encode()),
        "layers": [put("application/vnd.oci.image.layer.v1.tar+gzip", layer) for layer in kept],
    }
    described = put(manifest["mediaType"], json.dumps(manifest, sort_keys=True).encode())
    described["platform"] = {"architecture": architecture, "os": "linux"}
    index = {"schemaVersion": 2, "manifests": [described]}
    pathlib.Path(folder, "index.json").write_text(json.dumps(index, sort_keys=True))
    pathlib.Path(folder, "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return described["digest"]


def main():
    given, entrypoint = sys.argv[1:], None
    if "--" in given:
        at = given.index("--")
        given, entrypoint = given[:at], given[at + 1 :]
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip())
    parser.add_argument("language", choices=["python", "javascript"])
    parser.add_argument("folder")
    parser.add_argument("--add", action="append", default=[])
    options = parser.parse_args(given)
    root = Root()
    program = {"python": python, "javascript": javascript}[options.language](root)
    root.files.update(ACCOUNTS)
    authorities = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")
    if authorities.is_file():
        root.add(authorities, str(authorities))
    layers = [root.tar(DIRECTORIES)]
    if options.add:
        own = Root()
        for pair in options.add:
            here, _, inside = pair.partition(":")
            own.add(here, inside)
        layers.append(own.tar())
    config = {"Entrypoint": entrypoint or program, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"], "User": "app"}
    print(write(options.folder, layers, config))


if __name__ == "__main__":
    main()
