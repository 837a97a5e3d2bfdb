#!/usr/bin/env python3
"""Renders the chart with Helm's engine for each file in values/, and checks the result.

    deploy/chart/tests/run.py [--update] [--binary FILE] [--kubeconfig FILE]

- The rendering equals golden/NAME.yaml (--update writes it).
- Objects are valid by the OpenAPI schemas of Kubernetes, and with --kubeconfig by a server-side dry run.
- With --kubeconfig and --binary, the permissions of the rendered ServiceAccount suffice to forward a request of a
  client with a ServiceAccount token. This creates the objects: use a cluster for tests.
- Pods satisfy the Pod Security Standard `restricted`.
- With --binary, the proxy starts with the rendered arguments, settings and policies.
- Invalid values are rejected with a message that names them.

Needs the packages of requirements.txt (PyPI) in the directory.
"""

import argparse
import base64
import difflib
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

import helm_python
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
CHART = HERE.parent
KUBERNETES = "1.33"
CUSTOM = {"Certificate", "ServiceMonitor", "PrometheusRule"}

# Values that must be rejected, and what the message names.
INVALID = [
    ({"upstream": {"identity": "magic"}}, "identity"),
    ({"replica": 3}, "replica"),
    ({"upstream": {"identity": "request-header"}}, "clientCertificateSecret"),
    ({"certificate": {"mode": "secret"}}, "certificate.secret"),
    ({"certificate": {"mode": "certManager"}}, "certificate.issuerRef.name"),
    ({"authentication": {"tokenReview": False}}, "at least one method"),
    ({"sinks": [{"name": "a", "type": "stdout", "policy": "other"}]}, 'no policy "other"'),
    ({"sinks": [{"name": "a", "type": "webhook", "policy": "default"}]}, "configSecret"),
    ({"sinks": [{"name": "a", "type": "stdout", "policy": "default"}] * 2}, "occurs twice"),
    ({"settings": {"secure-port": 1}}, "secure-port"),
]


def fail(name, message):
    sys.exit(f"{name}: {message}")


def render(chart, values):
    """Returns the rendered objects, and the text of NOTES.txt."""
    chart.validate_schema(values)
    files = chart.render(values, name="audit", namespace="audit-system")
    objects, notes = [], ""
    for name, text in sorted(files.items()):
        if name.endswith("NOTES.txt"):
            notes = text
        else:
            objects += [one for one in yaml.safe_load_all(text) if one]
    return objects, notes


def golden(objects, notes):
    """Returns the text to compare: without generated certificates, which differ each time."""
    text = yaml.safe_dump_all(objects, sort_keys=True, width=100)
    text = re.sub(r"^(  (?:ca.crt|tls.crt|tls.key)): \S+$", r"\1: GENERATED", text, flags=re.M)
    return text + "---\n# NOTES.txt\n" + "".join(f"# {line}".rstrip() + "\n" for line in notes.splitlines())


