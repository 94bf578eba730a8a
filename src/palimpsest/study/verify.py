"""Does every artefact match its hashes, its inputs, today's params.yaml and today's code? `python -m palimpsest.study.verify`.

Snakemake and DVC each keep their own record of what is up to date, and the two can disagree (after a `dvc checkout`, say).
The manifests are the third witness: each says which settings, which inputs and which code made the files beside it.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, REPOSITORY, read_json, sha256_file, verify_files
from palimpsest.errors import PalimpsestError, one_line
from palimpsest.quantizers import make_quantizer
from palimpsest.study.params import expanded, read_params

PARTS = ("corpus", "models", "calibration", "quantized", "cost", "infer", "weights", "battery", "scores", "audit")


def expected(params: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(part, path below results, settings) of every artefact that a study with these params has.

    The settings are None where the record holds none: the weights follow from the manifests of four folders, and the cost is a measurement.
    """
    params = expanded(params)
    yield "corpus", f"corpus/{MANIFEST}", params["corpus"]
    models, training = params["models"], params["training"]
    own = {"base": models["base"], "scratch": models["scratch"], "training": training}
    layout = {key: training[key] for key in ("max_length", "questions")}
    settings = {name: {"source": models[name]} | own for name in ("target", "retrain")}
    settings |= {name: {"method": method} | layout for name, method in params["methods"].items()}
    quantizers = {"bf16": {"backend": "none"}} | params["quantizers"]
    texts = {make_quantizer(quantizer).calibration_text for quantizer in quantizers.values()} - {None}
    for text in sorted(map(str, texts)):
        generic = params["calibration"]["generic"] if text == "generic" else {}
        yield "calibration", f"calibration/{text}/{MANIFEST}", generic
    battery = params.get("battery") or {}
    if battery:
        yield "battery", "battery/questions.json", {key: battery[key] for key in ("tasks", "seed")}
    for seed in params["seeds"]:
        for model, made in settings.items():
            place = f"{model}/seed{seed}"
            yield "models", f"models/{place}/{MANIFEST}", made
            for precision, quantizer in quantizers.items():
                if precision != "bf16":
                    yield "quantized", f"quantized/{place}/{precision}/{MANIFEST}", {"quantizer": quantizer}
                    yield "cost", f"cost/{place}/{precision}.json", None
                    if model in params["methods"]:
                        yield "weights", f"weights/{place}/{precision}.json", None
                asked = {"quantizer": quantizer, "inference": params["inference"]}
                yield "infer", f"infer/{place}/{precision}/{MANIFEST}", asked
                if (
                    battery
                    and model in (battery["models"] or settings)
                    and precision in (battery["precisions"] or quantizers)
                ):
                    made_with = {"quantizer": quantizer, "compute": params["inference"]["compute"]}
                    made_with |= {key: battery[key] for key in ("tasks", "batch_size")}
                    yield "battery", f"battery/{place}/{precision}.json", made_with
                for metric, rule in params["metrics"].items():
                    yield "scores", f"scores/{place}/{precision}/{metric}.json", rule
    yield "audit", "audit.json", dict(params)


def problems(
    results: Path, params: Mapping[str, Any], parts: Sequence[str] = PARTS, repository: Path = REPOSITORY
) -> list[str]:
    """One line for each artefact that is missing, altered, or made with other settings, inputs or code than are there now.

    repository: where the code lies.
    """
    hashes = _Hashes()
    found: list[str] = []
    for part, name, settings in expected(params):
        if part not in parts:
            continue
        try:
            path = results / name
            record = read_json(path)
            found += _check_settings(path, record, settings)
            if path.name == MANIFEST:
                verify_files(path.parent)
            if part != "cost":
                found += _check_sources(path, record, "inputs", results, hashes)
                found += _check_sources(path, record, "code", repository, hashes)
            found += _check_given(path, record, results.parent, hashes)
        except PalimpsestError as error:
            found.append(str(error))
    foreign = leftovers(results, params)
    if foreign:
        listed = " ".join(map(str, foreign))
        found.append(f"no artefact of this params.yaml (an earlier study's, or a killed run's): rm -r {listed}")
    return found


def leftovers(results: Path, params: Mapping[str, Any]) -> list[Path]:
    """What lies among the artefacts and is none: DVC would record it as an output of this study."""
    paths = [results / name for _, name, _ in expected(params)]
    wanted = {path.parent if path.name == MANIFEST else path for path in paths}
    above = {parent for path in wanted for parent in path.parents}

    def walk(folder: Path) -> Iterator[Path]:
        for child in sorted(folder.iterdir()):
            if child in above:
                yield from walk(child)
            elif child not in wanted:
                yield child

    folders = [results / part for part in PARTS if (results / part) in above]
    return [path for folder in folders if folder.is_dir() for path in walk(folder)]


class _Hashes(dict[Path, str]):
    """SHA-256 of each file, computed once; "" where there is none."""

    def __missing__(self, path: Path) -> str:
        self[path] = sha256_file(path) if path.is_file() else ""
        return self[path]


def _remedy(path: Path) -> str:
    return f"run its step again, snakemake --cores all --forcerun {path}"


def _check_settings(path: Path, record: Mapping[str, Any], settings: Any) -> Iterator[str]:
    if settings is None:
        return
    if "settings" not in record:
        yield f"{path} does not say which settings made it: {_remedy(path)}."
        return
    differing = _difference(record["settings"], settings)
    if differing:
        yield f"{path} was made with {differing}: {_remedy(path)}."


def _check_sources(
    path: Path, record: Mapping[str, Any], kind: str, folder: Path, hashes: Mapping[Path, str]
) -> Iterator[str]:
    """kind: "inputs" or "code", which the record holds by their path below `folder`, with the hash that each had."""
    if kind not in record:
        yield f"{path} does not say which {kind} made it: {_remedy(path)}."
        return
    for name, digest in dict(record[kind]).items():
        source = folder / name if kind == "inputs" else Path(name)
        if hashes[folder / name] != digest:
            yield f"{path} was made {'from' if kind == 'inputs' else 'by'} another {source}: {_remedy(path)}."


def _check_given(path: Path, record: Mapping[str, Any], study: Path, hashes: Mapping[Path, str]) -> Iterator[str]:
    """The user's own files, of which those that are no longer there are not missed: the artefact holds what was taken from them."""
    for name, digest in dict(record.get("sources", {})).items():
        if (study / name).exists() and hashes[study / name] != digest:
            yield f"{path} was made from another {name}: {_remedy(path)}."


def _difference(made: Any, wanted: Any, key: str = "") -> str:
    """The first setting that differs, in words; empty when none does."""
    if isinstance(made, Mapping) and isinstance(wanted, Mapping):
        for name in [*wanted, *(name for name in made if name not in wanted)]:
            found = _difference(made.get(name), wanted.get(name), f"{key}.{name}" if key else name)
            if found:
                return found
        return ""
    return "" if made == wanted else f"{key} = {made!r}, params.yaml says {wanted!r}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m palimpsest.study.verify", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("params", type=Path)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"only these of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {unknown.pop()!r}; parts are {', '.join(PARTS)}")
    parts = arguments.parts or PARTS
    with one_line():
        params = read_params(arguments.params)
        try:
            list(expected(params))
        except KeyError as missing:
            raise PalimpsestError(
                f"{arguments.params} lacks the key {missing}: add it, `snakemake -n` says where it belongs."
            ) from None
        found = problems(arguments.results, params, parts)
    if found:
        sys.exit("\n".join(found))
    print(f"{', '.join(parts)}: every artefact matches its hashes, inputs, settings and code.")


if __name__ == "__main__":
    main()
