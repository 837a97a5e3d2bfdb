#!/usr/bin/env python3
"""Runs the recipes of docs/shipping.md that are files in this directory, with the real programs.

    deploy/shipping/check.py BINARY [RECIPE…]

The proxy writes a log that is rotated about every hundred events, some of which have large bodies. The destination does
not respond for a while, and the collector is stopped and started again. Then every event of the log has arrived
unchanged, and the key of each Kafka record is the event's auditID. The number of events that arrived twice is printed.

A recipe whose programs are missing is skipped with one line that names them. Kafka is Tansu
(tests/servers/install.sh tansu), with the Python package confluent-kafka as the consumer.
"""

import collections
import contextlib
import glob
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SERVERS = pathlib.Path(os.environ.get("KAP_TEST_SERVERS", pathlib.Path.home() / ".cache/kube-audit-proxy/servers"))
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules: [{level: RequestResponse}]
"""


class Skipped(Exception):
    """Programs of a recipe are missing."""


def wait(what, function, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := function():
            return result
        time.sleep(0.1)
    raise SystemExit(f"timed out: {what}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def reachable(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def program(name, package):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/opt/fluent-bit/bin")
    if not found:
        raise Skipped(f"{name} is missing ({package})")
    return found


def rsyslog_module(name, package):
    if not glob.glob(f"/usr/lib/*/rsyslog/{name}.so"):
        raise Skipped(f"{name}.so is missing (Debian: {package})")


class Process:
    """A program that is started, killed and started again."""

    def __init__(self, command, log, environment=None, directory=None):
        self.command, self.log = [str(part) for part in command], log
        self.environment = os.environ | (environment or {})
        self.directory = directory
        self.start()

    def start(self):
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment, cwd=self.directory
            )

    def stop(self, with_signal=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        self.process.wait(60)


class Api(http.server.BaseHTTPRequestHandler):
    """An API server that returns what it received."""

    protocol_version = "HTTP/1.1"

    def respond(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = respond

    def log_message(self, *_):
        pass


def certificate(directory, name="localhost"):
    directory.mkdir(parents=True, exist_ok=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    command += ["-keyout", directory / "tls.key", "-out", directory / "tls.crt"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    shutil.copy(directory / "tls.crt", directory / "ca.crt")
    return directory


class Proxy:
    """The proxy in front of an API server, with what a recipe adds to its configuration."""

    def __init__(self, stack, root, binary, sinks):
        pki = certificate(root / "pki")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "tls.crt", pki / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        (root / "policy.yaml").write_text(POLICY)
        (root / "tokens.csv").write_text("secret,alice,1\n")
        (root / "upstream-token").write_text("upstream")
        self.port = free_port()
        settings = {
            "bind-address": "127.0.0.1",
            "secure-port": self.port,
            "admin-bind-address": "127.0.0.1:0",
            "tls-cert-file": f"{pki}/tls.crt",
            "tls-private-key-file": f"{pki}/tls.key",
            "token-auth-file": f"{root}/tokens.csv",
            "upstream-server": f"https://127.0.0.1:{server.server_port}",
            "upstream-ca-file": f"{pki}/ca.crt",
            "upstream-token-file": f"{root}/upstream-token",
            "sinks": [sink | {"policy-file": f"{root}/policy.yaml"} for sink in sinks],
        }
        (root / "config.json").write_text(json.dumps(settings))
        self.output = root / "proxy.out"
        self.process = Process([binary, "serve", f"--config={root}/config.json"], self.output)
        stack.callback(self.process.stop)
        wait(f"the proxy, see {self.output}", lambda: reachable(self.port))
        self.context = ssl.create_default_context(cafile=pki / "ca.crt")
        self.count = 0

    def requests(self, count):
        """Sends requests, of which every 40th has a large body."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context)
        for _ in range(count):
            self.count += 1
            path = f"/api/v1/namespaces/default/configmaps/number-{self.count}"
            headers, body = {"Authorization": "Bearer secret"}, None
            if self.count % 40 == 0:
                path = path.rsplit("/", 1)[0]
                text = f"{self.count}: ü \\ \" % \t" + "x" * 400_000
                value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"a": text}}
                body = json.dumps(value).encode()
                headers["Content-Type"] = "application/json"
            connection.request("POST" if body else "GET", path, body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"{path}: {response.status}")
        connection.close()


def log_lines(directory):
    return [line for path in sorted(directory.glob("audit*.log")) for line in path.read_text().splitlines()]


