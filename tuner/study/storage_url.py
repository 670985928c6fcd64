"""Storage URLs: what they name, how they are shown, and where their password is kept, which is never the run."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy

from search_spaces.errors import InputError

#: Environment variable of the password of a server's URL; workers find it there as well.
PASSWORD = "TUNER_STORAGE_PASSWORD"
_SECRETS = ("password", "passwd", "sslpassword")  # of a URL's query, as libpq and MySQL's drivers read them


def storage_url(database: Path, url: str | None) -> str:
    """Returns the study's storage URL, for messages: the user's, or SQLite in the run folder."""
    return url or f"sqlite:///{database.absolute()}"


def sqlite_file(url: str) -> Path | None:
    """The file that a storage URL names; None of a server's URL.

    Raises:
        InputError: It is no URL, or one of SQLite's that does not name a file and nothing else.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    name = parsed.database or ""
    if parsed.drivername != "sqlite" or parsed.query or parsed.host or name.startswith((":", "file:")) or not name:
        raise InputError(f"storage {shown_url(url)!r}: more than a file; give sqlite:///FILE without driver or options")
    if "\0" in name or not Path(name).name:
        raise InputError(f"storage {shown_url(url)!r}: names no file; give sqlite:///FILE")
    return Path(name)


def shown_url(url: str) -> str:
    """A storage URL without its password, for messages and files."""
    try:
        return _without_secrets(_parsed(url)).render_as_string(hide_password=False)
    except InputError:
        return "..."  # no URL, and what of it is a password nobody knows


def detach_password(url: str | None) -> str | None:
    """Takes the password out of a storage URL and into the environment of this process, which its workers share.

    Whoever may read a run folder must not learn how to write to the server, and command lines are seen by everybody.

    Returns:
        The URL as a run may keep it.

    Raises:
        InputError: It is no URL.
    """
    if url is None:
        return None
    parsed = _parsed(url)
    if (bare := _without_secrets(parsed)) == parsed:
        return url
    found = parsed.password or next((parsed.query[name] for name in _SECRETS if name in parsed.query), "")
    if secret := found if isinstance(found, str) else found[-1]:  # an empty one hides none that the environment holds
        os.environ[PASSWORD] = secret
    return bare.render_as_string(hide_password=False)


def connectable(url: str) -> str:
    """A storage URL with the password that the environment holds, where it has none of its own.

    Without either, the driver looks where it is used to look: psycopg in ``PGPASSWORD`` and ``~/.pgpass``.
    """
    parsed, secret = _parsed(url), os.environ.get(PASSWORD)
    if secret and not parsed.password and parsed.host and _without_secrets(parsed) == parsed:
        parsed = parsed.set(password=secret)
    return parsed.render_as_string(hide_password=False)


def _without_secrets(url: sqlalchemy.URL) -> sqlalchemy.URL:
    bare = sqlalchemy.URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return bare.difference_update_query(_SECRETS)


def _parsed(url: str) -> sqlalchemy.URL:
    shown = f"{url.partition('://')[0]}://..." if "://" in url else "..." if "@" in url else url
    try:
        parsed = sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        advice = "give sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE or null"
        raise InputError(f"storage {shown!r}: not a URL; {advice}") from None
    if "@" in (parsed.host or ""):  # what stands before it would be shown as the name of a host
        raise InputError(f"storage {shown!r}: not a URL; write @ in a password as %40")
    return parsed
