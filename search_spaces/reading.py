"""Reads text that anybody may have written: in bounded time and memory, and every fault of it is one line."""

from __future__ import annotations

import ast
import codecs
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from search_spaces.errors import InputError
from search_spaces.limits import GIB, MEMORY_VARIABLE, memory_limit

MAX_YAML_BYTES = 1 << 17
MAX_YAML_DEPTH = 50
MAX_YAML_ALIASES = 32
MAX_YAML_NODES = 1 << 16
MAX_LITERAL = 1 << 17
MAX_TEXT_BYTES = 1 << 28  # of a list: two million paths
MAX_LINE = 1 << 20  # characters: a polygon of fifty thousand points
_LEAST_JSON = 3 << 28  # bytes that are read on any machine; COCO's largest label file has 450 MB
_JSON_TIMES = 8  # JSON in memory takes so many times its bytes, as objects of Python
_CHUNK = 1 << 20

T = TypeVar("T")
_UNWRITABLE = re.compile(r"[\0\ud800-\udfff]")  # NUL, and halves of characters
_HALVES = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # halves of characters, escaped or not
_MARKS = (  # UTF-32's begins as UTF-16's does, so it is looked for first
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


def decoded(data: bytes) -> str:
    """Text of a file as its byte order mark says, which programs for Windows write; UTF-8 where there is none.

    Raises:
        UnicodeDecodeError: It is no such text.
    """
    return data.decode(_encoding(data))


def _encoding(head: bytes) -> str:
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def open_sized(path: Path, limit: int, remedy: str) -> BinaryIO:
    """Opens a regular file for reading, once its size is known to be within a limit.

    Args:
        path: The file; links are followed.
        limit: Bytes.
        remedy: The end of the error's line.

    Raises:
        InputError: It cannot be opened, is no regular file (a FIFO would be waited for without end), or is larger.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from None
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return file
    file.close()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is no regular file; {remedy}")
    raise InputError(f"{path}: {size_text(status.st_size)} is too large (at most {size_text(limit)}); {remedy}")


def read_sized(path: Path, limit: int, remedy: str) -> bytes:
    """All bytes of a file, as `open_sized` opens it; one that grows meanwhile is refused too."""
    with open_sized(path, limit, remedy) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    if len(data) > limit:
        raise InputError(f"{path}: is too large (at most {size_text(limit)}); {remedy}")
    return data


def read_json(path: Path, remedy: str) -> Any:
    """Reads a JSON file that fits into the memory of a command.

    Args:
        path: The file.
        remedy: The end of the error's line.

    Raises:
        InputError: It cannot be read, is too large, or is not JSON.
    """
    limit = max(_LEAST_JSON, memory_limit() // _JSON_TIMES)
    return parse_json(read_sized(path, limit, f"{remedy}, or set {MEMORY_VARIABLE} to more"), str(path), remedy)


def digest_of(path: Path, limit: int, remedy: str) -> str:
    """SHA-256 of a file's bytes, hex; opened as `open_sized` does, and read in parts."""
    found = hashlib.sha256()
    with open_sized(path, limit, remedy) as file:
        while part := file.read(_CHUNK):
            found.update(part)
    return found.hexdigest()


def size_text(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count} bytes"


def read_lines(path: Path, remedy: str) -> list[str]:
    """All of `each_line`."""
    return list(each_line(path, remedy))


def each_line(path: Path, remedy: str) -> Iterator[str]:
    """Lines of a text file as they are read, without the blanks and byte order marks around each.

    Whoever takes no more of them has read no more than a buffer beyond the last.

    Args:
        path: The file.
        remedy: The end of the error's line.

    Raises:
        InputError: It cannot be read, is too large, has too long a line, or is no text.
    """
    with open_sized(path, MAX_TEXT_BYTES, remedy) as file:
        text = io.TextIOWrapper(file, _encoding(cast("io.BufferedReader", file).peek(4)))
        left = MAX_TEXT_BYTES
        try:
            while line := text.readline(MAX_LINE):
                left -= len(line)
                if len(line) == MAX_LINE or left < 0:  # the file may grow meanwhile
                    what = "it" if left < 0 else "a line of it"
                    raise InputError(f"{path}: {what} is too long; {remedy}")
                yield line.strip("\ufeff \t\r\n\f\v")  # files that were joined hold a mark inside
        except UnicodeDecodeError:
            raise InputError(f"{path}: not a text file; {remedy}") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Reads a mapping from a YAML file.

    The bounds are those of files that people write: PyYAML's time grows with the square of the nesting, and aliases
    grow without end once they are written out, in a message for instance.

    Args:
        path: The file.
        what: What it should be, e.g. ``study file``.

    Raises:
        InputError: It is missing, too large, too deep, of too many aliases, not YAML, or not a mapping.
    """
    try:
        text = decoded(read_sized(path, MAX_YAML_BYTES, f"give the path of a {what}"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; give a {what} in YAML") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise InputError(f"{path}: must be a mapping of keys, as a {what} is")
    return data


def parse_yaml(text: str, name: str) -> Any:
    """Parses YAML within the bounds of `read_yaml`.

    Args:
        text: The YAML.
        name: What it is, the start of the error's line.

    Raises:
        InputError: It is not YAML, or beyond the bounds.
    """
    try:
        depth = aliases = 0
        for token in yaml.scan(text):
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            aliases += isinstance(token, yaml.AliasToken)
            if depth > MAX_YAML_DEPTH:
                raise InputError(f"{name}: not YAML of ours: nested more than {MAX_YAML_DEPTH} deep; write it flat")
        if aliases > MAX_YAML_ALIASES:
            raise InputError(f"{name}: {aliases} YAML aliases (at most {MAX_YAML_ALIASES}); write the values out")
        data = yaml.safe_load(text)
    except InputError:
        raise
    except Exception as error:  # PyYAML's own, and whatever its constructors of numbers, dates and sets let through
        raise InputError(f"{name}: not YAML: {' '.join(str(error).split())}; correct that line") from None
    _check_values(data, name)
    return data


def _check_values(data: Any, name: str) -> None:
    """Refuses values that no key of ours takes: too many of them, or such as cannot be a path or be written again.

    With every alias written out a tree has few nodes; one that holds itself never has.

    Raises:
        InputError: Names the value.
    """
    queue, seen = [data], 0
    while queue:
        node = queue.pop()
        seen += 1
        if isinstance(node, dict):
            queue += [*node.keys(), *node.values()]
        elif isinstance(node, (list, tuple, set)):
            queue += node
        elif isinstance(node, int) and node.bit_length() > 64:
            raise InputError(f"{name}: a number of {node.bit_length()} bits; 64 are the most that any key takes")
        elif isinstance(node, str) and _UNWRITABLE.search(node):
            raise InputError(f"{name}: {node[:40]!r} holds a character that no file name or text can; remove it")
        if seen + len(queue) > MAX_YAML_NODES:
            raise InputError(f"{name}: more than {MAX_YAML_NODES} values, its YAML aliases written out; shorten it")


def is_file(path: Path) -> bool:
    """Whether a path that somebody wrote into a file is one; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or a NUL or a lone surrogate in it
        return False


def is_folder(path: Path) -> bool:
    """`is_file`, for a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def parse_json(text: str | bytes, name: str, remedy: str) -> Any:
    """Parses JSON.

    Args:
        text: The JSON.
        name: What it is, the start of the error's line.
        remedy: Its end.

    Raises:
        InputError: It is not JSON, nested too deep, or holds a number of thousands of digits or half a character.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        found = json.loads(text)
        if _HALVES.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # what could not be written again fails here
        return found
    except (ValueError, RecursionError) as error:  # not UTF-8 and not JSON are ValueErrors too
        raise InputError(f"{name}: not JSON, or truncated ({' '.join(str(error).split())}); {remedy}") from None


def record_of(kind: type[T], data: object, name: str, remedy: str = "restore or delete it") -> T:
    """Turns plain data into dataclasses, lists and mappings of them, checking every type on the way.

    Args:
        kind: What it should become.
        data: Parsed JSON.
        name: What it is, the start of the error's line.
        remedy: Its end.

    Raises:
        InputError: It is something else; names the first place that is.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(cast("Hashable", kind))
        return adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{name}: not one of ours: {place}: {first['msg'].lower()}; {remedy}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def literal(text: str) -> Any:
    """Value of a Python literal that a stranger wrote into a model; None where it is none."""
    if len(text) > MAX_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # as its documentation names them
        return None