class Kafka:
    """Tansu with an empty topic."""

    def __init__(self, stack, root):
        try:
            import confluent_kafka
        except ImportError:
            raise Skipped("the Python package confluent-kafka is missing") from None
        tansu = SERVERS / "tansu"
        if not tansu.exists():
            raise Skipped("tansu is missing (tests/servers/install.sh tansu)")
        self.kafka = confluent_kafka
        self.address = f"127.0.0.1:{free_port()}"
        url = f"tcp://{self.address}"
        options = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        self.broker = Process([tansu, *options], root / "tansu.out")
        stack.callback(lambda: self.broker.stop(signal.SIGKILL))
        wait("Kafka", lambda: reachable(int(self.address.rsplit(":")[-1])))
        command = [tansu, "topic", "create", "--broker", url, "--partitions", "3", "kube-audit"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.lines = []
        self.consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.address, "group.id": "check", "fetch.message.max.bytes": 20_000_000}
        )
        partitions = [confluent_kafka.TopicPartition("kube-audit", number, 0) for number in range(3)]
        self.consumer.assign(partitions)
        stack.callback(self.consumer.close)

    @contextlib.contextmanager
    def outage(self):
        self.broker.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.broker.process.send_signal(signal.SIGCONT)

    def received(self):
        while (message := self.consumer.poll(0.2)) is not None:
            if message.error():
                raise SystemExit(f"Kafka: {message.error()}")
            line = message.value().decode()
            if message.key() is not None and message.key().decode() != json.loads(line)["auditID"]:
                raise SystemExit(f"the key is {message.key()}, the event begins {line[:200]}")
            self.lines.append(line)
        return self.lines


def moved(name, replaced):
    """Returns a configuration with other paths and addresses."""
    text = (HERE / name).read_text()
    for before, after in replaced.items():
        if before not in text:
            raise SystemExit(f"{name} has no {before}")
        text = text.replace(before, str(after))
    return text


class Rsyslog(Process):
    """rsyslogd with one of the configurations."""

    def __init__(self, stack, root, name, replaced, environment=None):
        text = moved(f"{name}.conf", replaced)
        state = root / f"{name}.state"
        state.mkdir()
        # What rsyslog.conf has on Debian.
        text = f'global(workDirectory="{state}" processInternalMessages="off")\n' + text
        (root / f"{name}.conf").write_text(text)
        rsyslogd = program("rsyslogd", "Debian: rsyslog")
        check = [rsyslogd, "-N1", f"-f{root}/{name}.conf"]
        result = subprocess.run(check, capture_output=True, text=True)
        if result.returncode or "error" in result.stderr:
            raise SystemExit(f"{name}.conf: {result.stderr}")
        command = [rsyslogd, "-n", f"-f{root}/{name}.conf", f"-i{root}/{name}.pid"]
        super().__init__(command, root / f"{name}.out", environment, directory=root)
        stack.callback(self.stop)


def compare(name, directory, received):
    """Waits until what was received is what the log has. Returns the number of events, and of repetitions."""
    expected = collections.Counter(log_lines(directory))
    arrived, since = -1, time.monotonic()
    while missing := expected - (got := collections.Counter(received())):
        if sum(got.values()) != arrived:
            arrived, since = sum(got.values()), time.monotonic()
        elif time.monotonic() - since > 20:
            first = next(iter(missing))
            raise SystemExit(f"{name}: {missing.total()} of {expected.total()} events are missing, such as {first[:300]}")
        time.sleep(0.2)
    if strange := [line for line in got if line not in expected]:
        raise SystemExit(f"{name}: {len(strange)} events are not in the log, such as {strange[0][:300]}")
    return expected.total(), got.total() - expected.total()


def disturb(name, root, proxy, collector, outage, received):
    """Sends requests while the destination does not respond, and while the collector does not run."""
    proxy.requests(120)
    with outage():
        proxy.requests(80)
    compare(name, root / "log", received)
    collector.stop()
    proxy.requests(160)  # the log is rotated several times
    collector.start()
    proxy.requests(160)
    return compare(name, root / "log", received)


def file_sink(root):
    (root / "log").mkdir()
    return {"name": "file", "type": "file", "path": f"{root}/log/audit.log", "maxsize": 1, "maxbackup": 0, "index": False}


