"""A .env file, read and written as python-dotenv reads it."""

import os
import re
from io import StringIO
from pathlib import Path

from django.core.management.base import CommandError


class EnvFile:
    """The .env file at `path`. It is created if it is missing, and readable by its owner only.

    Raises CommandError if it cannot be read or written, or python-dotenv is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            from dotenv.parser import parse_stream
        except ImportError:
            raise CommandError(
                "--env-file needs python-dotenv: python -m pip install python-dotenv."
            ) from None
        self._shown = path
        self._path = path.resolve()  # so that a symbolic link is not replaced by a file
        try:
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
            self._text = self._path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise self._failed(error) from None
        except UnicodeDecodeError:
            raise CommandError(f"Cannot read {path}: it is not UTF-8.") from None
        self._bindings = list(parse_stream(StringIO(self._text, newline="")))

    def get(self, name: str) -> str:
        """Return the value of `name`: the last one in the file; "" if there is none."""
        values = [binding.value for binding in self._bindings if binding.key == name]
        return (values[-1] or "") if values else ""

    def has(self, name: str) -> bool:
        """Return True if any line sets `name`, even one that python-dotenv cannot parse."""
        return any(
            (binding.key == name and binding.value)
            or (binding.error and re.search(rf"\b{name}\b", binding.original.string))
            for binding in self._bindings
        )

    def set(self, values: dict[str, str]) -> Path | None:
        """Set `values`, and keep all other lines.

        Returns the path of a backup of the old file, None if that was empty.
        """
        newline = "\r\n" if "\r\n" in self._text else "\n"
        kept = [b.original.string for b in self._bindings if b.key not in values]
        text = "".join(kept)
        if text and not text.endswith("\n"):
            text += newline
        text += "".join(f"{name}={value}{newline}" for name, value in values.items())
        try:
            return self._replace(text)
        except OSError as error:
            raise self._failed(error) from None

    def _replace(self, text: str) -> Path | None:
        """Replace the file atomically: a process that is killed leaves the old or the new file."""
        old = None
        if self._text:
            old = self._path.with_name(f"{self._path.name}.old")
            self._write(old, self._text)
        new = self._path.with_name(f"{self._path.name}.new")
        self._write(new, text)
        new.replace(self._path)
        return old

    def _write(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def _failed(self, error: OSError) -> CommandError:
        return CommandError(f"Cannot write {self._shown}: {error.strerror}.")
