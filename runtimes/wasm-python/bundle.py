"""Imports the bundle's modules, and remembers their compiled code so that the next instance need not compile it.

The compiled code comes from an instance of the same program inside the same walls; it is no more and no less trusted
than the source.
"""

import marshal
import sys
from importlib.machinery import FileFinder, SourceFileLoader
from importlib.util import spec_from_file_location

ROOT = "/"
PACKAGES = "/packages"

# Full module name -> (path, whether it is a package, marshalled code).
known = {}


class Loader(SourceFileLoader):
    def get_code(self, fullname):
        entry = known.get(fullname)
        if entry is not None and entry[0] == self.path:
            return marshal.loads(entry[2])
        code = self.source_to_code(self.get_data(self.path), self.path)
        known[fullname] = (self.path, self.is_package(fullname), marshal.dumps(code))
        return code


class _Known:
    """Finds the modules whose code is at hand without asking the file system."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        entry = known.get(fullname)
        if entry is None:
            return None
        return spec(fullname, entry[0], entry[1])


def spec(fullname, path, package):
    return spec_from_file_location(
        fullname,
        path,
        loader=Loader(fullname, path),
        submodule_search_locations=[path.rpartition("/")[0]] if package else None,
    )


def install():
    """Replaces the search path of the build by the bundle's."""
    sys.path[:] = [PACKAGES]
    sys.path_hooks[:] = [FileFinder.path_hook((Loader, [".py"]))]
    sys.path_importer_cache.clear()
    sys.meta_path.insert(0, _Known)
    sys.dont_write_bytecode = True


def restore(blob):
    known.update(marshal.loads(blob))


def dump():
    return marshal.dumps(known)