def check_schema(name, objects):
    for one in objects:
        if one["kind"] not in CUSTOM:
            try:
                kubernetes_validate.validate(one, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as error:
                fail(name, f"{one['kind']} {one['metadata']['name']}: {error}")


def workload(objects):
    return next(one for one in objects if one["kind"] in ("Deployment", "StatefulSet"))


def check_restricted(name, objects):
    pod = workload(objects)["spec"]["template"]["spec"]
    context = pod["securityContext"]
    if not context["runAsNonRoot"] or context["seccompProfile"]["type"] != "RuntimeDefault":
        fail(name, "the pod may run as root, or without seccomp")
    allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    for volume in pod["volumes"]:
        if not set(volume) - {"name"} <= allowed:
            fail(name, f"volume {volume['name']} is not allowed by `restricted`")
    mounted = {volume["name"] for volume in pod["volumes"]}
    claims = workload(objects)["spec"].get("volumeClaimTemplates", [])
    mounted |= {claim["metadata"]["name"] for claim in claims}
    for container in pod["containers"]:
        context = container["securityContext"]
        if context["allowPrivilegeEscalation"] or context["capabilities"] != {"drop": ["ALL"]}:
            fail(name, f"container {container['name']} has privileges")
        if not context["readOnlyRootFilesystem"]:
            fail(name, f"container {container['name']} can write its root file system")
        if mounted != {mount["name"] for mount in container["volumeMounts"]}:
            fail(name, "volumes and mounts differ")


def certificate(directory):
    """Creates a self-signed certificate with its key, as tls.crt, tls.key and ca.crt."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=DNS:test"]
    command += ["-keyout", directory / "tls.key", "-out", directory / "tls.crt"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (directory / "ca.crt").write_bytes((directory / "tls.crt").read_bytes())
    return directory


def files_of(volume, objects, pki):
    """Returns the content of a volume as a dictionary; existing Secrets get certificates."""
    if "configMap" in volume or "secret" in volume:
        name = volume.get("configMap", {}).get("name") or volume["secret"]["secretName"]
        for one in objects:
            if one["kind"] in ("ConfigMap", "Secret") and one["metadata"]["name"] == name:
                data = {key: value.encode() for key, value in one["data"].items()}
                if one["kind"] == "Secret":
                    data = {key: base64.b64decode(value) for key, value in data.items()}
                return data
        data = {path.name: path.read_bytes() for path in pki.iterdir()}
        cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:9/"}}
        context = {"name": "c", "context": {"cluster": "c", "user": ""}}
        kubeconfig = {"clusters": [cluster], "contexts": [context], "current-context": "c"}
        data["kubeconfig"] = yaml.safe_dump(kubeconfig | {"kind": "Config", "apiVersion": "v1"}).encode()
        return data
    return {}


def check_binary(name, objects, binary):
    """Starts the proxy with the pod's volumes in a directory, until it reports that it is ready."""
    pod = workload(objects)["spec"]["template"]["spec"]
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        pki = certificate(root / "pki")

        def move(text):
            """Replaces the paths and addresses of the pod."""
            text = re.sub(r"(/etc|/var/lib)/kube-audit-proxy", lambda m: f"{root}{m[0]}", text)
            text = text.replace("/var/run/secrets", f"{root}/var/run/secrets")
            text = text.replace("secure-port: 6443", "secure-port: 0")
            text = text.replace("bind-address: 0.0.0.0:8081", "bind-address: 127.0.0.1:0")
            return re.sub(r"\bbind-address: 0\.0\.0\.0", "bind-address: 127.0.0.1", text)

        for mount in container["volumeMounts"]:
            directory = root / mount["mountPath"].lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            for key, data in files_of(volumes.get(mount["name"], {}), objects, pki).items():
                text = move(data.decode()) if key.endswith(".yaml") else data.decode()
                (directory / key).write_text(text)
        environment = dict(os.environ)
        environment.pop("KUBECONFIG", None)
        arguments = [move(one).replace("$(POD_NAME)", "pod-0") for one in container["args"]]
        account = root / "var/run/secrets/kubernetes.io/serviceaccount"
        account.mkdir(parents=True)
        (account / "token").write_text("token")
        (account / "ca.crt").write_bytes((pki / "ca.crt").read_bytes())
        config = yaml.safe_load((root / "etc/kube-audit-proxy/config/config.yaml").read_text())
        if "upstream-server" not in config:
            # What a pod has in /var/run/secrets, which this machine does not.
            arguments += ["--upstream-server=https://127.0.0.1:9", f"--upstream-ca-file={account}/ca.crt"]
            arguments += [f"--upstream-token-file={account}/token"]
        address = root / "notify"
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.bind(str(address))
        manager.settimeout(0.2)
        environment["NOTIFY_SOCKET"] = str(address)
        log = root / "log"
        with log.open("w") as output:
            proxy = subprocess.Popen([binary, *arguments], stdout=output, stderr=output, env=environment)
        try:
            for _ in range(150):
                try:
                    if manager.recv(64) == b"READY=1":
                        break
                except TimeoutError:
                    if proxy.poll() is not None:
                        break
            else:
                fail(name, f"the proxy is not ready:\n{log.read_text()}")
            if proxy.poll() is not None:
                fail(name, f"the proxy ended with {proxy.returncode}:\n{log.read_text()}")
        finally:
            for _ in range(3):
                if proxy.poll() is None:
                    proxy.send_signal(signal.SIGTERM)
            proxy.wait(20)


def dry_run(name, objects, kubeconfig):
    kubectl = ["kubectl", f"--kubeconfig={kubeconfig}"]
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: audit-system\n  labels:\n"
    namespace += "    pod-security.kubernetes.io/enforce: restricted\n"
    subprocess.run([*kubectl, "apply", "-f-"], input=namespace, text=True, check=True, capture_output=True)
    text = yaml.safe_dump_all([one for one in objects if one["kind"] not in CUSTOM])
    # A pod of its own, since the API server only warns about those of a Deployment.
    template = workload(objects)["spec"]["template"]
    spec = template["spec"] | {"serviceAccountName": ""}
    spec["volumes"] = spec["volumes"] + [
        {"name": claim["metadata"]["name"], "emptyDir": {}}
        for claim in workload(objects)["spec"].get("volumeClaimTemplates", [])
    ]
    spec.pop("priorityClassName", None)
    spec.pop("serviceAccountName")
    metadata = {"name": "check", "namespace": "audit-system"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata | {"name": "default"}}
    subprocess.run([*kubectl, "apply", "-f-"], input=yaml.safe_dump(account), text=True, check=True, capture_output=True)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    text += "---\n" + yaml.safe_dump(pod)
    apply = [*kubectl, "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f-"]
    result = subprocess.run(apply, input=text, text=True, capture_output=True)
    if result.returncode:
        fail(name, result.stderr)


def check_permissions(name, objects, binary, kubeconfig):
    """Forwards a request with the permissions that the chart grants."""
    config = next(one for one in objects if one["kind"] == "ConfigMap" and "config.yaml" in one["data"])
    settings = yaml.safe_load(config["data"]["config.yaml"])
    if settings.get("upstream-identity", "impersonate") != "impersonate" or not settings.get("authentication-token-review"):
        return
    kubectl = ["kubectl", f"--kubeconfig={kubeconfig}", "--namespace=audit-system"]

    def run(*arguments, **options):
        result = subprocess.run([*kubectl, *arguments], text=True, capture_output=True, **options)
        if result.returncode:
            fail(name, result.stderr)
        return result.stdout.strip()

    access = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    run("apply", "-f-", input=yaml.safe_dump_all([one for one in objects if one["kind"] in access]))
    account = workload(objects)["spec"]["template"]["spec"]["serviceAccountName"]
    cluster = json.loads(run("config", "view", "--minify", "--raw", "--output=json"))["clusters"][0]["cluster"]
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        certificate(root)
        (root / "token").write_text(run("create", "token", account))
        authority = cluster.get("certificate-authority")
        if authority is None:
            authority = root / "upstream-ca.crt"
            authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = ["serve", "--bind-address=127.0.0.1", f"--secure-port={port}", "--admin-bind-address=127.0.0.1:0"]
        arguments += [f"--tls-cert-file={root}/tls.crt", f"--tls-private-key-file={root}/tls.key"]
        arguments += [f"--upstream-server={cluster['server']}", f"--upstream-ca-file={authority}"]
        arguments += [f"--upstream-token-file={root}/token", "--authentication-token-review", "--anonymous-auth=false"]
        (root / "policy.yaml").write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
        arguments += [f"--audit-policy-file={root}/policy.yaml", f"--audit-log-path={root}/audit.log"]
        with (root / "log").open("w") as output:
            environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
            proxy = subprocess.Popen([binary, *arguments], stdout=output, stderr=output, env=environment)
        try:
            # Its token has the extra fields that the proxy must be allowed to impersonate.
            token = run("create", "token", "default")
            client = ["kubectl", f"--kubeconfig={os.devnull}", f"--server=https://127.0.0.1:{port}", f"--token={token}"]
            client += ["--insecure-skip-tls-verify", "auth", "whoami", "--output=json"]
            for _ in range(100):
                result = subprocess.run(client, text=True, capture_output=True)
                if "was refused" not in result.stderr or proxy.poll() is not None:
                    break
                time.sleep(0.1)
            if result.returncode:
                fail(name, f"{result.stderr}\n{(root / 'log').read_text()}")
            user = json.loads(result.stdout)["status"]["userInfo"]
            if user["username"] != "system:serviceaccount:audit-system:default" or "extra" not in user:
                fail(name, f"the API server has the client as {user}")
        finally:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(20)
    print(f"ok: {name}, the permissions suffice")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--binary")
    parser.add_argument("--kubeconfig")
    options = parser.parse_args()
    chart = helm_python.Chart.load(CHART)
    for path in sorted((HERE / "values").glob("*.yaml")):
        objects, notes = render(chart, yaml.safe_load(path.read_text()) or {})
        text = golden(objects, notes)
        expected = HERE / "golden" / path.name
        if options.update:
            expected.parent.mkdir(exist_ok=True)
            expected.write_text(text)
        elif text != expected.read_text():
            lines = difflib.unified_diff(expected.read_text().splitlines(), text.splitlines(), lineterm="")
            fail(path.name, "differs from golden/; run with --update if that is meant\n" + "\n".join(lines))
        check_schema(path.name, objects)
        check_restricted(path.name, objects)
        if options.binary:
            check_binary(path.name, objects, options.binary)
        if options.kubeconfig:
            dry_run(path.name, objects, options.kubeconfig)
        if options.kubeconfig and options.binary:
            check_permissions(path.name, objects, options.binary, options.kubeconfig)
        print(f"ok: {path.name}, {len(objects)} objects")
    for values, named in INVALID:
        try:
            render(chart, values)
        except helm_python.HelmError as error:
            if named not in str(error):
                fail(str(values), f"the error does not name {named}: {error}")
        else:
            fail(str(values), "was accepted")
    print(f"ok: {len(INVALID)} invalid values are rejected")


if __name__ == "__main__":
    main()
