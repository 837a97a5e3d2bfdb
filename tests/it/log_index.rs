//! Index files that are written at rotation, `log index`, and `log export`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::support::http1;
use crate::support::proxy::{BINARY, Builder};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, wait_for};

/// Runs `kube-audit-proxy log`: exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(BINARY).arg("log").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn with_suffix(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn rotated_logs_are_indexed_and_sealed_and_give_the_same_results() {
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let dir = TempDir::new();
    let key = dir.path("key.pem");
    assert_eq!(run(&["keygen", key.to_str().unwrap()]).0, 0);
    let folder = dir.path("logs");
    std::fs::create_dir(&folder).unwrap();
    let log = folder.join("audit.log");
    let mut proxy = Builder::new(upstream.addr)
        .flag(&format!("--audit-log-path={}", log.display()))
        .flag("--audit-log-maxsize=1")
        .flag("--audit-log-compress=zstd")
        .flag("--audit-log-seal")
        .flag(&format!("--audit-log-seal-key-file={}", key.display()))
        .start()
        .await;
    for index in 0..400 {
        let path = format!(
            "/api/v1/namespaces/n{}/pods/p-{index}?labelSelector=app%3D{}",
            index % 3,
            "a".repeat(6_000)
        );
        http1::get(proxy.addr, Some("alice"), &path, &[]).await.unwrap();
    }
    let indexed = || (with_suffix(&folder, ".log.parquet").len() >= 2).then_some(());
    wait_for("index files", indexed).await;
    assert!(proxy.stop().await.success());
    let logs = with_suffix(&folder, ".log.zst");
    assert!(logs.len() >= 2, "{logs:?}");
    // The index files that the proxy had no time to write.
    let log = log.to_str().unwrap();
    let (code, text, errors) = run(&["index", log]);
    assert_eq!(code, 0, "{text}{errors}");
    let (code, text, errors) = run(&["index", "--check", log]);
    assert_eq!(code, 0, "{text}{errors}");
    assert_eq!(
        text.lines().filter(|line| line.contains(": intact, ")).count(),
        text.lines().count()
    );

    for arguments in [
        &["query", "--name", "p-3", "-o", "json"][..],
        &["query", "-n", "n1", "--count"],
        &["query", "--name", "p-1*", "--reverse", "-o", "id"],
        &["query", "--name", "nobody"],
        &["report", "-o", "json"],
        &["report", "top", "--by", "user,verb,resource,namespace,code", "-o", "json"],
        &["report", "volume", "-o", "csv"],
        &["report", "users"],
        &["report", "rbac-for", "--user", "alice"],
    ] {
        let with = run(&[arguments, &[log]].concat());
        let without = run(&[arguments, &["--no-index", log]].concat());
        assert_eq!((with.0, &with.1), (without.0, &without.1), "{arguments:?}");
        assert_eq!(with.2, "", "{arguments:?}");
    }

    let public = format!("{}.pub", key.display());
    let verify = || run(&["verify", "--public-key", &public, log]);
    let (code, text, errors) = verify();
    assert_eq!(code, 0, "{text}{errors}");
    let seals = with_suffix(&folder, ".seal").into_iter();
    let sealed: String = seals.map(|seal| std::fs::read_to_string(seal).unwrap()).collect();
    let index = with_suffix(&folder, ".log.parquet")
        .into_iter()
        .find(|index| sealed.contains(index.file_name().unwrap().to_str().unwrap()))
        .expect("the digest of an index file in the seal");
    // The log is decompressed and its index file regenerated. That is not tampering.
    let plain = index.with_extension("");
    let compressed = plain.with_extension("log.zst");
    let text = zstd::decode_all(std::fs::File::open(&compressed).unwrap()).unwrap();
    std::fs::write(&plain, text).unwrap();
    std::fs::remove_file(compressed).unwrap();
    let before = std::fs::read(&index).unwrap();
    let (code, text, errors) = run(&["index", plain.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}{errors}");
    assert_ne!(std::fs::read(&index).unwrap(), before, "the index file is a new one");
    let (code, text, errors) = verify();
    assert_eq!(code, 0, "{text}{errors}");
    assert!((text + &errors).contains("was regenerated after one was sealed"));
    // The index file is changed.
    let mut bytes = std::fs::read(&index).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    let (code, text, _) = verify();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the index file is neither the one that was sealed"), "{text}");
}

