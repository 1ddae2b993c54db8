"""Marks what `logging` prints with its level: `<3>` to `<7>` before each line, as syslog and systemd number severities.

The marks are for standard output and error only, which the host reads; it takes them off again.
"""

import logging
import sys


def _mark(level):
    if level >= logging.ERROR:
        return "<3>"
    if level >= logging.WARNING:
        return "<4>"
    return "<6>" if level >= logging.INFO else "<7>"


def _emit(self, record):
    try:
        text = self.format(record)
        if self.stream is sys.stderr or self.stream is sys.stdout:
            mark = _mark(record.levelno)
            text = mark + text.replace("\n", "\n" + mark)
        self.stream.write(text + self.terminator)
        self.flush()
    except RecursionError:
        raise
    except Exception:
        self.handleError(record)


def install():
    logging.StreamHandler.emit = _emit
