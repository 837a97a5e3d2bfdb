#!/usr/bin/env python3
"""Scrapes the demo with a real Prometheus, and evaluates every query of the dashboards and alerts.

    deploy/prometheus/check.py BINARY

- Every metric that a query names exists: /metrics describes it with `# TYPE`, or, if it appears only
  with its first value, docs/metrics.md lists it.
- Prometheus accepts each query, and scrapes the proxy.
- Each alert has a section in docs/alerts.md.

Needs Prometheus (Debian: prometheus) and PyYAML.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Of kube-apiserver itself.
FOREIGN = {"apiserver_request_duration_seconds"}
NAME = re.compile(r"\b(?:kube_audit_proxy|apiserver|authentication|process)_[a-z0-9_]+\b")


def queries():
    """Yields the place and the text of each query."""
    for path in sorted((ROOT / "deploy/grafana").glob("*.json")):
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target["expr"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{path.name}: {annotation['name']}", annotation["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                query = variable["query"]["query"]
                yield f"{path.name}: ${variable['name']}", re.match(r"label_values\((.*), \w+\)", query)[1]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alerts.yaml: {rule['alert']}", rule["expr"]


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def wait(what, function):
    for _ in range(300):
        try:
            if result := function():
                return result
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"timed out: {what}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def check_names(exposed):
    documented = set(NAME.findall((ROOT / "docs/metrics.md").read_text())) & set(
        re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M)
    )
    suffix = re.compile("_(bucket|sum|count)$")
    count = 0
    for place, query in queries():
        # Labels, such as in `sum by (request_kind)`, and label values are no metrics.
        for name in NAME.findall(query):
            base = suffix.sub("", name)
            if base in FOREIGN or name in exposed or base in exposed:
                count += 1
            elif name in documented or base in documented:
                count += 1
            else:
                sys.exit(f"{place}: there is no metric {name}")
    print(f"ok: {count} metrics named in queries exist")


def check_alerts_documented():
    sections = set(re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.M))
    alerts = set()
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            alerts.add(rule["alert"])
            anchor = rule["annotations"]["runbook_url"].rsplit("#", 1)[1]
            if anchor != rule["alert"].lower():
                sys.exit(f"{rule['alert']}: runbook_url has the anchor {anchor}")
    if sections != alerts:
        sys.exit(f"docs/alerts.md and alerts.yaml differ: {sorted(sections ^ alerts)}")
    print(f"ok: {len(alerts)} alerts have a section in docs/alerts.md")


def main():
    binary = sys.argv[1]
    check_alerts_documented()
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        port, processes = free_port(), []
        try:
            demo = subprocess.Popen([binary, "demo", f"--dir={directory}/demo"], stdout=subprocess.PIPE, text=True)
            processes.append(demo)
            admin = None
            for line in demo.stdout:
                if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
                    admin = found[1]
                    break
            if admin is None:
                sys.exit("the demo did not print the address of its metrics")
            text = wait("the metrics", lambda: get(f"http://{admin}/metrics"))
            check_names(set(re.findall(r"^# TYPE (\w+)", text, re.M)))
            scrape = {"job_name": "proxy", "scrape_interval": "1s", "static_configs": [{"targets": [admin]}]}
            config = {"scrape_configs": [scrape], "rule_files": [str(ROOT / "deploy/prometheus/alerts.yaml")]}
            (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
            command = ["prometheus", f"--config.file={directory}/prometheus.yaml"]
            command += [f"--storage.tsdb.path={directory}/data", f"--web.listen-address=127.0.0.1:{port}"]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

            def evaluate(query):
                url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
                return json.loads(get(url))["data"]["result"]

            wait("the first scrape", lambda: evaluate('up{job="proxy"} == 1'))
            count = 0
            for place, query in queries():
                query = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
                try:
                    evaluate(query)
                except urllib.error.HTTPError as error:
                    sys.exit(f"{place}: {error.read().decode()}")
                count += 1
            if not evaluate("kube_audit_proxy_build_info"):
                sys.exit("Prometheus has no kube_audit_proxy_build_info")
            print(f"ok: Prometheus scraped the demo and evaluated {count} queries")
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(20)


if __name__ == "__main__":
    main()
