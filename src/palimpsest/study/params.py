"""params.yaml, checked before anything runs: one clear message per mistake."""

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from palimpsest.attacks.kinds import expanded_attacks
from palimpsest.errors import PalimpsestError
from palimpsest.study.brought import NOTE
from palimpsest.study.checks import CHECKS, check_method_keys
from palimpsest.study.deployed import with_files
from palimpsest.unlearning.losses import SETTINGS
from palimpsest.vocabulary import CHECKPOINT, FULL, UNQUANTIZED
from palimpsest.yaml_files import check_keys_and_numbers, read_yaml

INTEGERS = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
"""2.0 is no whole number here, as it is in JSON Schema: what takes one would fail on it, hours later."""
Validator = validators.extend(Draft202012Validator, type_checker=INTEGERS)

YTE = "__use_yte__"
"""Makes Snakemake take a configuration file for a template, whose keys may be Python code."""
LONGEST = 200
"""Letters of a value that a message shows."""

RENAMED = {"weights": "storage"}
"""Keys of `training` and of methods that had another name before version 0.2; the old ones work until 0.3."""


LATER = {"prompt", "target_floor", "kernels"}
"""Keys that files from before version 0.2 lack: such a file means what it meant then, and a new one should say it."""


def with_current_names(params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The params with the names that keys have today, and a line for each that the file calls by an old one.

    Before version 0.2 the unquantized models were a precision without an entry in `quantizers`.
    """
    lines: list[str] = []

    def renamed(block: Any, where: str) -> Any:
        if not isinstance(block, Mapping):
            return block
        old = [key for key in block if key in RENAMED and RENAMED[key] not in block]
        lines.extend(
            f"{where}.{key} is called {RENAMED[key]} now; the old name works until version 0.3." for key in old
        )
        return {RENAMED[key] if key in old else key: value for key, value in block.items()}

    current = dict(params)
    current["training"] = renamed(params.get("training"), "training")
    methods = params.get("methods")
    if isinstance(methods, Mapping):
        current["methods"] = {name: renamed(method, f"methods.{name}") for name, method in methods.items()}
    quantizers = params.get("quantizers")
    if isinstance(quantizers, Mapping) and FULL not in quantizers:
        current["quantizers"] = {FULL: {"backend": UNQUANTIZED}, **quantizers}
        lines.append(
            f"quantizers lacks the unquantized models: add {FULL}: {{backend: {UNQUANTIZED}}}; "
            "without it works until version 0.3."
        )
    return {key: value for key, value in current.items() if key in params}, lines


def check_params(params: Mapping[str, Any], schema: Path | str, name: str) -> None:
    """Raise PalimpsestError that names the key of `name` (the file) that does not fit the schema
    or the other keys, and how to mend it."""
    try:
        _check(params, _schema(Path(schema).read_text(encoding="utf-8")))
    except PalimpsestError as wrong:
        raise PalimpsestError(f"{name}: {wrong}") from None


@cache
def _schema(text: str) -> Mapping[str, Any]:
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it
    found: Mapping[str, Any] = yaml.load(text, Loader=fast)
    return found


def _check(params: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    check_keys_and_numbers(params)
    check_method_keys(params, schema["properties"]["methods"]["additionalProperties"]["properties"])
    error = best_match(Validator(schema).iter_errors(params))
    if error is not None:
        raise PalimpsestError(_explain(error))
    whole = expanded(params)
    for check in CHECKS:
        check(whole)


def expanded(params: Mapping[str, Any], folder: Path = Path()) -> dict[str, Any]:
    """The params with a method for each percentile of a mask that lists several:
    `name` with [50.0, 90.0] is name_50 and name_90; a quantizer for each file of `deployed`; and null for the keys that
    older files lack. folder: of the study."""
    methods: dict[str, Any] = {}
    for name, method in params["methods"].items():
        saliency = method.get("saliency", {})
        shares = saliency.get("percentile")
        if not isinstance(shares, list):
            methods[name] = method
            continue
        for share in shares:
            each = f"{name}_{share:g}"
            if each in params["methods"]:
                raise PalimpsestError(f"methods.{name} makes a method {each}, of which there is one: rename it.")
            if each in methods:
                other = methods[each]["saliency"]["percentile"]
                raise PalimpsestError(
                    f"methods.{name}.saliency.percentile has {other!r} and {share!r}, both of which make the method "
                    f"{each}: take one, or give them six digits that differ."
                )
            methods[each] = method | {"saliency": saliency | {"percentile": share}}
    whole = {"prompt": None, "kernels": None} | with_files(params, folder) | {"methods": methods}
    if attacks := params.get("attacks"):
        whole["attacks"] = {**attacks, "each": expanded_attacks(attacks["each"])}
    return whole


def read_params(path: Path | str) -> dict[str, Any]:
    """The parsed file; raises PalimpsestError when it is missing, is not a mapping in YAML, or has a key twice."""
    try:
        params = read_yaml(path)
    except FileNotFoundError:
        raise PalimpsestError(f"{path} does not exist: run this in the folder of the study.") from None
    if not isinstance(params, dict):
        raise PalimpsestError(f"{path} holds no keys: copy params.yaml of the default study and edit it.")
    if YTE in params:
        raise PalimpsestError(f"{path} has the key {YTE}, by which Snakemake runs code in it: delete it.")
    return params


def setting(params: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as `methods/ga`; raises KeyError with the path where there is none."""
    value: Any = params
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(path)
        value = value[key]
    return value


def leaves(params: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of all values that are not mappings, in order."""
    keys = []
    for key, value in params.items():
        dotted = f"{prefix}{key}"
        keys += leaves(value, f"{dotted}.") if isinstance(value, Mapping) and value else [dotted]
    return keys


def _explain(error: ValidationError) -> str:
    rule: Any = error.schema
    expected: Any = error.validator_value
    instance: Any = error.instance
    key = ".".join(map(str, error.absolute_path)) or "the file"
    if error.validator == "additionalProperties":
        known = sorted(rule.get("properties", {}))
        unknown = sorted(set(instance) - set(known))[0]
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        where = f" in {key}" if error.absolute_path else ""
        return f"unknown key {unknown!r}{where}. {hint}"
    if error.validator == "required":
        missing = next(name for name in expected if name not in instance)
        optional = sorted({*rule.get("properties", {})} - {*expected, *SETTINGS, *LATER, CHECKPOINT, NOTE})
        rest = f"only {', '.join(optional)} may be left out" if optional else "no key has a default"
        return f"{key} lacks the key {missing!r}: add it ({rest})."
    if error.validator == "maxLength":
        text = f"{key} has {_cut(repr(instance))}, which is longer than {expected} letters."
        return f"{text} {rule.get('description', '')}".rstrip()
    if error.validator == "not":
        return f"{key}: {rule['description']}"
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        return (
            f"{key} is the text {error.instance!r}, not a number: YAML wants a point, as in "
            f"{float(error.instance):.1e}."
        )
    return f"{key} is {_cut(repr(instance))}: {_cut(error.message)}. {rule.get('description', '')}".rstrip()


def _cut(text: str) -> str:
    """What fits in a line of a terminal or two."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
