"""Mutations of bytes, text and JSON: from a valid input to a damaged or hostile one, by random numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any, Literal

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (
    *("0", "-1", "1", "7", "255", "65536", "2147483647", "2147483648", "4294967296", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551616", "-9223372036854775809", "1" + "0" * 30, "9" * 400, "9" * 5000),
    *("1e308", "1e999", "-1e999", "1e-320", "nan", "NaN", "inf", "-Infinity", "Infinity", "0.5", "-0.0", "1_000"),
    *("0x10", "01", "1.", ".5", "1e", "--1", "\u0663", "\u00bd", "1,5", "1 000"),
)
"""Spellings of numbers that readers get wrong: limits of types, not finite, too long, of other scripts."""
NAMES = (
    *("", ".", "..", "../x", "../../../outside/decoy.txt", "/etc/passwd", "/proc/self/fd/1", "a/b", "a\\..\\b"),
    *("a\0b", "\0", "x" * 300, "x" * 5000, "\ud800", "\udcff", "a\nb", "a\rb", "\u2028", "e\u0301", "~root/x", "-rf"),
    *("file:///etc/passwd", "s3://bucket/key", "memory://x", "C:\\x", "nul", "\x1b[31mred", "\u202egpj.exe", " ", "\t"),
    *("%2e%2e/", "{0}", "%s%n", "<script>", "'; --", "\ufeff", "\U0001f600", "__proto__"),
)
"""Names and texts: path tricks, NUL, half surrogates, control characters, other syntaxes."""
BAD_BYTES = (
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\x80",
    b"\x1a",
)
"""NUL, invalid UTF-8, half surrogates, byte-order marks."""
LINE_ENDS = (b"\r\n", b"\r", b"\n\n", b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"\n\r", b"\0\n")
"""Ends of lines, and what Python's `splitlines` takes for one."""
BOUNDARIES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
RAW = "\ue000raw\ue000"
"""Stands for text that is no JSON, in a value that is dumped."""
NESTED = (300, 5_000, 100_000)
"""Depths of nesting, around and far above the limit of recursion."""


def mutated_bytes(content: bytes, dice: Random) -> bytes:
    """One to four mutations that need no format."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        content = dice.choice(BYTE_MUTATIONS)(content, dice)
    return content


def flip_bits(content: bytes, dice: Random) -> bytes:
    """Flip one to eight bits."""
    values = bytearray(content)
    for _ in range(dice.randint(1, 8) if values else 0):
        values[dice.randrange(len(values))] ^= 1 << dice.randrange(8)
    return bytes(values)


def set_bytes(content: bytes, dice: Random) -> bytes:
    """Overwrite with bytes of limits, or a number of a limit in either byte order."""
    if dice.random() < 0.5:
        new = bytes([dice.choice((0, 1, 9, 10, 0x20, 0x7F, 0x80, 0xFF))]) * dice.choice((1, 1, 2, 4, 16, 64))
    else:
        new = _number(dice)
    at = dice.randrange(len(content) + 1)
    return content[:at] + new + content[at + len(new) :]


def _number(dice: Random) -> bytes:
    size = dice.choice((1, 2, 4, 8))
    order: Literal["little", "big"] = "little" if dice.random() < 0.5 else "big"
    return int(dice.choice(BOUNDARIES) % 2 ** (8 * size)).to_bytes(size, order)


def insert_bytes(content: bytes, dice: Random) -> bytes:
    """Insert NUL, invalid UTF-8, ends of lines, or random bytes."""
    new = dice.choice((*BAD_BYTES, *LINE_ENDS, dice.randbytes(dice.choice((1, 3, 17, 200)))))
    at = dice.randrange(len(content) + 1)
    return content[:at] + new + content[at:]


def cut(content: bytes, dice: Random) -> bytes:
    """Cut short, or cut the beginning away."""
    at = dice.randrange(len(content) + 1)
    return content[:at] if dice.random() < 0.8 else content[at:]


def delete_block(content: bytes, dice: Random) -> bytes:
    """Leave a block out."""
    start, stop = _block(content, dice)
    return content[:start] + content[stop:]


def repeat_block(content: bytes, dice: Random) -> bytes:
    """Repeat a block at its place or at another one."""
    start, stop = _block(content, dice)
    at = stop if dice.random() < 0.5 else dice.randrange(len(content) + 1)
    return content[:at] + content[start:stop] * dice.choice((1, 1, 2, 20, 500)) + content[at:]


def swap_blocks(content: bytes, dice: Random) -> bytes:
    """Exchange two neighbouring blocks."""
    first, middle, last = sorted(dice.randrange(len(content) + 1) for _ in range(3))
    return content[:first] + content[middle:last] + content[first:middle] + content[last:]


def _block(content: bytes, dice: Random) -> tuple[int, int]:
    start = dice.randrange(len(content) + 1)
    return start, min(len(content), start + dice.choice((1, 2, 8, 64, 512, 4096)))


def change_number(content: bytes, dice: Random) -> bytes:
    """Another number in the place of one that is written in digits."""
    found = list(NUMBER.finditer(content[: 2**16]))
    if not found:
        return flip_bits(content, dice)
    one = dice.choice(found)
    return content[: one.start()] + dice.choice(NUMBERS).encode() + content[one.end() :]


def replace_all(content: bytes, dice: Random) -> bytes:
    """Nothing, zeros, one byte, random bytes, or the content many times."""
    return dice.choice((b"", b"\0" * len(content), b"\n", b"{}", b"[]", dice.randbytes(64), content * 3, b"\xff" * 512))


BYTE_MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits,
    set_bytes,
    set_bytes,
    insert_bytes,
    cut,
    delete_block,
    repeat_block,
    swap_blocks,
    change_number,
    change_number,
)


def mutated_text(content: bytes, dice: Random) -> bytes:
    """One to four mutations of lines, words and numbers, or of bytes."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        content = dice.choice(TEXT_MUTATIONS)(content, dice)
    return content


