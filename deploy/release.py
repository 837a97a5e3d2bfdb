#!/usr/bin/env python3
"""Makes the files of a release.

    deploy/release.py [--output DIR] [--target TRIPLE]…
    deploy/release.py [--output DIR] --binary TRIPLE=FILE…

With --target (this machine's by default) it builds the program, with --binary it takes the one that is given. For each
target:

    kube-audit-proxy-VERSION-TRIPLE.tar.gz        program, completions, manual pages, policies, systemd unit
    kube-audit-proxy-VERSION-TRIPLE.cdx.json      software bill of materials (CycloneDX), if cargo-cyclonedx is installed
    kube-audit-proxy_VERSION-1_ARCH.deb           Debian package, if cargo-deb is installed
    kubectl-audit-linux-ARCH.tar.gz               the kubectl plugin

and once kube-audit-proxy-VERSION.tgz (Helm chart), kubectl-audit.yaml (krew manifest) and SHA256SUMS.

The same commit and program result in the same bytes: times are those of the commit, or SOURCE_DATE_EPOCH. One of the
programs must run on this machine, since it writes its completions and manual pages.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAME = "kube-audit-proxy"
# The architecture in Rust's triples, and in Debian's and Go's names.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SHELLS = {"bash": f"{NAME}.bash", "zsh": f"_{NAME}", "fish": f"{NAME}.fish", "powershell": f"_{NAME}.ps1", "elvish": f"{NAME}.elv"}


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


def output_of(*command):
    return run(*command, stdout=subprocess.PIPE, cwd=ROOT).stdout.strip()


def architecture(triple):
    name = triple.split("-")[0]
    if name not in ARCHITECTURES or "linux" not in triple:
        sys.exit(f"{triple}: releases are made for {' and '.join(f'{one}-*-linux-*' for one in ARCHITECTURES)}")
    return ARCHITECTURES[name]


class Release:
    def __init__(self, output):
        package = json.loads(output_of("cargo", "metadata", "--locked", "--no-deps", "--format-version=1"))
        self.version = next(one["version"] for one in package["packages"] if one["name"] == NAME)
        self.epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or output_of("git", "log", "-1", "--format=%ct"))
        self.environment = os.environ | {"SOURCE_DATE_EPOCH": str(self.epoch), "TZ": "UTC", "LC_ALL": "C"}
        self.output = output
        output.mkdir(parents=True, exist_ok=True)

    def build(self, triple):
        """Builds the program without the paths of this machine."""
        home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
        maps = [(ROOT, "."), (home, "cargo")]
        flags = [f"--remap-path-prefix={before}={after}" for before, after in maps]
        environment = self.environment | {
            "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
            # The sources of aws-lc, jemalloc and zstd.
            "CFLAGS": " ".join(f"-ffile-prefix-map={before}={after}" for before, after in maps),
        }
        run("cargo", "build", "--release", "--locked", f"--target={triple}", f"--bin={NAME}", cwd=ROOT, env=environment)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        return target / triple / "release" / NAME

    def assets(self, binary):
        """Writes completions and manual pages, which are the same for all targets."""
        directory = ROOT / "target/assets"
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "completions").mkdir(parents=True)
        (directory / "man").mkdir()
        for shell, file in SHELLS.items():
            with (directory / "completions" / file).open("w") as script:
                run(binary, "completion", shell, stdout=script)
        run(binary, "man", directory / "man")
        return directory

    def tar(self, name, members):
        """Writes a .tar.gz whose bytes only depend on names, modes and contents: (name, mode, bytes)."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for member, mode, data in sorted(members):
                info = tarfile.TarInfo(member)
                info.mode, info.mtime, info.size = mode, self.epoch, len(data)
                archive.addfile(info, io.BytesIO(data))
        with (self.output / name).open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as compressed:
            compressed.write(raw.getvalue())

    def program(self, triple, binary, assets):
        prefix = f"{NAME}-{self.version}-{triple}"
        members = [(f"{prefix}/{NAME}", 0o755, binary.read_bytes())]
        for pattern, place in [
            ("LICENSE", ""),
            ("README.md", ""),
            ("CHANGELOG.md", ""),
            ("config/*.yaml", "config/"),
            ("deploy/systemd/*", "systemd/"),
            ("deploy/debian/config.yaml", "systemd/"),
        ]:
            members += [(f"{prefix}/{place}{path.name}", 0o644, path.read_bytes()) for path in ROOT.glob(pattern)]
        for path in assets.glob("*/*"):
            members.append((f"{prefix}/{path.parent.name}/{path.name}", 0o644, path.read_bytes()))
        self.tar(f"{prefix}.tar.gz", members)
        plugin = [("kubectl-audit", 0o755, binary.read_bytes()), ("LICENSE", 0o644, (ROOT / "LICENSE").read_bytes())]
        self.tar(f"kubectl-audit-linux-{architecture(triple)}.tar.gz", plugin)

    def bill_of_materials(self, triple):
        if not shutil.which("cargo-cyclonedx"):
            print("skipped: cargo-cyclonedx is not installed, so there is no bill of materials", file=sys.stderr)
            return
        # It writes a file next to the Cargo.toml of each member of the workspace.
        name = f"bom-{os.getpid()}"
        try:
            command = ["cargo", "cyclonedx", "--format=json", f"--override-filename={name}", f"--target={triple}", "--quiet"]
            run(*command, cwd=ROOT, env=self.environment)
            text = (ROOT / f"{name}.json").read_text().replace(f"file://{ROOT}", "file://.").replace(str(ROOT), ".")
            (self.output / f"{NAME}-{self.version}-{triple}.cdx.json").write_text(text)
        finally:
            for path in [*ROOT.glob(f"{name}.json"), *ROOT.glob(f"*/{name}.json"), *ROOT.glob(f"*/*/{name}.json")]:
                path.unlink()

    def debian(self, triple, binary):
        if not shutil.which("cargo-deb"):
            print("skipped: cargo-deb is not installed, so there is no Debian package", file=sys.stderr)
            return
        with tempfile.TemporaryDirectory() as temporary:
            place = pathlib.Path(temporary) / triple / "release" / NAME
            place.parent.mkdir(parents=True)
            shutil.copy(binary, place)
            command = ["cargo", "deb", "--no-build", "--no-strip", f"--target={triple}", f"--output={self.output.resolve()}"]
            run(*command, cwd=ROOT, env=self.environment | {"CARGO_TARGET_DIR": temporary})

    def chart(self):
        """Writes what `helm package` would, except for times."""
        ignored = [line.strip() for line in (ROOT / "deploy/chart/.helmignore").read_text().splitlines()]
        members = []
        for path in (ROOT / "deploy/chart").rglob("*"):
            relative = path.relative_to(ROOT / "deploy/chart")
            if path.is_file() and path.name != ".helmignore" and not {f"{relative.parts[0]}/", path.name} & set(ignored):
                members.append((f"{NAME}/{relative}", 0o644, path.read_bytes()))
        version = re.search(r"^version: (\S+)$", (ROOT / "deploy/chart/Chart.yaml").read_text(), re.M)[1]
        if version != self.version:
            sys.exit(f"deploy/chart/Chart.yaml: version is {version}, that of Cargo.toml is {self.version}")
        self.tar(f"{NAME}-{version}.tgz", members)

    def krew(self):
        """Fills in the version and the checksums; platforms without an archive are left out."""
        text = (ROOT / "deploy/krew.yaml").read_text().replace("VERSION", self.version)
        head, *platforms = re.split(r"^(?=    - selector:$)", text, flags=re.M)
        kept = []
        for one in platforms:
            archive = self.output / re.search(r"^      uri: .*/(\S+)$", one, re.M)[1]
            if archive.exists():
                digest = hashlib.sha256(archive.read_bytes()).hexdigest()
                kept.append(re.sub(r"^(      sha256: ).*$", rf"\g<1>{digest}", one, flags=re.M))
        head = re.sub(r"\A(#.*\n)+", "", head)
        (self.output / "kubectl-audit.yaml").write_text(head + "".join(kept))

    def sums(self):
        lines = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(self.output.iterdir())
            if path.name != "SHA256SUMS"
        ]
        (self.output / "SHA256SUMS").write_text("".join(lines))
        print("".join(lines), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "target/dist")
    parser.add_argument("--target", action="append", metavar="TRIPLE", default=[])
    parser.add_argument("--binary", action="append", metavar="TRIPLE=FILE", default=[])
    options = parser.parse_args()
    if options.output.exists() and any(options.output.iterdir()):
        sys.exit(f"{options.output} is not empty: files of another release would get into SHA256SUMS")
    host = re.search(r"^host: (\S+)$", output_of("rustc", "-vV"), re.M)[1]
    release = Release(options.output)
    binaries = {}
    for one in options.binary:
        triple, _, file = one.partition("=")
        binaries[triple] = pathlib.Path(file).resolve()
        if not binaries[triple].is_file():
            sys.exit(f"--binary {one}: write TRIPLE=FILE, such as {host}=target/release/{NAME}")
    for triple in options.target or ([] if binaries else [host]):
        architecture(triple)
        binaries[triple] = release.build(triple)
    native = [file for triple, file in binaries.items() if triple.split("-")[0] == platform.machine()]
    if not native:
        sys.exit(f"none of {', '.join(binaries)} runs on this machine")
    assets = release.assets(native[0])
    for triple, binary in binaries.items():
        release.program(triple, binary, assets)
        release.bill_of_materials(triple)
        release.debian(triple, binary)
    release.chart()
    release.krew()
    date = datetime.datetime.fromtimestamp(release.epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    print(f"{NAME} {release.version}, times of {date}:")
    release.sums()


if __name__ == "__main__":
    main()
