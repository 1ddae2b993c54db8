"""Expressions that have to give the same in the component as in CPython, or to end the run there.

    python3 expressions.py      each expression with what CPython gives, a line of JSON for each

As a function it evaluates its event, an expression, in the same way. `__import__` and not `import`: what a program mentions
decides where it runs before it is called.
"""

import json

_MODULES = """
array ast base64 binascii bisect calendar cmath codecs collections colorsys configparser copy csv dataclasses datetime decimal
difflib email.message email.utils enum fnmatch fractions functools glob gzip hashlib heapq hmac html inspect io ipaddress
itertools json keyword locale logging math mimetypes operator os pathlib pickle platform plistlib pprint queue quopri random re
reprlib sched secrets shlex signal statistics string stringprep struct sys tempfile textwrap threading time timeit tomllib types
typing unicodedata urllib.parse uuid xml.dom.minidom xml.etree.ElementTree zipfile zlib zoneinfo
""".split()


def show(value):
    """A text of a value that is the same in every interpreter."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(key)}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "set " + ", ".join(sorted(map(show, value)))
    if isinstance(value, BaseException):
        return f"error {type(value).__name__}"
    return f"{type(value).__name__} {value!r}" if not callable(value) else "callable"


class _Later(dict):
    """Modules by their names, imported when they are asked for."""

    def __missing__(self, name):
        if name in _MODULES or name in _ROOTS or name in _TOUCHING:
            module = __import__(name)
            for part in _MODULES:
                if part.startswith(name + "."):
                    __import__(part)
            self[name] = module
            return module
        raise KeyError(name)


_ROOTS = {name.partition(".")[0] for name in _MODULES}
_TOUCHING = ("bz2", "ctypes", "fcntl", "getpass", "lzma", "mmap", "multiprocessing", "pwd", "resource", "socket", "sqlite3", "ssl", "subprocess", "termios")


def evaluated(expression):
    try:
        return show(eval(expression, {}, _Later()))
    except Exception as error:
        return f"raises {type(error).__name__}"


def handler(event, context):
    return evaluated(event)


TEXTS = ["", "abc", "ÀÉî", "straße", "a\u0301", "😀x", "  x\t", "ﬁ", "Ωmega"]


def expressions():
    for text in TEXTS:
        t = repr(text)
        for call in ("upper()", "lower()", "casefold()", "title()", "encode()", "encode('utf-16')", "encode('latin-1')", "isalpha()", "strip()", "center(7, '*')", "split()", "swapcase()", "isidentifier()"):
            yield f"{t}.{call}"
        yield f"json.dumps({t})"
        yield f"unicodedata.normalize('NFKD', {t})"
        yield f"urllib.parse.quote({t})"
        yield f"hashlib.sha256({t}.encode()).hexdigest()"
        yield f"base64.b64encode({t}.encode())"
        yield f"zlib.crc32({t}.encode())"
        yield f"re.findall(r'\\w', {t})"
        yield f"len({t}.encode('unicode_escape'))"
    for number in ("0.1", "1/3", "1e22", "-0.0", "123456.789", "float('nan')", "2**0.5", "1e-7"):
        for form in ("str({})", "'{{:.3f}}'.format({})", "'{{:,}}'.format({})", "round({}, 2)", "({}).hex()", "'{{:e}}'.format({})", "math.floor({}) if {} == {} else 0", "decimal.Decimal(str({})) * 3", "struct.pack('<d', {})", "fractions.Fraction('0.25') + 1"):
            yield form.replace("{{", "{{").format(*[number] * form.count("{}")) if "{{" not in form else form.replace("{{", "{").replace("}}", "}").replace("({})", f"({number})")
    yield from (
        "10**40 // 7", "(-7) // 2", "-7 % 3", "pow(3, -1, 7)", "int('ff', 16)", "math.comb(50, 20)", "statistics.mean([1, 2, 4])", "statistics.stdev([1, 2, 4])", "math.fsum([.1] * 10)", "round(2.5)", "math.gamma(5.5)", "math.isqrt(10**20)",
        "decimal.Decimal(1) / 8", "decimal.Decimal('1.10') + 1", "decimal.Decimal(2).sqrt()", "datetime.datetime(2024, 2, 29, 12).isoformat()", "datetime.datetime(2024, 1, 5, 9).strftime('%-d %B %Y %a %e|%G-%V|%I %p|%j|%U|%y|%%|%x %X %c')",
        "datetime.datetime.strptime('5 Jan 2024', '%d %b %Y')", "datetime.datetime.fromisoformat('2024-01-05T10:00:00+02:00')", "datetime.date(2024, 1, 31).isocalendar()[:]", "datetime.datetime.fromtimestamp(0)", "time.localtime(0)[:6]", "time.gmtime(1720000000)[:6]", "time.mktime((2024, 1, 1, 0, 0, 0, 0, 0, 0))", "time.strftime('%H:%M %Z', time.gmtime(0))", "time.tzname[0]", "time.timezone",
        "calendar.monthrange(2024, 2)[1]", "calendar.month_name[3]", "str(zoneinfo.ZoneInfo('Europe/Berlin'))", "zoneinfo.ZoneInfo('No/Where')", "zoneinfo.available_timezones() > set()", "datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('America/New_York')).isoformat()",
        "json.loads('{\"a\": [1, 2.5, null, true]}')", "json.dumps({'a': float('nan')})", "json.loads('{')", "json.dumps({1: 'é'}, ensure_ascii=False, sort_keys=True, indent=1)", "re.sub(r'(?P<y>\\d+)', r'<\\g<y>>', 'a12b')", "re.split(r'[,;]', 'a,b;c')", "re.fullmatch('(?i)ABC', 'abc') is not None",
        "collections.Counter('abca').most_common(1)", "sorted({3, 1, 2})", "list(itertools.permutations('abc', 2))[:3]", "functools.reduce(lambda a, b: a * b, range(1, 6))", "dict(zip('ab', [1, 2]))", "heapq.nsmallest(2, [3, 1, 2])", "bisect.bisect([1, 2, 3], 2)", "copy.deepcopy([[1], {2: 3}])", "pickle.loads(pickle.dumps({'a': (1, 2)}))",
        "csv.reader(['a;b'], delimiter=';').__next__()", "html.escape('<a>')", "html.unescape('&eacute;')", "textwrap.wrap('a b c d', 3)", "string.capwords('a b')", "shlex.split(\"a 'b c'\")", "difflib.get_close_matches('appel', ['ape', 'apple'])", "fnmatch.fnmatch('a.py', '*.py')", "ipaddress.ip_network('10.0.0.0/30').num_addresses", "urllib.parse.parse_qs('a=1&a=2')", "urllib.parse.urljoin('http://a/b/c', '../d')", "urllib.parse.urlsplit('http://u@a:8/p?q#f').port",
        "uuid.uuid5(uuid.NAMESPACE_DNS, 'a')", "len(str(uuid.uuid4()))", "len(secrets.token_hex(4))", "random.Random(5).random()", "random.Random(5).sample(range(100), 3)", "hashlib.md5(b'').hexdigest()", "hashlib.blake2b(b'x').hexdigest()[:8]", "hashlib.sha3_256(b'').hexdigest()[:8]", "hashlib.new('sha1', b'a').hexdigest()", "hashlib.new('ripemd160', b'').hexdigest()", "hashlib.pbkdf2_hmac('sha256', b'p', b's', 10).hex()[:8]", "hashlib.scrypt(b'p', salt=b's', n=16, r=1, p=1).hex()[:8]", "hmac.new(b'k', b'm', 'sha256').hexdigest()", "zlib.decompress(zlib.compress(b'x' * 99))[:2]", "gzip.decompress(gzip.compress(b'x'))", "base64.b85encode(b'hello')", "binascii.hexlify(b'a')", "struct.unpack('>IH', bytes(range(6)))", "array.array('i', [1, 2]).tobytes()", "int.from_bytes(b'\\x01\\x02', 'little')", "codecs.decode('uryyb', 'rot13')", "'é'.encode('cp1251', 'replace')", "b'\\xe9'.decode('cp1252')", "'a'.encode('utf-7')", "b'abc'.decode('koi8-r')", "'x'.encode('nonsense')",
        "ast.literal_eval('[1, (2,)]')", "tomllib.loads('a = 1')", "plistlib.loads(plistlib.dumps({'a': 1}))", "configparser.ConfigParser().sections()", "email.utils.parsedate_to_datetime('Fri, 05 Jan 2024 09:00:00 GMT')", "email.utils.formatdate(0)", "mimetypes.guess_type('a.html')[0]", "xml.etree.ElementTree.fromstring('<a b=\"1\"/>').attrib", "xml.dom.minidom.parseString('<a/>').documentElement.tagName", "quopri.encodestring('é'.encode())", "zipfile.is_zipfile(io.BytesIO(b''))", "io.StringIO('a\\nb').readlines()", "pathlib.PurePath('a/b.txt').suffix", "str(pathlib.Path.home())", "os.path.join('a', '/b')", "os.path.expanduser('~')", "os.environ['PATH'] != ''", "os.environ.get('NOPE')", "os.sep", "os.name", "sys.platform", "sys.byteorder", "sys.float_info.max", "(lambda f: f(f))(lambda f: f(f))", "typing.get_type_hints(int)", "inspect.signature(lambda a, b=1: 0).parameters['b'].default", "enum.Enum('E', 'A B').B.value", "dataclasses.asdict(dataclasses.make_dataclass('D', ['x'])(1))", "[].x", "{}['a']", "1 / 0", "undefined", "int('x')", "threading.Lock().acquire()", "threading.current_thread().name", "queue.Queue().empty()", "locale.setlocale(locale.LC_ALL, 'de_DE.UTF-8')", "keyword.iskeyword('match')", "logging.getLogger('a').level", "glob.glob('nothing*')", "signal.SIGINT.value", "platform.system()", "os.getcwd() != ''",
        "os.getuid() >= 0", "os.popen('echo hi').read()", "os.system('true')", "os.cpu_count() > 0", "os.uname().sysname", "os.listdir('/proc') != []", "os.path.exists('/etc/passwd')", "os.path.isdir('/tmp')", "os.mkdir('/tmp/likeness-' + str(time.time_ns()))", "open('/dev/null', 'w').close()", "open('/etc/passwd').read(4)", "open('/dev/null').read()", "tempfile.gettempdir()", "tempfile.TemporaryFile().close()", "tempfile.mkdtemp() != ''", "threading.Thread(target=len, args=('',)).start()", "signal.alarm(0)", "signal.signal(signal.SIGUSR1, signal.SIG_IGN) is not None", "socket.gethostname() != ''", "socket.socket().close()", "socket.AF_INET.value", "struct.calcsize('l')", "struct.Struct('<l').size", "struct.pack('L', 1)", "ssl.OPENSSL_VERSION != ''", "sqlite3.connect(':memory:').execute('select 1').fetchone()", "ctypes.sizeof(ctypes.c_int)", "multiprocessing.cpu_count() > 0", "subprocess.run(['true']).returncode", "bz2.decompress(bz2.compress(b'x'))", "lzma.decompress(lzma.compress(b'x'))", "getpass.getuser() != ''", "pwd.getpwuid(0).pw_name", "resource.getrusage(0).ru_utime >= 0", "mmap.PAGESIZE", "fcntl.LOCK_EX", "termios.TCSANOW", "os.fork.__name__", "hasattr(os, 'fork')", "os.getlogin.__name__", "os.stat('/tmp').st_size >= 0", "time.tzset()", "os.times().user >= 0",
    )


if __name__ == "__main__":
    for one in dict.fromkeys(expressions()):
        print(json.dumps([one, evaluated(one)]))
