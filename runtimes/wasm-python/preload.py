"""The part of the standard library that the component carries; a module that is not imported here does not exist in it.

Left out: what needs processes, terminals, a screen or libraries that the wasm build of CPython lacks, and what only
developers of CPython use. touch.py stands in for them, and for what does nothing here in `subprocess`, `socket` and others,
which come in with other modules.
"""

import importlib

MODULES = """
__future__ _strptime abc argparse array ast asyncio atexit base64 binascii bisect builtins calendar cmath cmd code
codecs collections collections.abc colorsys concurrent.futures configparser contextlib contextvars copy copyreg csv
dataclasses datetime decimal difflib dis email email.generator email.headerregistry email.message email.mime.application
email.mime.base email.mime.image email.mime.multipart email.mime.text email.parser email.policy email.utils
encodings.ascii encodings.base64_codec encodings.charmap encodings.cp1250 encodings.cp1251 encodings.cp1252 encodings.cp437 encodings.hex_codec encodings.idna
encodings.iso8859_1 encodings.iso8859_15 encodings.iso8859_2 encodings.koi8_r encodings.mac_roman encodings.latin_1 encodings.punycode encodings.raw_unicode_escape
encodings.rot_13 encodings.unicode_escape encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32
encodings.utf_7 encodings.utf_8 encodings.utf_8_sig enum errno faulthandler filecmp fileinput fnmatch fractions functools gc getopt
gettext glob graphlib gzip hashlib heapq hmac html html.entities html.parser http http.client http.cookiejar
http.cookies imaplib imghdr importlib importlib.abc importlib.machinery importlib.metadata importlib.resources
importlib.readers importlib.resources._adapters importlib.resources.abc importlib.resources.readers
importlib.resources.simple importlib.util inspect io ipaddress itertools json json.tool keyword linecache locale logging logging.config
logging.handlers mailbox marshal math mimetypes modulefinder netrc numbers opcode operator optparse os os.path pathlib
pdb pickle pickletools pkgutil platform plistlib posixpath pprint profile pstats pyclbr queue quopri random re reprlib
runpy sched secrets select selectors shelve shlex shutil signal site smtplib sqlite3 sre_compile sre_constants sre_parse
stat statistics string string.templatelib stringprep struct symtable sys sysconfig tabnanny tarfile tempfile textwrap
threading time timeit token tokenize tomllib trace traceback tracemalloc types typing unicodedata unittest
unittest.mock urllib urllib.error urllib.parse urllib.request urllib.response urllib.robotparser uuid warnings wave
weakref wsgiref.headers wsgiref.util xml xml.dom xml.dom.expatbuilder xml.dom.minidom xml.dom.pulldom xml.etree xml.etree.ElementTree xml.parsers.expat
xml.sax xml.sax.expatreader xml.sax.handler xml.sax.saxutils xml.sax.xmlreader xmlrpc.client zipfile zipimport zlib zoneinfo
_pydatetime _pydecimal annotationlib compression.zlib compression.gzip
""".split()


def preload():
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing
