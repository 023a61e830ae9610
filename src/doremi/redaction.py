"""What must not leave: secrets are masked, paths shortened, in all that is shown, logged or written to be read.

A recipe may hold secrets where it is used; whatever is made of it goes through here first. The comparison of two
recipes and the digests of stages go by `identity`, which knows no secret, so that a new token is no new run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doremi.errors import InputError

MASK = "***"
# Whatever changes what is computed has to stay in digests: settings of a model's configuration, such as audio_token,
# and folders of partitioned data sets, token=llama. Only what is a secret by its form is taken out there.
MODELS, PATHS = "models", ("path", "store")
Keys = tuple[object, ...]
# Names in which "token" or "key" is a secret. In training, most tokens are none: eos_token, max_tokens, tokenizer.
_SECRET_WORDS = {
    "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "apikey", "authorization",
    "bearer", "cookie",
}  # fmt: skip
_SECRET_PAIRS = {
    "api_key", "access_key", "secret_key", "private_key", "account_key", "storage_key", "signing_key", "encryption_key",
    "ssh_key", "auth_key", "license_key", "sas_token", "connection_string", "wandb_key", "service_account",
}  # fmt: skip
_OF_TEXT = {"eos", "bos", "pad", "unk", "sep", "cls", "mask", "image", "special", "end", "start", "stop", "per", "num"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NAME = r"[A-Za-z_][\w.-]*"
_VALUE = r"""'[^']*'|"[^"]*"|[^\s,;&'"}\])]+"""
# A name after a slash is a folder of a partitioned data set (token=llama). A colon assigns in JSON, in {a: b, c: d} and
# on a line of YAML alone: in messages, a sentence follows it.
_ASSIGNED = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"(?<![/\w.-])(?P<name>{_NAME})(?P<sign>['\"]?\s*=\s*)(?P<value>{_VALUE})",
        rf"(?<=['\"])(?P<name>{_NAME})(?P<sign>['\"]\s*:(?!//)\s*)(?P<value>{_VALUE})",
        rf"(?:(?<=\{{)|(?<=, ))(?P<name>{_NAME})(?P<sign>:(?!//)\s+)(?P<value>{_VALUE})",
        rf"^(?P<name>[ \t]*(?:- )?{_NAME})(?P<sign>:[ \t]+)(?P<value>\S+)(?=[ \t]*$)",
    )
)
_NUMBER = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")
_USER_IN_URL = re.compile(r"(?P<scheme>\b[A-Za-z][\w+.-]*://)[^/\s'\"@]*(?:@[^/\s'\"@]*)*@")
_SIGNATURES = re.compile(r"(?i)([?&](?:sig|signature|x-amz-[a-z-]+|x-goog-[a-z-]+|awsaccesskeyid)=)[^&\s'\"]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_HEADER = re.compile(r"(?i)\b(authorization:\s*)(?:bearer|basic)\b")
_KNOWN_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)


def is_secret(name: str) -> bool:
    """Whether a key of this name holds a secret: ``hub_token`` and ``AWS_SECRET_ACCESS_KEY`` do, ``eos_token`` not."""
    words = [word for word in re.split(r"[^a-z0-9]+", _CAMEL.sub("_", name).lower()) if word]
    pairs = {f"{first}_{second}" for first, second in itertools.pairwise(words)}
    is_token = bool(words) and words[-1] == "token" and not _OF_TEXT & set(words)
    return is_token or bool(_SECRET_WORDS & set(words)) or bool(_SECRET_PAIRS & pairs)


def redact(text: str) -> str:
    """``text`` with what is a secret by its name or its form masked: assignments, URLs with a user, known tokens."""
    text = _redact_forms(text)
    for pattern in _ASSIGNED:
        text = pattern.sub(_mask_value, text)
    return text


def _redact_forms(text: str) -> str:
    """What is a secret by its form alone, whatever is written around it."""
    text = _KNOWN_FORMS.sub(MASK, text)
    text = _USER_IN_URL.sub(rf"\g<scheme>{MASK}@", text)
    text = _SIGNATURES.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    return _HEADER.sub(rf"\1{MASK}", text)


