"""Mutations that keep the frame of a format valid, so that damage gets behind it: .npy, zip, safetensors, PNG."""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import PurePath
from random import Random
from types import MappingProxyType

from reliability.fuzzing.mutations import (
    NAMES,
    NUMBERS,
    Mutation,
    changed_value,
    dumped,
    mutated_bytes,
    mutated_json,
    mutated_json_lines,
    mutated_text,
)

NPY_MAGIC = b"\x93NUMPY"
DTYPES = (
    *(
        "|O",
        "<f2",
        "<f4",
        ">f4",
        "<f8",
        ">f8",
        "<f16",
        "<c8",
        "|b1",
        "<i8",
        ">i8",
        "<u4",
        "|i1",
        "<U1000",
        "|S0",
        "|V0",
    ),
    *("<M8[s]", "|V8", "f", "", "<f3", "float32", "<f4,<f4", "O8", "<U99999999999", "|S-1", "(2,)<f4", "x" * 200),
)
DIMS = ("0", "-1", "1", "3", "2147483648", "9223372036854775807", "1" + "0" * 30, "1.0", "'3'", "None", "True", "(2,)")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def mutated_npy(content: bytes, dice: Random) -> bytes:
    """Another header (shape, type, order, version, length) with the same values; or damaged bytes."""
    if dice.random() < 0.3 or not content.startswith(NPY_MAGIC):
        return mutated_bytes(content, dice)
    length = struct.unpack_from("<H", content, 8)[0]
    header, values = content[10 : 10 + length].decode("latin-1"), content[10 + length :]
    if dice.random() < 0.2:
        return content[: 10 + length] + _special_values(values, dice)
    text = header.strip()
    for _ in range(dice.choice((1, 1, 2))):
        text = _changed_header(text, dice)
    encoded = (
        text.encode("latin-1", "replace") + b" " * dice.choice((0, 1, 63)) + dice.choice((b"\n", b"\n", b"", b"\0"))
    )
    version = dice.choice(((1, 0),) * 8 + ((2, 0), (3, 0), (0, 0), (255, 255)))
    form = "<H" if version[0] < 2 else "<I"
    stated = dice.choice((len(encoded),) * 8 + (0, 65535, len(encoded) + 7))
    return (
        NPY_MAGIC
        + bytes(version)
        + struct.pack(form, stated & (0xFFFF if form == "<H" else 0xFFFFFFFF))
        + encoded
        + values
    )


def _special_values(values: bytes, dice: Random) -> bytes:
    """NaN, infinity, the largest numbers and subnormal ones among the values."""
    special = struct.pack(dice.choice(("<f", "<d", "<e", "<q")), 0)
    if len(special) in (4, 8) and dice.random() < 0.8:
        special = struct.pack("<f", dice.choice((float("nan"), float("inf"), -float("inf"), 3.4e38, 1e-45, -1.0, 2.0)))
    at = 4 * dice.randrange(max(1, len(values) // 4))
    return values[:at] + special + values[at + len(special) :]


def _changed_header(text: str, dice: Random) -> str:
    match dice.randrange(7):
        case 0 | 1:
            dims = ", ".join(dice.choice(DIMS) for _ in range(dice.choice((0, 1, 2, 3, 3, 4, 40))))
            return _with(text, "shape", dice.choice((f"({dims},)", f"({dims})", f"[{dims}]", "()", "None", "3", "(,)")))
        case 2 | 3:
            kind = dice.choice(DTYPES)
            return _with(text, "descr", dice.choice((repr(kind), repr(kind), repr([("a", kind)]), "None", "1", "[]")))
        case 4:
            return _with(text, "fortran_order", dice.choice(("True", "1", "None", "'no'", "false")))
        case 5:
            depth = dice.choice((50, 300, 4000))
            junk = ("(" * depth + ")" * depth, "-" * depth + "1", "[" * depth, "1" * depth, "x", "{}", "'" * 3, "\\")
            return dice.choice((*junk, text[:-1] + ", 'extra': 1}", text + dice.choice(NAMES), "# " + text))
        case _:
            return mutated_text(text.encode("latin-1"), dice).decode("latin-1")


def _with(text: str, key: str, value: str) -> str:
    """The header with another value of a key, as it may be written by hand."""
    start = text.find(f"'{key}'")
    if start < 0:
        return text
    stop = min((at for at in (text.find(", '", start + 2), text.find("}", start)) if at >= 0), default=len(text))
    return f"{text[:start]}'{key}': {value}{text[stop:]}"


def mutated_safetensors(content: bytes, dice: Random) -> bytes:
    """Another header over the same values: names, types, shapes, offsets, length; or damaged bytes."""
    length = int.from_bytes(content[:8], "little")
    if dice.random() < 0.3 or length > len(content):
        return mutated_bytes(content, dice)
    if dice.random() < 0.2:
        return content[: 8 + length] + _special_values(content[8 + length :], dice)
    header = dumped(changed_value(json.loads(content[8 : 8 + length]), dice), dice)
    stated = dice.choice((len(header),) * 6 + (0, len(header) + 9, 2**63, 2**64 - 1, 100_000_000))
    return stated.to_bytes(8, "little") + header + content[8 + length :]


def mutated_zip(content: bytes, dice: Random) -> bytes:
    """An archive with a mutated, renamed, missing or repeated member; or damaged bytes."""
    if dice.random() < 0.35:
        return mutated_bytes(content, dice)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(one.filename, one.compress_type, archive.read(one)) for one in archive.infolist()]
    at = dice.randrange(len(members))
    name, compression, values = members[at]
    match dice.randrange(8):
        case 0:
            members[at] = (dice.choice(NAMES).encode("utf-8", "replace").decode() or "x", compression, values)
        case 1:
            del members[at]
        case 2:
            members.append(members[at])
        case 3:
            members[at] = (name, dice.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)), values)
        case _:
            members[at] = (name, compression, mutated(name, values, dice))
    made = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(made, "w") as archive:
        for member, kind, values in members:
            archive.writestr(zipfile.ZipInfo(member), values, kind)
    return mutated_bytes(made.getvalue(), dice) if dice.random() < 0.1 else made.getvalue()