def change_line_ends(content: bytes, dice: Random) -> bytes:
    """Another end in the place of one line's end, or of all."""
    end = dice.choice(LINE_ENDS)
    if dice.random() < 0.5:
        return content.replace(b"\n", end)
    lines = content.split(b"\n")
    at = dice.randrange(len(lines))
    return b"\n".join(lines[: at + 1]) + end + b"\n".join(lines[at + 1 :])


def change_lines(content: bytes, dice: Random) -> bytes:
    """Leave out, repeat, exchange, empty or lengthen a line."""
    lines = content.split(b"\n")
    at = dice.randrange(len(lines))
    match dice.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines[at:at] = [lines[at]] * dice.choice((1, 2, 50))
        case 2:
            dice.shuffle(lines)
        case 3:
            lines[at] = dice.choice((b"", b" ", b"\t", b"\0", b"#"))
        case 4:
            lines[at] = lines[at] * dice.choice((2, 10, 2000))
        case _:
            lines[at] += dice.choice((b" ", b"\t", b",", b'"', b"'", b"\\")) + lines[dice.randrange(len(lines))]
    return b"\n".join(lines)


def change_word(content: bytes, dice: Random) -> bytes:
    """A name of `NAMES`, or quotes and separators, in the place of a word."""
    found = list(re.finditer(rb"[^\s,\t]+", content[: 2**16]))
    new = dice.choice(
        (*(name.encode("utf-8", "surrogatepass") for name in NAMES), b'"', b'""', b"\t", b",", b"=", b";")
    )
    if not found:
        return new
    one = dice.choice(found)
    return content[: one.start()] + new + content[one.end() :]


TEXT_MUTATIONS: tuple[Mutation, ...] = (
    change_line_ends,
    change_lines,
    change_lines,
    change_word,
    change_word,
    change_number,
    change_number,
    insert_bytes,
    flip_bits,
    cut,
    repeat_block,
    replace_all,
)


def mutated_json(content: bytes, dice: Random) -> bytes:
    """A document with other keys, types and values, or with damaged bytes."""
    if dice.random() < 0.3:
        return mutated_text(content, dice)
    return dumped(changed_value(json.loads(content), dice), dice)


