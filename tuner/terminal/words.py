"""One line of words for an error, whoever raised it: what a stranger wrote is escaped, passwords are left out."""

from __future__ import annotations

import errno
import os

from search_spaces.passwords import without_passwords

LONGEST = 1000  # characters of an error
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
OWN_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, then try again, or `tuner resume` a run"),
    errno.EIO: "check the disk",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise `ulimit -n`, or use fewer workers"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "raise this user's limits (`ulimit -a`), or use fewer workers"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check its owner and permissions, or choose another place"),
    errno.EROFS: "choose a place that can be written",
    errno.ELOOP: "a link there leads to itself: remove it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.EBUSY: "another program uses it: wait for its end",
}


def shown(text: str) -> str:
    """A text that a terminal shows as it is, and does not obey: a name in a model may hold codes that drive it."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """A message as one line of a terminal."""
    line = shown(" ".join(without_passwords(text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def of_system(error: OSError) -> str:
    """What the system refused, of which file, and what helps."""
    if error.errno is None or error.strerror is None:
        return str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = " -> ".join(map(repr, names)) or "the system"
    reason = error.strerror[0].lower() + error.strerror[1:]
    return f"{what}: {reason}; {_REMEDIES.get(error.errno, 'choose another place, or move it away')}"


def of_text(error: UnicodeError) -> str:
    """Which text is none, or cannot be written as such: most often a file's name in another encoding than UTF-8."""
    given = getattr(error, "object", "")
    shown = f"{given!r:.100}" if isinstance(given, str) else "it"
    return (
        f"{shown}: not UTF-8 ({getattr(error, 'reason', error)}); rename the file or folder, or save the text as UTF-8"
    )
