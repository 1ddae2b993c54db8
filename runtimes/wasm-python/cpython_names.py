"""What CPython has on Linux: prints cpython-names.json, with which touch.py compares the component.

    python3 cpython_names.py > cpython-names.json

Module -> the public names in it. Left out are modules that only developers of CPython use, or that open windows.
"""

import importlib
import io
import json
import sys
import warnings

LEFT_OUT = frozenset(("antigravity", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo", "nt", "winreg", "msvcrt", "winsound"))
INNER = (
    "concurrent.futures email.mime.audio email.mime.text importlib.metadata importlib.resources importlib.util json.decoder "
    "json.encoder logging.config logging.handlers os.path unittest.mock urllib.parse urllib.request urllib.response xml.dom "
    "xml.dom.minidom xml.etree.ElementTree xml.sax http.client http.server http.cookies html.parser collections.abc "
    "multiprocessing.pool wsgiref.simple_server wsgiref.util xmlrpc.client xmlrpc.server"
).split()


def names():
    found = {}
    for name in sorted({*sys.stdlib_module_names, *INNER}):
        if name.startswith("_") or name.partition(".")[0] in LEFT_OUT:
            continue
        try:
            module = importlib.import_module(name)
        except Exception:
            continue
        found[name] = sorted(one for one in dir(module) if not one.startswith("_"))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    said, sys.stdout = sys.stdout, io.StringIO()
    found = names()
    sys.stdout = said
    print("{")
    print(",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in found))
    print("}")
