"""Passwords in URLs, which no message, log or list of processes may repeat."""

from __future__ import annotations

import re

# Up to the last @ of a word: a password may hold one that its writer forgot to escape.
_USER_INFO = re.compile(r"(\w://[^\s:/@'\"]*):[^\s'\"]*@")
_QUERY = re.compile(r"([?&](?:ssl)?passw(?:or)?d=)[^&\s'\"]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Text without the passwords of URLs in it."""
    return _QUERY.sub(r"\1***", _USER_INFO.sub(r"\1:***@", text))
