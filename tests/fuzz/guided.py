"""The same readers under a coverage-guided fuzzer: `pip install -c constraints.txt -e '.[fuzz]'`, then

    python tests/fuzz/guided.py KIND FOLDER -max_total_time=3600

KIND is one of mutate.KINDS; FOLDER the one of fuzz.py, where its valid files lie. What changes are the files that a
reader looks at, one after another in one input: half of the mutations are libFuzzer's, of bytes, half those of
mutate.py, which edit the JSON of a config or a header. Options are libFuzzer's; a finding ends the run with a
traceback, and leaves the input. Inputs that reach new code stay in FOLDER/seeds/KIND, where the next run goes on.
"""

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["palimpsest", "gguf"]):
    import gguf  # noqa: F401 - it is imported late otherwise, and not instrumented
    from mutate import Case, mutated

LENGTH = 4
"""Bytes before each file of an input that say how long it is."""


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    case = Case.of(kind, folder / "valid", folder / "covered")
    names = sorted(case.originals)
    seeds = folder / "seeds" / kind
    seeds.mkdir(parents=True, exist_ok=True)
    valid = joined([case.originals[name] for name in names])
    (seeds / "valid").write_bytes(valid)

    def check(content: bytes) -> None:
        for name, part in zip(names, parted(content, len(names)), strict=True):
            case.write(name, part)
        case.read()

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        choice = random.Random(seed)
        parts = parted(content, len(names))
        place = choice.randrange(len(names))
        if choice.random() < 0.5:
            parts[place] = mutated(parts[place], names[place], choice)
        else:
            room = most - sum(len(part) for part in parts) - LENGTH * len(parts) + len(parts[place])
            parts[place] = bytes(atheris.Mutate(parts[place], max(room, 1)))
        return joined(parts)[:most]

    options = [sys.argv[0], f"-max_len={len(valid) + 4096}", *sys.argv[3:], str(seeds)]
    atheris.Setup(options, check, custom_mutator=mutate)
    atheris.Fuzz()


def joined(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(LENGTH, "little") + part for part in parts)


def parted(content: bytes, count: int) -> list[bytes]:
    """The files of an input, whatever its bytes: the last takes what is left."""
    parts = []
    for _ in range(count - 1):
        end = LENGTH + int.from_bytes(content[:LENGTH], "little")
        parts.append(content[LENGTH:end])
        content = content[end:]
    return [*parts, content[LENGTH:]]


if __name__ == "__main__":
    main()