/// Returns a log of 300 requests in three hours.
fn log(dir: &TempDir) -> PathBuf {
    let mut text = String::new();
    for index in 0..300 {
        let time = format!("2026-11-23T0{}:{:02}:00.000000Z", index / 100, index % 60);
        text += &format!(
            "{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Request\",\
             \"auditID\":\"{index:08x}-0000-4000-8000-000000000000\",\"stage\":\"ResponseComplete\",\
             \"requestURI\":\"/api/v1/pods\",\"verb\":\"list\",\"user\":{{\"username\":\"u{}\",\
             \"groups\":[\"a\",\"b\"]}},\"responseStatus\":{{\"code\":200}},\"requestObject\":{{\"n\":{index}}},\
             \"requestReceivedTimestamp\":\"{time}\",\"stageTimestamp\":\"{time}\",\
             \"annotations\":{{\"k\":\"v\"}}}}\n",
            index % 5
        );
    }
    let log = dir.path("audit.log");
    std::fs::write(&log, text).unwrap();
    log
}

#[test]
fn exports_are_partitioned_and_never_replaced() {
    let dir = TempDir::new();
    let log = log(&dir);
    let log = log.to_str().unwrap();
    let out = dir.path("out");
    let to = out.to_str().unwrap();
    let arguments = [
        "export",
        "--format=ndjson",
        "--partition=cluster,date,hour",
        "--cluster=prod",
        "-u",
        "u1",
        log,
        to,
    ];
    let (code, text, errors) = run(&arguments);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let file = out.join("cluster=prod/date=2026-11-23/hour=01/events-0.ndjson");
    let events: Vec<Json> = std::fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 20);
    assert!(
        events
            .iter()
            .all(|event| event["user"]["username"] == "u1" && event["requestObject"].is_null())
    );
    // Again: nothing is replaced, nothing is left over.
    let (code, _, errors) = run(&arguments);
    assert_eq!(code, 2);
    assert!(errors.contains("is there already; --overwrite replaces it"), "{errors}");
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    let (code, ..) = run(&[&arguments[..], &["--overwrite"]].concat());
    assert_eq!(code, 0);
    let (code, text, _) = run(&["export", "-u", "nobody", log, dir.path("none").to_str().unwrap()]);
    assert_eq!((code, text.as_str()), (1, ""));
    let (code, _, errors) = run(&["export", "--partition=cluster", log, to]);
    assert_eq!(code, 2);
    assert!(errors.contains("needs --cluster"), "{errors}");
    let (code, _, errors) = run(&["export", to, log]);
    assert_eq!(code, 2);
    assert!(errors.contains("not a folder"), "{errors}");
}

/// Other programs can read the files. Needs the Python package duckdb, see `AUDIT_QUERY_PYTHON`.
#[test]
fn duckdb_reads_exports_and_indexes() {
    let python = std::env::var("AUDIT_QUERY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let ask = |query: &str| {
        let script = format!("import duckdb; print(duckdb.sql(\"\"\"{query}\"\"\").fetchall())");
        let output = Command::new(&python).args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = Command::new(&python).args(["-c", "import duckdb"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!(
            "skipped: {python} has no module duckdb; pip install duckdb, or set AUDIT_QUERY_PYTHON"
        );
        return;
    }
    let dir = TempDir::new();
    let log = log(&dir);
    let log = log.to_str().unwrap();
    for format in ["parquet", "csv", "ndjson"] {
        let out = dir.path(format);
        let flags = ["export", "--bodies", "--cluster=prod", &format!("--format={format}")];
        assert_eq!(run(&[&flags[..], &[log, out.to_str().unwrap()]].concat()).0, 0);
        let reader = match format {
            "parquet" => "read_parquet",
            "csv" => "read_csv",
            _ => "read_json",
        };
        let user = if format == "ndjson" { "\\\"user\\\".username" } else { "username" };
        let files = format!("{reader}('{}/**/*.{format}', hive_partitioning=true)", out.display());
        let found = ask(&format!(
            "SELECT cluster, date::VARCHAR, hour::INT, count(*), count(DISTINCT {user}) FROM {files} GROUP BY ALL ORDER BY ALL"
        ));
        assert_eq!(
            found,
            "[('prod', '2026-11-23', 0, 100, 5), ('prod', '2026-11-23', 1, 100, 5), ('prod', '2026-11-23', 2, 100, 5)]\n",
            "{format}"
        );
    }
    assert_eq!(run(&["index", log]).0, 0);
    let found = ask(&format!(
        "SELECT audit_id::VARCHAR, epoch_us(stage_timestamp), groups, annotations['k'], code, length(request_uri) FROM '{log}.parquet' WHERE line_offset = 0"
    ));
    assert!(
        found.contains("'00000000-0000-4000-8000-000000000000', 1795392000000000, ['a', 'b'], ")
            && found.contains("'v'")
            && found.contains("200, 12)"),
        "{found}"
    );
}