def _mask_value(found: re.Match[str]) -> str:
    """Numbers after a colon are left: they are weights of a domain that has such a name."""
    is_none = found["value"] in ("null", "None", "''", '""')
    is_number = "=" not in found["sign"] and _NUMBER.fullmatch(found["value"]) is not None
    if is_none or is_number or not is_secret(found["name"]):
        return found[0]
    return f"{found['name']}{found['sign']}{MASK}"


def public(content: Any) -> Any:
    """A recipe, settings or arguments (JSON-able, nested) with secrets masked and the home folder written as ``~``."""
    return _each_text(content, lambda text, keys: shorten_home(_masked(text, keys)))


def identity(content: Any) -> Any:
    """The same without its secrets: equal for two recipes that differ in nothing else, and as it was without any."""
    return _each_text(content, lambda text, keys: None if _is_hidden(keys) else _bare(text, keys))


def identity_of_path(path: str) -> str:
    """A path or URL without the user and the signature in it."""
    return _bare(path, ("path",))


def _bare(text: str, keys: Keys) -> str:
    return _redact_value(text, keys).replace(f"{MASK}@", "")


def _masked(text: str, keys: Keys) -> str:
    return MASK if text and _is_hidden(keys) else _redact_value(text, keys)


def _redact_value(text: str, keys: Keys) -> str:
    """A value with secrets masked that show by their form, or in assignments where it may hold any."""
    text = _redact_forms(text)
    return text if keys and (keys[-1] in PATHS or keys[0] == MODELS) else _ASSIGNED[0].sub(_mask_value, text)


def _is_hidden(keys: Keys) -> bool:
    """Whether a value is a secret by the name of its key, or of a key that it is under."""
    return keys[:1] != (MODELS,) and any(isinstance(key, str) and is_secret(key) for key in keys)


def _each_text(content: Any, change: Callable[[str, Keys], str | None], keys: Keys = ()) -> Any:
    """Every text changed, knowing the keys that it is under; None drops it.

    Only text is ever hidden: a number under such a key is the weight of a domain.
    """
    if isinstance(content, str):
        return change(content, keys)
    if isinstance(content, list | tuple):
        return [_each_text(value, change, keys) for value in content]
    if not isinstance(content, Mapping):
        return content
    changed = {key: _each_text(value, change, (*keys, key)) for key, value in content.items()}
    return {key: value for key, value in changed.items() if value is not None or content[key] is None}


def secrets(content: Any) -> list[str]:
    """Dotted keys under which a secret stands."""
    pairs = zip(_texts(content), _texts(_each_text(content, _masked)), strict=True)
    return [key for (key, before), (_, after) in pairs if before != after]


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text with its dotted key."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for name, value in items:
            yield from _texts(value, f"{key}.{name}" if key else str(name))


def refuse_in_jobs(content: Any) -> None:
    """Scripts and files that jobs of a cluster read hold no secrets.

    Raises:
        InputError: names the keys under which some stand, and the way around.
    """
    if found := secrets(content):
        raise InputError(
            f"{', '.join(found[:5])}: a secret, which jobs would read from a file; leave it out and give it to the "
            "jobs by their environment (HF_TOKEN, AWS_SECRET_ACCESS_KEY), such as by cluster.set_up: [source ~/my.env]"
        )


def refuse_masked(content: Any, *, source: str) -> None:
    """A recipe that a run wrote has masks in place of the secrets of the one that it was given.

    Raises:
        InputError: a value is a mask, which would be taken for the secret.
    """
    if found := [key for key, text in _texts(content) if text == MASK or f"://{MASK}@" in text]:
        raise InputError(
            f"{source}: {', '.join(found[:5])}: a secret was left out when this recipe was written; give the recipe "
            "that it was made from, or set the key anew with --set"
        )


def shorten_home(text: str) -> str:
    """A path below the home folder as ``~/...``."""
    home = str(Path.home())
    return f"~{text[len(home) :]}" if home != "/" and text.startswith(f"{home}/") else text


def published(text: str) -> str:
    """A text for others, such as a command or a recipe: no secrets, paths from the working directory or from ``~``."""
    text = redact(text)
    for folder, short in ((Path.cwd(), ""), (Path.home(), "~/")):
        if folder != Path("/"):
            start = rf"(?<![\w.~/-]){re.escape(str(folder))}"
            text = re.sub(rf"{start}/(?=\S)", short, text)
            text = re.sub(rf"{start}(?![\w./~-])", short.rstrip("/") or ".", text)
    return text
