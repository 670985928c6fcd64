"""Mutations: of bytes, of JSON and YAML trees, of YAML text. Each takes its randomness as an argument."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import yaml

Draw = random.Random

#: Stand for what `json.dumps` cannot write, and are replaced in its text.
_DEEP, _HUGE = "@deep@", "@huge@"
HOSTILE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, 0.5, 1e-320, math.nan, math.inf,
    "", "1", "NaN", "x" * 70_000, "\0", "\ud800", "a\nb\rc", "\x1b[31m", "../../outside/secret.bin", "/etc/passwd",
    "~/x", "%s{0}", "int8", "fp16", [], {}, [[]], [0] * 5, {"a": 1}, {"": None}, _DEEP, _HUGE,
)  # fmt: skip
_NUMBERS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8, b"\xff" * 9 + b"\x01")


def bytes_changed(draw: Draw, data: bytes, other: bytes = b"") -> bytes:
    """One to four changes: bits flipped, cut, spliced with another file, blocks removed, doubled or overwritten."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = _bytes_changed_once(draw, data, other)
    return data


def _bytes_changed_once(draw: Draw, data: bytes, other: bytes) -> bytes:
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + int(2 ** draw.uniform(0, 12)))
    match draw.randrange(8):
        case 0:
            changed = bytearray(data)
            for _ in range(draw.choice((1, 1, 8, 64)) if data else 0):
                changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            return bytes(changed)
        case 1:
            return data[:start]
        case 2:
            cut = draw.randrange(len(other) + 1)
            return data[:start] + other[cut:]
        case 3:
            return data[:start] + data[end:]
        case 4:
            return data[:end] + data[start:]
        case 5:
            return data[:start] + draw.choice((b"\0", b"\xff")) * (end - start) + data[end:]
        case 6:
            number = draw.choice(_NUMBERS)
            return data[:start] + number + data[start + len(number) :]
        case _:
            return data[:start] + draw.randbytes(end - start) + data[end:]


def tree_changed(draw: Draw, tree: Any, times: int | None = None) -> Any:
    """One to three nodes of a JSON or YAML tree replaced, removed, doubled, renamed or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(times or draw.choice((1, 1, 1, 2, 3))):
        places = _places(tree)
        if not places:
            return draw.choice(HOSTILE)
        holder, key = draw.choice(places)
        match draw.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case 1 | 2 if isinstance(holder, dict):
                holder[draw.choice(("", "x", "id", "\ud800", "0", str(key) + "s"))] = holder.pop(key)
            case 3:
                other, name = draw.choice(places)
                if name in other if isinstance(other, dict) else name < len(other):
                    holder[key] = copy.deepcopy(other[name])
            case 4 if isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
                holder[key] = draw.choice((-holder[key], holder[key] * 2**40, str(holder[key]), [holder[key]]))
            case _:
                holder[key] = copy.deepcopy(draw.choice(HOSTILE))
    return draw.choice(HOSTILE) if draw.random() < 0.02 else tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    queue = [tree]
    while queue and len(found) < 5000:
        node = queue.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            found.append((node, key))
            if isinstance(value, (dict, list)):
                queue.append(value)
    return found


def json_text(draw: Draw, tree: Any) -> bytes:
    """The tree as JSON, with the nests and numbers that only text can hold."""
    return _filled(draw, json.dumps(tree, ensure_ascii=draw.random() < 0.9))


def json_changed(draw: Draw, data: bytes, other: bytes = b"") -> bytes:
    """A JSON file changed in its tree, mostly, or in its bytes."""
    if draw.random() < 0.75:
        return json_text(draw, tree_changed(draw, json.loads(data)))
    if draw.random() < 0.1:
        depth = draw.choice((1000, 100_000))
        return draw.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth, b"9" * 10_000))
    return bytes_changed(draw, data, other)


def yaml_changed(draw: Draw, data: bytes, other: bytes = b"") -> bytes:
    """A YAML file changed in its tree, mostly, in its bytes, or replaced by a bomb."""
    if draw.random() < 0.7:
        tree = tree_changed(draw, yaml.safe_load(data))
        return _filled(draw, yaml.safe_dump(tree, allow_unicode=draw.random() < 0.1, sort_keys=False))
    return yaml_bomb(draw, data) if draw.random() < 0.5 else bytes_changed(draw, data, other)


def yaml_bomb(draw: Draw, data: bytes) -> bytes:
    """Aliases that double, nests, tags, odd keys and numbers."""
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, draw.choice((4, 9, 30)))]
    double = [
        "b0: &b0 [x, x]",
        *(f"b{i}: &b{i} [*b{i - 1}, *b{i - 1}]" for i in range(1, 16)),
        "path: *b15",
        "val: *b15",
    ]
    depth = draw.choice((50, 900, 5000, 100_000))
    bombs = (
        "\n".join(laughs),
        "\n".join(double),
        "[" * depth,
        "{a: " * depth,
        "- " * depth,
        "? " * depth,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "<<: &a {<<: *a}",
        "!!python/object/apply:os.system ['touch ../outside/owned']",
        "!!binary xx",
        "!!timestamp 2001-99-99",
        "!!set {a, b}",
        "? [a]\n: b",
        "? {a: b}\n: c",
        "search: {trials: 0x" + "f" * draw.choice((10, 8000)) + "}",
        "search: {trials: " + "9" * draw.choice((10, 8000)) + "}",
        "search: {hours: " + "1:" * 3000 + "1.5}",
        "search: {seed: .nan}",
        "name: " + "y" * draw.choice((1000, 2_000_000)),
        "name: [" + "1, " * draw.choice((1000, 300_000)) + "]",
        "\n".join(f"k{i}: 1" for i in range(draw.choice((100, 60_000)))),
        "%YAML 9.9\n---\na: 1",
        "--- a\n--- b",
        "\ufeffname: x",
        "name: \0",
    )
    text = draw.choice(bombs).encode()
    return data + b"\n" + text if draw.random() < 0.5 else text + b"\n" + (data if draw.random() < 0.5 else b"")


def lines_changed(draw: Draw, data: bytes, other: bytes = b"") -> bytes:
    """A text of lines changed in lines, words or bytes."""
    lines = data.split(b"\n")
    where = draw.randrange(len(lines))
    odd = (
        b"nan",
        b"-1",
        b"1e400",
        b"\xff",
        b"..",
        b"/etc/passwd",
        b"x" * 5000,
        b"0 " * 9,
        b"\0",
        b"../" * 900 + b"a.png",
    )
    match draw.randrange(6):
        case 0:
            lines[where] = draw.choice(odd)
        case 1:
            lines.insert(where, lines[draw.randrange(len(lines))])
        case 2:
            words = lines[where].split(b" ")
            words[draw.randrange(len(words))] = draw.choice(odd)
            lines[where] = b" ".join(words)
        case 3:
            del lines[where]
        case 4:
            lines *= draw.choice((2, 3000))
        case _:
            return bytes_changed(draw, data, other)
    return b"\n".join(lines)


def _filled(draw: Draw, text: str) -> bytes:
    depth = draw.choice((30, 1500, 100_000))
    deep = draw.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth))
    for mark, value in ((_DEEP, deep), (_HUGE, "9" * 6000)):
        for quoted in (f'"{mark}"', f"'{mark}'", mark):
            text = text.replace(quoted, value)
    return text.encode(errors="surrogatepass")
