//! `log query`, `log report` and `log export` with a real object store, SeaweedFS, and the engines
//! DuckDB and chDB on what is in the bucket (`tests/servers/install.sh`).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::client::{self, Short};
use crate::support::proxy::{BINARY, Builder, Proxy};
use crate::support::seaweed::{KEY, SECRET, Server, weed};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, audit_log};

const REQUESTS: usize = 300;

/// A bucket with the events of a log.
struct Bucket {
    server: Server,
    dir: TempDir,
    log: PathBuf,
}

/// Starts a proxy that writes to a log and to the bucket, and sends requests of two users.
async fn bucket(weed: PathBuf, format: &str) -> Bucket {
    let dir = TempDir::new();
    let server = Server::start(weed, &dir.path("seaweed"));
    server.create_bucket().await;
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        let status = if request.uri().path().contains("secret") { 403 } else { 200 };
        json(status, "{\"items\":[]}")
    })
    .await;
    let log = dir.path("audit.log");
    let builder = Builder::new(upstream.addr)
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_REGION", "us-east-1");
    builder.dir().write(
        "all.yaml",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n",
    );
    let mut proxy: Proxy = builder
        .sinks(&format!(
            "\
             - {{name: file, type: file, policy-file: DIR/all.yaml, path: {}, mode: blocking}}\n\
             - name: bucket\n  type: s3\n  policy-file: DIR/all.yaml\n  url: s3://audit/logs\n  \
               endpoint: {}\n  allow-http: true\n  cluster: prod\n  node: proxy-0\n  \
               format: {format}\n  mode: blocking\n  segment-max-size: 1\n  segment-max-age: 1s\n  \
               spool-dir: DIR/spool\n",
            log.display(),
            server.endpoint()
        ))
        .start()
        .await;
    for user in ["alice", "bob"] {
        let mut sender = client::http2::<Short>(proxy.addr, Some(user)).await.unwrap();
        for number in 0..REQUESTS / 2 {
            let path = match number % 10 {
                0 => format!("/api/v1/namespaces/prod/secrets/s-{number}"),
                _ => format!("/api/v1/namespaces/dev/pods/p-{number}"),
            };
            let answer = client::h2_get(&mut sender, &path, &[]).await.unwrap();
            client::whole(answer).await.unwrap();
        }
    }
    // The shutdown uploads the rest.
    assert!(proxy.stop().await.success());
    Bucket { server, dir, log }
}

impl Bucket {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .arg("log")
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_ENDPOINT_URL", self.server.endpoint())
            .env_remove("KUBE_AUDIT_LOG")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command and returns its exit code, output, and errors.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(self.command(arguments).output().unwrap())
    }

    /// The lines that a query prints of the log, and of the bucket, sorted.
    fn compare(&self, arguments: &[&str]) -> usize {
        let of = |path: &str| {
            let (code, out, errors) = self.run(&[arguments, &[path]].concat());
            assert!(code < 2 && errors.is_empty(), "{arguments:?} {path}: {errors}");
            let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
            lines.sort();
            (code, lines)
        };
        let (log, stored) = (of(self.log.to_str().unwrap()), of("s3://audit/logs"));
        assert_eq!(stored, log, "{arguments:?}");
        log.1.len()
    }
}

