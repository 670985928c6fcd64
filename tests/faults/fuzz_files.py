"""Mutations of checkpoints and of SQLite files."""

from __future__ import annotations

import io
import json
import pickle
import sqlite3
import struct
import zipfile
from pathlib import Path
from typing import Any

from fuzz_mutations import HOSTILE, Draw, bytes_changed

_STUDY_TABLES = ("studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials",
                 "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes", "version_info",
                 "alembic_version")  # fmt: skip


def checkpoint_changed(draw: Draw, data: bytes, owned: Path) -> tuple[bytes, bool]:
    """A changed checkpoint, and whether it must be refused: it would write the file `owned` if its pickle were run."""
    match draw.randrange(5):
        case 0:
            return bytes_changed(draw, data), False
        case 1:
            return _with_pickle(data, bytes_changed(draw, _pickle_of(data))), False
        case 2:
            return _with_pickle(data, _odd_content(draw)), True
        case 3:
            return _hidden(draw, data, _malice(draw, owned)), True
        case _:
            return _odd_archive(draw, data), False


def _pickle_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _with_pickle(data: bytes, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", compression) as target:
        for name in archive.namelist():
            target.writestr(name, content if name.endswith("data.pkl") else archive.read(name))
    return out.getvalue()


def _hidden(draw: Draw, data: bytes, content: bytes) -> bytes:
    """In an archive, or bare, or as a legacy file's first pickle."""
    return draw.choice((_with_pickle(data, content), content, pickle.dumps(0x1950A86A20F9469CFC6C, 2) + content))


def _malice(draw: Draw, owned: Path) -> bytes:
    """Pickles that would call something."""
    text = str(owned)
    call = f"open({text!r}, 'w')"
    name = struct.pack("<B", len(text)) + text.encode()
    stack = b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c" + name + b"\x85R."
    found = (
        b"cposix\nsystem\n(V" + f"touch {text}".encode() + b"\ntR.",
        b"cbuiltins\neval\n(V" + call.encode() + b"\ntR.",
        b"c__builtin__\nexec\n(V" + call.encode() + b"\ntR.",
        b"cbuiltins\nopen\n(V" + text.encode() + b"\nVw\ntR.",
        b"(dVmodel\ncos\nmkdir\n(V" + text.encode() + b"\ntRs.",
        b"(V" + text.encode() + b"\niposix\nmkdir\n.",
        stack,
        b"ctorch\nsave\n(I1\nV" + text.encode() + b"\ntR.",
        b"ctorch.serialization\n_save\n(V" + text.encode() + b"\ntR.",
        b"ctorch.hub\nload\n(Vx/y\nVz\ntR.",
        b"cnumpy\nsave\n(V" + text.encode() + b"\nI1\ntR.",
        b"cultralytics.utils.downloads\nsafe_download\n(Vhttp://127.0.0.1:9/x\nV" + text.encode() + b"\ntR.",
        b"cultralytics.nn.tasks\nattempt_load_one_weight\n(V" + text.encode() + b"\ntR.",
        b"cbuiltins\ngetattr\n(cos\nVsystem\ntR(V" + f"touch {text}".encode() + b"\ntR.",
    )
    return draw.choice(found)


def _odd_content(draw: Draw) -> bytes:
    """Pickles that are allowed, and hold no detector."""
    value = draw.choice((*HOSTILE, {"model": 1}, {"ema": [], "model": "x"}, {"model": {"names": 1}}, {1: 2}))
    if draw.random() < 0.4 and isinstance(value, (dict, list)):
        value = {"model": value, "train_args": draw.choice((1, "x", [1], None)), "ema": draw.choice((0, [], {}, "e"))}
    odd: tuple[bytes, ...] = (
        pickle.dumps(value, 2),
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02" + b"(" * 200_000 + b".",
        b"\x80\x02" + b"X" + struct.pack("<I", 0xFFFFFFFF) + b"x.",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"\0.",
        b"\x80\x02K\x01" + b"\x86" .join([b"2"] * 60) + b".",
        b"\x80\x02r" + struct.pack("<I", 0xFFFFFFFF) + b"N.",
        b"\x80\x02}q\0(X\x05\0\0\0modelctorch\nzeros\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftRu.",
        b"\x80\x02}X\x05\0\0\0modelctorch.nn.modules.conv\nConv2d\n)\x81s.",
        b"\x80\x02}X\x05\0\0\0modelcultralytics.nn.tasks\nDetectionModel\n)\x81s.",
        b"\x80\x02}X\x05\0\0\0modelcultralytics.nn.tasks\nDetectionModel\n)\x81}X\x05\0\0\0namesK\x01sbs.",
        b"\x80\x02}X\x05\0\0\0modelctorch\nSize\n]K\x01a\x85Rs.",
        b"\x80\x02}X\x05\0\0\0modelccollections\nOrderedDict\n)Rs.",
    )  # fmt: skip
    return draw.choice(odd)


def _odd_archive(draw: Draw, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        odd = draw.choice(names)
        kind = draw.randrange(4)
        with zipfile.ZipFile(
            out, "w", zipfile.ZIP_DEFLATED if kind == 0 else zipfile.ZIP_STORED, compresslevel=1
        ) as target:
            for name in names:
                content = archive.read(name)
                if name == odd and kind == 0:  # a bomb, of zeros; a larger one takes its maker longer than its reader
                    content = bytes(64 << 20)
                if name == odd and kind == 1:
                    content = content[: len(content) // 2]
                if name == odd and kind == 2:
                    continue
                target.writestr("../../outside/x" if name == odd and kind == 3 else name, content)
    return out.getvalue()


def database_changed(draw: Draw, path: Path) -> None:
    """Damages pages, cells, tables or the schema of a SQLite file in place."""
    kind = draw.randrange(6)
    data = path.read_bytes()
    if kind == 0:
        path.write_bytes(bytes_changed(draw, data))
    elif kind == 1:  # one page, its header most likely
        page = 4096 * draw.randrange(len(data) // 4096)
        at = page + (draw.randrange(100) if draw.random() < 0.6 else draw.randrange(4096))
        path.write_bytes(data[:at] + draw.randbytes(draw.choice((1, 2, 16, 200))) + data[at:][200:])
        changed = bytearray(data)
        changed[at : at + 8] = draw.randbytes(len(changed[at : at + 8]))
        path.write_bytes(changed)
    elif kind == 2:  # the file's header
        changed = bytearray(data)
        changed[draw.randrange(100)] = draw.randrange(256)
        path.write_bytes(changed)
    else:
        _sql_changed(draw, path)


def _sql_changed(draw: Draw, path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys=OFF")
    table = draw.choice(_STUDY_TABLES)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    column = draw.choice(columns)
    rows = [row[0] for row in connection.execute(f"SELECT rowid FROM {table}")]
    row = draw.choice(rows) if rows else 0
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"
    try:
        match draw.randrange(11):
            case 0 | 1 | 2:
                where = f" WHERE rowid = {row}" if draw.random() < 0.8 else ""
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?{where}", (_cell(draw),))
            case 3:
                connection.execute(f"DELETE FROM {table}" + (f" WHERE rowid = {row}" if draw.random() < 0.7 else ""))
            case 4:
                connection.execute(f"DROP TABLE {table}")
            case 5:
                connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO odd")
            case 6:
                select = f"{endless} count(*) FROM c"
                connection.execute(f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END")
                connection.execute(f"CREATE TRIGGER u AFTER UPDATE ON {table} WHEN ({select}) > 0 BEGIN SELECT 1; END")
            case 7:
                connection.execute(f"ALTER TABLE {table} RENAME TO moved")
                connection.execute(f"CREATE VIEW {table} AS {endless} {', '.join(f'x AS {c}' for c in columns)} FROM c")
            case 8 | 9:
                _space_changed(draw, connection)
            case _:
                _json_cells_changed(draw, connection)
        connection.commit()
    except sqlite3.Error:
        connection.rollback()
    connection.close()


def _cell(draw: Draw) -> Any:
    value = draw.choice((None, -1, 0, 1 << 62, 1e308, "", "x", b"\xff\0", "NaN", "[", "2020-99-99", "RUNNING", "{}"))
    return draw.choice((value, json.dumps(draw.choice([v for v in HOSTILE if v != "\ud800"]))))


def _space_changed(draw: Draw, connection: sqlite3.Connection) -> None:
    """Parameters of another space: choices added, missing, in another order, of another kind; a group more or less."""
    name, text = draw.choice(
        connection.execute("SELECT DISTINCT param_name, distribution_json FROM trial_params").fetchall()
    )
    choices = json.loads(text)["attributes"]["choices"]
    number = {"log": False, "step": 1, "low": 0, "high": 9}
    others = draw.choice((choices[::-1], choices[1:], [*choices, "int4"], [0, 1]))
    kind, facts = draw.choice(
        (("CategoricalDistribution", {"choices": others}), ("IntDistribution", number),
         ("FloatDistribution", {**number, "step": None}))
    )  # fmt: skip
    where = f" WHERE param_name = ?{draw.choice(('', ' AND trial_id % 3 = 1'))}"
    match draw.randrange(3):
        case 0:
            connection.execute(f"DELETE FROM trial_params{where}", (name,))
        case 1:
            connection.execute(f"UPDATE trial_params SET param_name = 'other'{where}", (name,))
        case _:
            other = json.dumps({"name": kind, "attributes": facts})
            connection.execute(f"UPDATE trial_params SET param_value = 0, distribution_json = ?{where}", (other, name))


def _json_cells_changed(draw: Draw, connection: sqlite3.Connection) -> None:
    """What the tuner itself keeps with a trial: scores, failures, parameters and their choices."""
    from fuzz_mutations import json_text, tree_changed

    table, column = draw.choice((("trial_user_attributes", "value_json"), ("trial_params", "distribution_json"),
                                 ("trial_system_attributes", "value_json"), ("study_user_attributes", "value_json"),
                                 ("study_system_attributes", "value_json")))  # fmt: skip
    rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
    if rows:
        row, text = draw.choice(rows)
        changed = json_text(draw, tree_changed(draw, json.loads(text))).decode(errors="replace")
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