def mutated_gzip(content: bytes, dice: Random) -> bytes:
    """Mutated text under a valid compression; or damaged bytes."""
    if dice.random() < 0.4:
        return mutated_bytes(content, dice)
    return gzip.compress(mutated_text(gzip.decompress(content), dice), 1)


def mutated_png(content: bytes, dice: Random) -> bytes:
    """A changed, missing, repeated or moved chunk with a right checksum; or damaged bytes."""
    if dice.random() < 0.35:
        return mutated_bytes(content, dice)
    chunks, at = [], len(PNG_MAGIC)
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    place = dice.randrange(len(chunks))
    kind, values = chunks[place]
    match dice.randrange(6):
        case 0:
            del chunks[place]
        case 1:
            chunks[place:place] = [chunks[place]] * dice.choice((1, 3, 40))
        case 2:
            dice.shuffle(chunks)
        case 3:
            sides = [dice.choice((0, 1, 100, 12_000, 65_535, 2**31 - 1)).to_bytes(4, "big") for _ in range(2)]
            chunks[0] = (chunks[0][0], b"".join(sides) + chunks[0][1][8:])
        case 4:
            text = b"a\0\0" + zlib.compress(b"\0" * dice.choice((10, 10_000, 2_000_000)), 9)
            chunks.insert(1, (dice.choice((b"zTXt", b"iCCP", b"tEXt", b"iTXt", b"eXIf", b"tRNS", b"PLTE")), text))
        case _:
            chunks[place] = (kind, mutated_bytes(values, dice))
    return PNG_MAGIC + b"".join(_chunk(*one) for one in chunks)


def _chunk(kind: bytes, values: bytes) -> bytes:
    return len(values).to_bytes(4, "big") + kind + values + zlib.crc32(kind + values).to_bytes(4, "big")


def mutated_word2vec(content: bytes, dice: Random) -> bytes:
    """Another first line over the same binary values; or damaged bytes."""
    if dice.random() < 0.5:
        return mutated_bytes(content, dice)
    _, _, rest = content.partition(b"\n")
    return f"{dice.choice(NUMBERS)} {dice.choice((*NUMBERS, '4'))}\n".encode() + rest


BY_SUFFIX: Mapping[str, Mutation] = MappingProxyType(
    {
        ".npy": mutated_npy,
        ".json": mutated_json,
        ".jsonl": mutated_json_lines,
        ".npz": mutated_zip,
        ".pt": mutated_zip,
        ".pth": mutated_zip,
        ".zip": mutated_zip,
        ".safetensors": mutated_safetensors,
        ".gz": mutated_gzip,
        ".png": mutated_png,
        ".txt": mutated_text,
        ".csv": mutated_text,
        ".tsv": mutated_text,
        ".log": mutated_text,
        ".xml": mutated_text,
        ".vec": mutated_text,
    }
)
"""The mutation of each kind of file; others are mutated as bytes."""


def mutated(name: str, content: bytes, dice: Random) -> bytes:
    """A mutation of a file by its name; of one that is no such file, of its bytes."""
    mutation = BY_SUFFIX.get(PurePath(name).suffix, mutated_bytes)
    try:
        return mutation(content, dice)
    except (ValueError, struct.error, EOFError, OSError, zipfile.BadZipFile, RecursionError):
        return mutated_bytes(content, dice)
