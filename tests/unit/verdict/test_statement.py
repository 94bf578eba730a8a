"""A signed statement holds for the file it is about and for no other: one flipped bit anywhere fails."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from palimpsest.cli import main
from palimpsest.verdict.salted import read_salt, records_hash


def keys(folder: Path, name: str = "key") -> tuple[Path, Path]:
    private = Ed25519PrivateKey.generate()
    paths = folder / f"{name}.pem", folder / f"{name}.pub"
    paths[0].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[1].write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return paths


@pytest.fixture
def signed(tmp_path: Path) -> dict[str, Path]:
    """A verdict on made-up results, a deployed file and folder, and the statement on both."""
    rows = {str(i): {"prob": 0.1 + 0.001 * (i % 5)} for i in range(60)}
    for name in ("before", "after"):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"forget_Q_A_Prob": {"agg_value": 0, "value_by_index": rows}})
        )
    files = [str(tmp_path / "before.json"), str(tmp_path / "after.json")]
    assert main(["verdict", "--from", "openunlearning", *files, "--out", str(tmp_path / "verdict")]) == 0
    deployed, folder = tmp_path / "model.gguf", tmp_path / "model"
    deployed.write_bytes(bytes(range(256)) * 40)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    private, public = keys(tmp_path)
    paths = {
        "file": deployed,
        "folder": folder,
        "key": private,
        "public": public,
        "statement": tmp_path / "statement.json",
    }
    command = ["sign", str(tmp_path / "verdict"), str(deployed), str(folder), "--key", str(private)]
    assert main([*command, "--out", str(paths["statement"])]) == 0
    return paths | {"verdict": tmp_path / "verdict"}


def refused(paths: dict[str, Path], capsys, *files: Path) -> str:
    with pytest.raises(SystemExit) as end:
        main(["check", str(paths["statement"]), *map(str, files), "--key", str(paths["public"])])
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    return told


def test_the_statement_holds_for_its_files(signed, capsys):
    command = ["check", str(signed["statement"]), str(signed["file"]), str(signed["folder"]), "--key"]
    assert main([*command, str(signed["public"])]) == 0
    assert "FORGETS" in capsys.readouterr().out


def test_a_flipped_bit_in_the_file_is_named(signed, capsys):
    content = bytearray(signed["file"].read_bytes())
    content[1000] ^= 1
    signed["file"].write_bytes(content)
    told = refused(signed, capsys, signed["file"], signed["folder"])
    assert "model.gguf is not the file that the statement is about" in told and "model.safetensors" not in told


def test_a_flipped_bit_in_the_statement_fails(signed, capsys):
    envelope = json.loads(signed["statement"].read_text())
    payload = bytearray(base64.b64decode(envelope["payload"]))
    for place in (0, len(payload) // 2, len(payload) - 1):
        altered = payload.copy()
        altered[place] ^= 1
        signed["statement"].write_text(json.dumps(envelope | {"payload": base64.b64encode(altered).decode()}))
        assert "was altered, or signed with another key" in refused(signed, capsys, signed["file"], signed["folder"])


def test_another_key_and_another_set_of_files_fail(signed, tmp_path, capsys):
    other = signed | {"public": keys(tmp_path, "other")[1]}
    assert "signed with another key" in refused(other, capsys, signed["file"], signed["folder"])
    assert "model.safetensors, which the statement is about, was not given" in refused(signed, capsys, signed["file"])
    (signed["folder"] / "extra.safetensors").write_bytes(b"more")
    assert "model/extra.safetensors is not in the statement" in refused(
        signed, capsys, signed["file"], signed["folder"]
    )


def test_the_statement_holds_hashes_and_no_text(signed):
    envelope = json.loads(signed["statement"].read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert (
        statement["_type"] == "https://in-toto.io/Statement/v1"
        and envelope["payloadType"] == "application/vnd.in-toto+json"
    )
    predicate = statement["predicate"]
    assert predicate["records"]["count"] == 60 and predicate["policy"]["hash"]
    assert [control["passed"] for control in predicate["controls"]] == [None, None, None, True, None]
    assert all(set(one) >= {"verdict", "relapsed"} and isinstance(one["relapsed"], int) for one in predicate["formats"])
    salt = read_salt(signed["verdict"] / "records.salt")
    assert records_hash(signed["verdict"], salt) == predicate["records"]
    assert records_hash(signed["verdict"], bytes(32)) != predicate["records"]


def test_the_records_are_compared_with_the_salt(signed, capsys):
    verdict, salt = signed["verdict"], signed["verdict"] / "records.salt"
    files = [str(signed["statement"]), str(signed["file"]), str(signed["folder"]), "--key", str(signed["public"])]
    with_salt = ["check", *files, "--salt", str(salt), "--verdict", str(verdict)]
    assert main(with_salt) == 0 and main(["check", *files, "--salt", str(salt)]) == 64
    rows = (verdict / "records.csv").read_text().splitlines()
    (verdict / "records.csv").write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    assert main(with_salt) == 0, "their order tells nothing"
    (verdict / "records.csv").write_text("\n".join(rows[:-1]) + "\n")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(with_salt)
    assert end.value.code == 1 and "are others." in capsys.readouterr().err


def test_what_is_no_key_and_no_statement_is_named(signed, tmp_path, capsys):
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("{}")
    assert "is no DSSE envelope" in refused(signed | {"statement": nonsense}, capsys, signed["file"])
    assert "is no public key in PEM" in refused(signed | {"public": nonsense}, capsys, signed["file"])
    with pytest.raises(SystemExit):
        main(["sign", str(signed["verdict"]), str(signed["file"]), "--key", str(nonsense)])
    assert "is no private key in PEM" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sign", str(signed["verdict"]), str(tmp_path / "nowhere"), "--key", str(signed["key"])])
    assert "does not exist: give the file or folder that is deployed" in capsys.readouterr().err


def test_keys_of_openssl_work(signed, tmp_path, capsys):
    """As the documents say to make them."""
    try:
        key = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    (tmp_path / "ssl.pem").write_bytes(key)
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=key, capture_output=True, check=True).stdout
    (tmp_path / "ssl.pub").write_bytes(public)
    out = tmp_path / "ssl.json"
    assert (
        main(
            ["sign", str(signed["verdict"]), str(signed["file"]), "--key", str(tmp_path / "ssl.pem"), "--out", str(out)]
        )
        == 0
    )
    assert main(["check", str(out), str(signed["file"]), "--key", str(tmp_path / "ssl.pub")]) == 0
