"""Functions that `functions_framework` has registered (`http`, `cloud_event`): it makes a WSGI app of them itself."""

import os

from _piecework import wsgi


def adapter(target, settings, runner):
    import functions_framework

    # The source is the file that was loaded; it is imported once more, as the framework does it.
    os.environ.setdefault("FUNCTION_TARGET", target.__name__)
    app = functions_framework.create_app(target.__name__, os.path.join("/function", settings["file"]))
    return wsgi.adapter(getattr(app, "wsgi_app", app), settings, runner)