def rsyslog_kafka(stack, root, binary):
    rsyslog_module("omkafka", "rsyslog-kafka")
    rsyslog_module("imfile", "rsyslog")
    program("rsyslogd", "Debian: rsyslog")
    kafka = Kafka(stack, root)
    # librdkafka before 2.1 does not understand Tansu's list of versions; the consumer's package has a newer one.
    libraries = pathlib.Path(kafka.kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = next(libraries.glob("librdkafka-*.so*"), None)
    proxy = Proxy(stack, root, binary, [file_sink(root)])
    replaced = {
        "/var/log/kubernetes": root / "log",
        "kafka.example.com:9093": kafka.address,
        '"security.protocol=ssl"': '"security.protocol=plaintext"',
        "/var/spool/rsyslog": root,
    }
    rsyslog = Rsyslog(stack, root, "rsyslog-kafka", replaced, {"LD_PRELOAD": str(library)} if library else None)
    return disturb("rsyslog-kafka", root, proxy, rsyslog, kafka.outage, kafka.received)


def rsyslog_relp(stack, root, binary):
    for module in ("omrelp", "imrelp"):
        rsyslog_module(module, "rsyslog-relp")
    proxy = Proxy(stack, root, binary, [file_sink(root)])
    pki = certificate(root / "relp", "collector.example.com")
    port = free_port()
    replaced = {
        "/etc/kube-audit-proxy/relp": pki,
        "6514": port,
        "*.nodes.example.com": "collector.example.com",
        "/var/log/kube-audit": root / "collected",
    }
    server = Rsyslog(stack, root, "rsyslog-relp-server", replaced)
    wait("the server", lambda: reachable(port))
    replaced = {
        "/var/log/kubernetes": root / "log",
        "/etc/kube-audit-proxy/relp": pki,
        'target="collector.example.com"': 'target="127.0.0.1"',
        "6514": port,
    }
    client = Rsyslog(stack, root, "rsyslog-relp", replaced)

    @contextlib.contextmanager
    def outage():
        server.stop()
        yield
        server.start()

    def received():
        return [line for path in (root / "collected").glob("*/audit-*.log") for line in path.read_text().splitlines()]

    return disturb("rsyslog-relp", root, proxy, client, outage, received)


def fluent_bit(stack, root, name, replaced):
    (root / "state").mkdir()
    (root / f"{name}.yaml").write_text(moved(f"{name}.yaml", replaced | {"/var/lib/fluent-bit": root / "state"}))
    command = [program("fluent-bit", "fluentbit.io"), "-c", root / f"{name}.yaml"]
    collector = Process(command, root / f"{name}.out")
    stack.callback(collector.stop)
    return collector


def fluent_bit_kafka(stack, root, binary):
    program("fluent-bit", "fluentbit.io")
    kafka = Kafka(stack, root)
    proxy = Proxy(stack, root, binary, [file_sink(root)])
    replaced = {
        "/var/log/kubernetes": root / "log",
        "kafka.example.com:9093": kafka.address,
        "security.protocol: ssl": "security.protocol: plaintext",
    }
    collector = fluent_bit(stack, root, "fluent-bit-kafka", replaced)
    return disturb("fluent-bit-kafka", root, proxy, collector, kafka.outage, kafka.received)


def fluent_bit_webhook(stack, root, binary):
    """Compares with a file of the same events."""
    program("fluent-bit", "fluentbit.io")
    pki, port = certificate(root / "endpoint"), free_port()
    (root / "received").mkdir()
    replaced = {
        "/var/log/kube-audit": root / "received",
        "/etc/kube-audit-proxy/fluent-bit": pki,
        "9880": port,
        "0.0.0.0": "127.0.0.1",
    }
    collector = fluent_bit(stack, root, "fluent-bit-webhook", replaced)
    cluster = {"server": f"https://localhost:{port}/audit", "certificate-authority": f"{pki}/ca.crt"}
    kubeconfig = {"kind": "Config", "apiVersion": "v1", "clusters": [{"name": "siem", "cluster": cluster}]}
    kubeconfig |= {"contexts": [{"name": "siem", "context": {"cluster": "siem", "user": ""}}], "current-context": "siem"}
    (root / "siem.kubeconfig").write_text(json.dumps(kubeconfig))
    webhook = {"name": "siem", "type": "webhook", "config-file": f"{root}/siem.kubeconfig", "batch-max-wait": "1s"}
    proxy = Proxy(stack, root, binary, [file_sink(root), webhook | {"spool-dir": f"{root}/spool"}])

    @contextlib.contextmanager
    def outage():
        collector.stop()
        yield
        collector.start()

    events = {}

    def received():
        # As strings with the fields of the log, in its order.
        for line in log_lines(root / "log"):
            event = json.loads(line)
            events.setdefault((event["auditID"], event["stage"]), line)
        path = root / "received/audit.log"
        result = []
        for line in path.read_text().splitlines() if path.exists() else []:
            event = json.loads(line)
            original = events.get((event["auditID"], event["stage"]))
            same = original and json.loads(original) == event | {"kind": "Event", "apiVersion": "audit.k8s.io/v1"}
            result.append(original if same else line)
        return result

    return disturb("fluent-bit-webhook", root, proxy, collector, outage, received)


RECIPES = {
    "rsyslog-kafka": rsyslog_kafka,
    "rsyslog-relp": rsyslog_relp,
    "fluent-bit-kafka": fluent_bit_kafka,
    "fluent-bit-webhook": fluent_bit_webhook,
}


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(RECIPES):
        sys.exit(f"usage: check.py BINARY [{'|'.join(RECIPES)}…]")
    binary = pathlib.Path(sys.argv[1]).resolve()
    for name in sys.argv[2:] or RECIPES:
        temporary = pathlib.Path(tempfile.mkdtemp(prefix="shipping-"))
        start = time.monotonic()
        try:
            with contextlib.ExitStack() as stack:
                events, repeated = RECIPES[name](stack, temporary, binary)
            print(f"ok: {name}: {events} events, {repeated} repeated, {time.monotonic() - start:.0f} s", flush=True)
            shutil.rmtree(temporary)
        except Skipped as reason:
            print(f"skipped: {name}: {reason}", flush=True)
            shutil.rmtree(temporary)
        except SystemExit as error:
            sys.exit(f"{error}\nlogs are in {temporary}")


if __name__ == "__main__":
    main()