def mutated_json_lines(content: bytes, dice: Random) -> bytes:
    """Lines of which one has other keys, types and values; or mutated text."""
    if dice.random() < 0.4:
        return mutated_text(content, dice)
    lines = content.removesuffix(b"\n").split(b"\n")
    at = dice.randrange(len(lines))
    lines[at] = dumped(changed_value(json.loads(lines[at]), dice), dice).rstrip(b"\n")
    return b"\n".join(lines) + b"\n"


def dumped(value: Any, dice: Random) -> bytes:
    """A value as JSON, with what is no JSON in the places of `RAW`, in one of several encodings."""
    text = json.dumps(value, indent=dice.choice((None, 1)), ensure_ascii=dice.random() < 0.5)
    if RAW in text or json.dumps(RAW) in text:
        text = text.replace(json.dumps(RAW), raw := _raw(dice)).replace(f'"{RAW}"', raw)
    encoding = dice.choice(("utf-8",) * 12 + ("utf-8-sig", "utf-16", "latin-1"))
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


def _raw(dice: Random) -> str:
    depth = dice.choice(NESTED)
    return dice.choice(
        (
            "[" * depth + "]" * depth,
            '{"a":' * depth + "1" + "}" * depth,
            "[" * depth,
            dice.choice(NUMBERS),
            "NaN",
            "-Infinity",
            "'a'",
            "True",
            "",
            "// comment",
        )
    )


def changed_value(value: Any, dice: Random) -> Any:
    """A copy of a JSON value with one to three changes."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        value = _changed(value, dice)
    return value


def _changed(value: Any, dice: Random) -> Any:
    """Go down to a random place, and change what is there."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        if dice.random() < 0.2:
            return _changed_keys(value, dice)
        key = dice.choice(list(value))
        return {**value, key: _changed(value[key], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        if dice.random() < 0.2:
            return _changed_list(value, dice)
        at = dice.randrange(len(value))
        return [*value[:at], _changed(value[at], dice), *value[at + 1 :]]
    return replacement(value, dice)


def _changed_keys(value: dict[str, Any], dice: Random) -> dict[str, Any]:
    key = dice.choice(list(value))
    rest = {name: one for name, one in value.items() if name != key}
    match dice.randrange(4):
        case 0:
            return rest
        case 1:
            return {**rest, dice.choice((key.upper(), key + " ", key[:-1], *NAMES)): value[key]}
        case 2:
            return {**value, dice.choice((*NAMES, "extra")): replacement(value[key], dice)}
        case _:
            other = dice.choice(list(value))
            return {**value, key: value[other], other: value[key]}


def _changed_list(value: list[Any], dice: Random) -> list[Any]:
    at = dice.randrange(len(value))
    match dice.randrange(4):
        case 0:
            return [*value[:at], *value[at + 1 :]]
        case 1:
            return [*value[:at], *[value[at]] * dice.choice((2, 3, 100)), *value[at + 1 :]]
        case 2:
            return value[::-1]
        case _:
            return []


def replacement(value: Any, dice: Random) -> Any:
    """Another value: near the old one, or of any type."""
    if isinstance(value, bool) or value is None or dice.random() < 0.35:
        return dice.choice((None, True, False, 0, -1, 1.5, "", "1", [], {}, [value], {"a": value}, RAW, RAW))
    if isinstance(value, int):
        near = (value + 1, value - 1, -value, value * 1000, 0, 2**31, 2**53, 2**63, 10**18, 10**30, float(value), 1e300)
        return dice.choice((*near, str(value), float("nan"), float("inf")))
    if isinstance(value, float):
        return dice.choice((0.0, -value, value * 1e9, 1e308, float("nan"), float("inf"), -float("inf"), 1, str(value)))
    if isinstance(value, str):
        return dice.choice(
            (*NAMES, value + "\0", value * 2, value.upper(), value[:-1], value + "\ud800", f"../{value}")
        )
    return dice.choice((None, [], {}, 0, "text", [value], RAW))