fn outcome(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_queried_like_the_log_and_exported_to() {
    let Some(weed) = weed() else { return };
    let bucket = bucket(weed, "parquet").await;
    // Byte for byte, and all of it.
    let all = bucket.compare(&["query", "-o", "json", "--stage", "all"]);
    assert_eq!(all, audit_log::lines(&bucket.log).len());
    assert_eq!(bucket.compare(&["query", "-o", "json"]), REQUESTS);
    assert_eq!(bucket.compare(&["query", "-o", "json", "--name", "s-40"]), 2);
    assert_eq!(bucket.compare(&["query", "-o", "id", "--forbidden", "-u", "alice"]), REQUESTS / 20);
    assert_eq!(bucket.compare(&["query", "-o", "id", "--resource", "nodes"]), 0);
    bucket.compare(&[
        "query",
        "-o",
        "csv",
        "--since",
        "-1h",
        "--where",
        "objectRef.name == 's-40'",
    ]);
    bucket.compare(&["query", "--count", "--until", "2020-01-01T00:00:00Z"]);
    for report in ["users", "failed", "secrets", "latency", "volume"] {
        bucket.compare(&["report", report, "-o", "csv"]);
    }
    let (code, out, _) = bucket.run(&["report", "-o", "json", "s3://audit/logs/cluster=prod"]);
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && out.contains("objects are not sealed"), "{summary:#}");

    // Files and objects in one command, here each request twice.
    let log = bucket.log.to_str().unwrap();
    let (code, out, _) =
        bucket.run(&["query", "--count", "--stage", "ResponseComplete", log, "s3://audit/logs"]);
    assert_eq!((code, out.trim()), (0, &*(REQUESTS * 2).to_string()));

    let export =
        ["export", "--events", "--cluster", "prod", "--stage", "all", log, "s3://audit/export"];
    let (code, out, errors) = bucket.run(&export);
    assert!(code == 0 && out.starts_with("s3://audit/export/cluster=prod/date="), "{errors}");
    let (_, count, _) = bucket.run(&["query", "--count", "--stage", "all", "s3://audit/export"]);
    assert_eq!(count.trim(), all.to_string());
    let (code, out, errors) = bucket.run(&export);
    assert!(code == 0 && out.contains("was there already"), "{errors}");
    // Another content: nothing is replaced.
    let other = ["export", "--events", "--cluster", "prod", log, "s3://audit/export"];
    let (code, _, errors) = bucket.run(&other);
    assert!(
        code == 2 && errors.contains("is there already; objects are never replaced"),
        "{errors}"
    );
    // A log that cannot be read to its end: no object.
    let torn = bucket.dir.path("torn.log.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&std::fs::read(&bucket.log).unwrap()).unwrap();
    let gzip = gzip.finish().unwrap();
    std::fs::write(&torn, &gzip[..gzip.len() / 2]).unwrap();
    let (code, _, _) = bucket.run(&["export", torn.to_str().unwrap(), "s3://audit/torn"]);
    assert_eq!(code, 2);
    let (code, _, errors) = bucket.run(&["query", "s3://audit/torn"]);
    assert!(code == 2 && errors.contains("no such object, and no objects below it"), "{errors}");

    errors_have_a_remedy(&bucket);
}

fn errors_have_a_remedy(bucket: &Bucket) {
    let (code, _, errors) = bucket.run(&["query", "s3://missing/logs"]);
    assert!(code == 2 && errors.contains("s3://missing/logs: there is no such bucket"), "{errors}");
    let mut command = bucket.command(&["query", "s3://audit/logs"]);
    let (code, _, errors) =
        outcome(command.env("AWS_SECRET_ACCESS_KEY", "wrong").output().unwrap());
    assert!(code == 2 && errors.contains("does not accept the credentials"), "{errors}");
    assert!(!errors.contains("wrong"), "{errors}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{free}");
    let mut command = bucket.command(&["report", "s3://audit/logs"]);
    let (code, _, errors) = outcome(command.env("AWS_ENDPOINT_URL", &endpoint).output().unwrap());
    assert!(code == 2 && errors.contains(&format!("cannot reach {endpoint}")), "{errors}");
    let mut command = bucket.command(&["query", "s3://audit/logs"]);
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_METADATA_ENDPOINT", endpoint);
    let (code, _, errors) = outcome(command.output().unwrap());
    assert!(
        code == 2 && errors.contains("there are no credentials: set AWS_ACCESS_KEY_ID"),
        "{errors}"
    );
    let mut command = bucket.command(&["query", "s3://audit/logs"]);
    command.env("AWS_ENDPOINT_URL", "http://s3.example.test");
    let (code, _, errors) = outcome(command.output().unwrap());
    assert!(code == 2 && errors.contains("set AWS_ALLOW_HTTP=true"), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_json_lines_in_a_bucket_are_queried() {
    let Some(weed) = weed() else { return };
    let bucket = bucket(weed, "ndjson").await;
    assert_eq!(bucket.compare(&["query", "-o", "json"]), REQUESTS);
    assert_eq!(bucket.compare(&["query", "-o", "json", "--name", "s-40"]), 2);
    bucket.compare(&["report", "users", "-o", "csv"]);
}

/// The Python with DuckDB and chDB, if they are installed.
fn engines() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let servers = std::env::var_os("KAP_TEST_SERVERS").map(PathBuf::from);
    let servers = servers.unwrap_or_else(|| home.join(".cache/kube-audit-proxy/servers"));
    let python = servers.join("engines/bin/python3");
    if !python.exists() {
        println!(
            "skipped: DuckDB and chDB are not installed; run bash tests/servers/install.sh engines"
        );
        return None;
    }
    Some(python)
}

fn python(program: &Path, script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.arg("-c").arg(script).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// chDB reads the bucket itself. DuckDB needs an extension for that, which is not on PyPI, so it
/// reads copies of the objects.
const CHDB: &str = r#"
import sys, chdb
endpoint, key, secret = sys.argv[1:]
source = f"s3('{endpoint}/audit/logs/**.parquet', '{key}', '{secret}', 'Parquet')"
print(chdb.query(f"SELECT count(), uniqExact(audit_id, stage), countIf(username = 'alice'), "
                 f"countIf(code = 403), max(_path LIKE '%cluster=prod/date=20%') FROM {source}", "TabSeparated"))
"#;
const DUCKDB: &str = r#"
import sys, duckdb
print(*duckdb.sql(f"SELECT count(*), count(DISTINCT (audit_id, stage)), count(*) FILTER (username = 'alice'), "
                  f"count(*) FILTER (code = 403), max(cluster = 'prod')::INT "
                  f"FROM read_parquet('{sys.argv[1]}/**/*.parquet', hive_partitioning = true)").fetchall()[0], sep="\t")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_count_the_same_events_in_the_bucket_as_the_log_has() {
    let (Some(weed), Some(engines)) = (weed(), engines()) else { return };
    let bucket = bucket(weed, "parquet").await;
    let lines = audit_log::lines(&bucket.log);
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    let (all, alice, forbidden) =
        (lines.len(), count("\"username\":\"alice\""), count("\"code\":403"));
    assert!(alice >= REQUESTS / 2 && forbidden >= REQUESTS / 10, "{alice} {forbidden}");
    let expected = format!("{all}\t{all}\t{alice}\t{forbidden}\t1");
    let found = python(&engines, CHDB, &[&bucket.server.endpoint(), KEY, SECRET]);
    assert_eq!(found, expected, "chDB");
    let copy = bucket.dir.path("copy");
    let stored = crate::object_storage::objects(&bucket.server, "/buckets/audit/logs").await;
    for (path, object) in stored {
        let path = copy.join(path.trim_start_matches("/buckets/audit/"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, object).unwrap();
    }
    let found = python(&engines, DUCKDB, &[copy.to_str().unwrap()]);
    assert_eq!(found, expected, "DuckDB");
}
