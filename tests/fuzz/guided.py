"""The same readers under a coverage-guided fuzzer: `pip install -c constraints.txt -e '.[fuzz]'`, then

    python tests/fuzz/guided.py KIND FOLDER -max_total_time=3600

KIND is one of mutate.KINDS; FOLDER the one of fuzz.py, where its valid files lie. What changes is one file: the GGUF
file, or the first file of tensors. Options are libFuzzer's; a finding ends the run with a traceback, and leaves the
input.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["palimpsest", "gguf"]):
    import gguf  # noqa: F401 - it is imported late otherwise, and not instrumented
    from mutate import Case


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    case = Case.of(kind, folder / "valid", folder / "covered")
    name = next(name for name in case.originals if not name.endswith(".json"))
    seeds = folder / "seeds" / kind
    seeds.mkdir(parents=True, exist_ok=True)
    (seeds / "valid").write_bytes(case.originals[name])

    def check(content: bytes) -> None:
        case.write(name, content)
        case.read()

    longest = 2 * len(case.originals[name])
    atheris.Setup([sys.argv[0], f"-max_len={longest}", *sys.argv[3:], str(seeds)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
