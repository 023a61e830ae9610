"""JSON that was written earlier and is read back: of the expected form, or one line that says what is wrong where."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from doremi import files
from doremi.errors import InputError

MAX_KEY_LENGTH = 80  # of a message: keys may be anybody's


class Part(BaseModel):
    """An object of such a file: no value is converted (``"3"`` is no number), keys that are not listed are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def check(content: Any, schema: Any, *, source: Path | str, remedy: str) -> None:
    """Refuse content of another form.

    Args:
        content: parsed JSON.
        schema: a `Part`, or any other type that pydantic knows.
        source: the file, for the message.
        remedy: what to do, for the message.

    Raises:
        InputError: names the file, the first key that is missing or wrong, and the remedy.
    """
    try:
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ascii(".".join(map(str, problem["loc"])))[1:-1]
        shown = key if len(key) <= MAX_KEY_LENGTH else f"{key[:MAX_KEY_LENGTH]}..."
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(f"{source}: {shown or 'the file'}: {problem['msg']}{more}; {remedy}") from None


def read(path: Path, schema: Any, *, remedy: str) -> Any:
    """The parsed JSON of a file, as it is, once it is known to be of the form.

    Raises:
        MissingFileError: there is no such file.
        InputError: not JSON, or of another form.
    """
    content = files.read_json(path)
    check(content, schema, source=path, remedy=remedy)
    return content


@cache
def _adapter(schema: Any) -> TypeAdapter:
    return TypeAdapter(schema)
