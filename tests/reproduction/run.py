"""A signed verdict reproduced for real: a tiny study, its statement, and the study made again from a clean clone.

    python tests/reproduction/run.py

Two runs of a study are two minutes, so `make test` leaves it out; tests/unit/study/test_reproduce.py has the parts. It
clones the commit that is checked out, and needs a tree without changes in the code.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*command: str, folder: Path = REPOSITORY, codes: tuple[int, ...] = (0,)) -> str:
    print("$", *command, flush=True)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in codes:
        sys.exit(f"{done.stdout}\nended with {done.returncode}")
    return done.stdout.strip().splitlines()[-1]


def write_keys(folder: Path) -> None:
    private = Ed25519PrivateKey.generate()
    (folder / "key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)


def write_study(folder: Path) -> None:
    params = yaml.safe_load((REPOSITORY / "tests/tiny/params.yaml").read_text(encoding="utf-8"))
    params["methods"] = {"ga_gdr": params["methods"]["ga_gdr"]}
    params["quantizers"] = {name: params["quantizers"][name] for name in ("bf16", "rtn-int4")}
    params["report"]["method"], params["verdict"] = "ga_gdr", {"policy": "policy.yaml"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    policy = subprocess.check_output(["palimpsest", "policy"], text=True)
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(folder)
        write_keys(folder)
        # the models of a study this small know nothing, which is exit code 4
        run("snakemake", "--cores", "1", "--directory", name, "verdict", codes=(0, 2, 3, 4))
        model, file = "results/verdict/ga_gdr", "results/quantized/ga_gdr/seed0/rtn-int4"
        run("palimpsest", "sign", model, file, "--key", "key.pem", folder=folder)
        again = ("palimpsest", "reproduce", "statement.json", "--key", "key.pub", "--salt", "statement.salt")
        print(run(*again, "--folder", "again", folder=folder))
        # of another commit, or another learning rate, the same command must not succeed
        params = folder / "params.yaml"
        params.write_text(params.read_text(encoding="utf-8").replace("seed: 1", "seed: 2", 1), encoding="utf-8")
        run("palimpsest", "sign", model, file, "--key", "key.pem", folder=folder)
        print(run(*again, "--folder", "other", folder=folder, codes=(1,)))


if __name__ == "__main__":
    main()
