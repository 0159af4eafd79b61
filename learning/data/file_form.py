"""The form of a data file: what its first bytes say, and what to do with a form that is not read.

In the data path: called by `learning.data.tables`.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import DataError

HEAD = 4096
"""First bytes that show the form of a file."""

_UNPACK = "unpack it, and give the file inside"
_OTHER_FORMS = {
    b"\x1f\x8b": ("is compressed with gzip", "unpack it with `gunzip`, and give the file inside"),
    b"PK\x03\x04": ("is a ZIP archive or an Excel workbook", "export its rows as CSV in UTF-8"),
    b"\xd0\xcf\x11\xe0": ("is an old Excel workbook", "export its rows as CSV in UTF-8"),
    b"BZh": ("is compressed with bzip2", _UNPACK),
    b"\xfd7zXZ": ("is compressed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd", _UNPACK),
    b"SQLite format 3\0": ("is an SQLite database", "export its rows as JSONL or CSV"),
    b"%PDF-": ("is a PDF", "write its rows as JSONL or CSV"),
}
_NOT_PARQUET = "is Parquet, and its name does not end in .parquet", "rename it"


def read_head(path: Path) -> bytes:
    """Return the first bytes of a readable file of text or Parquet, without a byte order mark.

    Raises:
        DataError: The file cannot be read, is empty, or is of a form that is not read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        raise DataError(f"data file {path} does not exist", "check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the path") from None
    except ValueError:  # a NUL in the path
        raise DataError(
            "the path of the data file holds a NUL character", "check the path"
        ) from None
    parquet = path.suffix.lower() == ".parquet"
    if not parquet:
        _check_form(path, head)
    head = head.removeprefix(b"\xef\xbb\xbf")
    if not head.strip():
        raise DataError(f"data file {path} is empty", "give a file with at least one row")
    return head


def line_end(head: bytes) -> bytes:
    """Return what ends the lines of a file: a line feed, or on old systems a carriage return."""
    return b"\r" if b"\r" in head.rstrip() and b"\n" not in head else b"\n"


def _check_form(path: Path, head: bytes) -> None:
    for magic, (what, remedy) in _OTHER_FORMS.items():
        if head.startswith(magic):
            raise DataError(f"{path} {what}, which is not read", remedy)
    if head.startswith(b"PAR1"):
        raise DataError(f"{path} {_NOT_PARQUET[0]}", _NOT_PARQUET[1])
    if encoding := _wide_encoding(head):
        raise DataError(
            f"{path} is not UTF-8 but {encoding} text",
            f"convert it to UTF-8: iconv -f {encoding} -t UTF-8 FILE > NEW",
        )


def _wide_encoding(head: bytes) -> str:
    """Return UTF-16 or UTF-32 if the text is in it, also without a mark; else nothing."""
    for mark, name in ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"),
                       (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):  # fmt: skip
        if head.startswith(mark):
            return name
    pairs = len(head) // 2
    if pairs < 2:
        return ""
    even, odd = head[0 : 2 * pairs : 2], head[1 : 2 * pairs : 2]
    if odd.count(0) > 0.7 * pairs and even.count(0) < 0.1 * pairs:
        return "UTF-16LE"
    if even.count(0) > 0.7 * pairs and odd.count(0) < 0.1 * pairs:
        return "UTF-16BE"
    return ""
