use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::super::super::{BackendSettings, Config, file};
use crate::audit::record::Format;
use audit_log::{Compress, LogPath, Mode, SyncMode};
use test_support::TempDir;

pub(super) fn config(yaml: &str, arguments: &[&str]) -> Result<Config, String> {
    let dir = TempDir::new();
    let path = dir.write("config.yaml", yaml);
    let mut all = vec![OsString::from("--config"), path.clone().into()];
    all.extend(arguments.iter().map(OsString::from));
    let flags = file::parse(&all).unwrap().map_err(|error| error.to_string());
    let config = flags.and_then(|flags| Config::new(flags).map_err(|error| error.to_string()));
    config.map_err(|error| error.replace(&path.display().to_string(), "config.yaml"))
}

#[test]
fn the_sample_is_three_sinks() {
    let yaml = include_str!("../../../../config/sinks.yaml");
    let audit = config(yaml, &[]).unwrap().audit;
    assert_eq!(audit.node_name, None);
    let names: Vec<&str> = audit.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["archive", "shipper", "siem"]);
    let [archive, shipper, siem] = &audit.sinks[..] else { unreachable!() };
    let BackendSettings::Log { config, format: Format::Json } = &archive.backend else {
        panic!("{archive:?}")
    };
    assert_eq!(config.path, LogPath::File("/var/log/kubernetes/audit.log".into()));
    assert_eq!((&config.mode, config.sync), (&Mode::BlockingStrict, SyncMode::Always));
    assert_eq!((config.rotation.max_backups, config.rotation.compress), (30, Compress::Gzip));
    let BackendSettings::Log { config, .. } = &shipper.backend else { panic!("{shipper:?}") };
    assert_eq!(config.path, LogPath::Stdout);
    let BackendSettings::Webhook { config: webhook, .. } = &siem.backend else {
        panic!("{siem:?}")
    };
    assert!(webhook.compress && webhook.spool.is_some());
    let Mode::Batch { max_wait, .. } = webhook.mode else { panic!("{:?}", webhook.mode) };
    assert_eq!(max_wait, Duration::from_secs(5));
    assert_eq!(siem.policy_file, Path::new("/etc/kube-audit-proxy/policy-siem.yaml"));
    assert!(archive.bodies.redaction.is_none() && siem.bodies.redaction.is_some());
}

const FILE: &str = "sinks:\n- {name: a, type: file, path: a.log, policy-file: p.yaml}\n";

#[test]
fn invalid_entries_are_reported_with_position_and_remedy() {
    let one = |entry: &str| format!("sinks:\n- name: a\n  policy-file: p\n{entry}");
    let cases = [
        ("sinks: here\n".to_owned(), "config.yaml:1:8: sinks is a list; write `- name: …`"),
        ("sinks: []\n".into(), "config.yaml:1:8: sinks is empty: nothing would be recorded"),
        (
            "sinks: [a]\n".into(),
            "config.yaml:1:9: sinks[0]: an entry must be a map with name, type",
        ),
        (one(""), "config.yaml:2:3: sinks[0]: type is missing: write file, stdout, webhook, s3"),
        (
            one("  type: syslog\n"),
            "config.yaml:4:9: sinks[0]: there is no type \"syslog\"; write file",
        ),
        (
            one("  type: file\n  path: x\n  maxsiz: 3\n"),
            "config.yaml:6:3: sinks[0]: a sink of type file has no \"maxsiz\"; did you mean \"maxsize\"?",
        ),
        (
            one("  type: stdout\n  maxsize: 3\n"),
            "config.yaml:5:3: sinks[0]: a sink of type stdout has no \"maxsize\"; it has name, type, ",
        ),
        (
            one("  type: webhook\n  config-file: w\n  mode: eager\n"),
            "config.yaml:6:9: sinks[0]: mode: \"eager\" is not supported; write batch, blocking or blocking-strict",
        ),
        (
            one("  type: webhook\n  config-file: w\n  batch-buffer-size: -3\n"),
            "config.yaml:6:22: sinks[0]: batch-buffer-size: invalid audit batch webhook buffer size -3",
        ),
        (
            one("  type: webhook\n  config-file: w\n  mode: blocking\n  spool-dir: d\n"),
            "config.yaml:7:14: sinks[0]: spool-dir needs mode: batch: in the others",
        ),
        (
            one("  type: webhook\n"),
            "config.yaml:2:3: sinks[0]: config-file is missing; give a kubeconfig",
        ),
        (one("  type: file\n"), "config.yaml:2:3: sinks[0]: path is missing; give the name"),
        (
            one("  type: file\n  path: \"-\"\n"),
            "config.yaml:5:9: sinks[0]: path: for standard output, write type: stdout",
        ),
        (
            one("  type: file\n  path: {a: b}\n"),
            "config.yaml:5:9: sinks[0]: path: write a value, not a map",
        ),
        (
            one("  type: file\n  path: x\n  redact: [\"core/configmaps\"]\n"),
            "config.yaml:6:11: sinks[0]: redact: redaction rule \"core/configmaps\": there is no colon",
        ),
        (
            "sinks:\n- {name: A_b, type: stdout, policy-file: p}\n".into(),
            "config.yaml:2:10: sinks[0]: \"A_b\" is not a valid sink name; use up to 63",
        ),
        (
            "sinks:\n- {name: a, type: stdout}\n".into(),
            "config.yaml:2:3: sinks[0]: policy-file is missing: it selects what is recorded",
        ),
        (
            format!("{FILE}- {{name: a, type: stdout, policy-file: p}}\n"),
            "config.yaml:3:3: sinks[1]: name: there is a sink \"a\" already; choose another name",
        ),
        (
            format!("{FILE}- {{name: b, type: file, path: a.log, policy-file: p}}\n"),
            "config.yaml:3:31: sinks[1]: path: a.log is that of sink \"a\" already; a log has one",
        ),
        (
            format!("audit-log-path: a\n{FILE}"),
            "config.yaml:1:1: audit-log-path and sinks exclude each other; move it into",
        ),
    ];
    for (yaml, expected) in cases {
        let error = config(&yaml, &[]).unwrap_err();
        println!("{yaml}{error}\n");
        assert!(error.starts_with(expected), "{yaml}\n{error}");
    }
    for flag in ["--audit-policy-file=p", "--audit-webhook-mode=batch", "--audit-redact=none"] {
        let error = config(FILE, &[flag]).unwrap_err();
        let name = flag.split('=').next().unwrap();
        let expected = format!("config.yaml:1:1: sinks and {name} exclude each other; move");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert!(config(FILE, &["--audit-node-name=n", "--audit-total-body-bytes=1"]).is_ok());
}

#[test]
fn equal_redactions_are_one() {
    let more = "- {name: b, type: stdout, policy-file: p.yaml}\n\
                - {name: c, type: file, path: c.log, policy-file: p.yaml, redact: none}\n\
                - {name: d, type: file, path: d.log, policy-file: p.yaml, redact: [none]}\n";
    let audit = config(&format!("{FILE}{more}"), &[]).unwrap().audit;
    let of =
        |index: usize| audit.sinks[index].bodies.redaction.as_ref().map(std::sync::Arc::as_ptr);
    assert!(of(0).is_some() && of(0) == of(1));
    assert_eq!((of(2), of(3)), (None, None));
}

#[test]
fn an_entry_of_object_storage_has_its_own_keys() {
    let entry = |keys: &str| {
        format!("sinks:\n- name: a\n  type: s3\n  policy-file: p\n  spool-dir: spool\n{keys}")
    };
    let good = entry(
        "  url: s3://audit/logs\n  segment-max-size: 8\n  allow-http: true\n  node: node-1\n",
    );
    let audit = config(&good, &[]).unwrap().audit;
    let BackendSettings::S3 { config: stream, store } = &audit.sinks[0].backend else {
        panic!("{audit:?}")
    };
    assert_eq!((stream.segment_max_size, stream.spool.max_size), (8 << 20, 4 << 30));
    assert_eq!(stream.segment_max_age, Duration::from_secs(300));
    assert_eq!((&*store.url, &*store.node, store.allow_http), ("s3://audit/logs", "node-1", true));
    let locked =
        entry("  url: s3://a\n  object-lock-mode: compliance\n  object-lock-retain: 365d\n");
    let audit = config(&locked, &[]).unwrap().audit;
    let BackendSettings::S3 { store, .. } = &audit.sinks[0].backend else { panic!("{audit:?}") };
    let lock = store.lock.unwrap();
    assert_eq!(lock.mode, audit_stream::s3::LockMode::Compliance);
    assert_eq!(lock.retain, Duration::from_secs(365 * 24 * 60 * 60));
    let cases = [
        ("", "config.yaml:2:3: sinks[0]: url is missing; write s3://bucket/prefix"),
        (
            "  url: s3://a\n  segment-max-size: 0\n",
            "config.yaml:7:21: sinks[0]: segment-max-size: 0 is not a size in MiB; give 1 to 1024",
        ),
        (
            "  url: s3://a\n  segmnt-max-size: 1\n",
            "config.yaml:7:3: sinks[0]: a sink of type s3 has no \"segmnt-max-size\"; did you mean \
             \"segment-max-size\"?",
        ),
        (
            "  url: s3://a\n  format: orc\n",
            "config.yaml:7:11: sinks[0]: format: \"orc\" is not supported; write parquet or ndjson",
        ),
        (
            "  url: s3://a\n  sse-kms-key-id: k\n",
            "config.yaml:7:19: sinks[0]: sse-kms-key-id needs server-side-encryption: aws:kms",
        ),
        (
            "  url: s3://a\n  object-lock-mode: compliance\n",
            "config.yaml:7:21: sinks[0]: object-lock-mode needs object-lock-retain, such as 365d",
        ),
        (
            "  url: s3://a\n  object-lock-retain: 365d\n",
            "config.yaml:7:23: sinks[0]: object-lock-retain needs object-lock-mode: governance or",
        ),
        (
            "  url: s3://a\n  object-lock-mode: legal\n  object-lock-retain: 365d\n",
            "config.yaml:7:21: sinks[0]: object-lock-mode: \"legal\" is not supported; write governance \
             or compliance",
        ),
        (
            "  url: s3://a\n  object-lock-mode: governance\n  object-lock-retain: 1y\n",
            "config.yaml:8:23: sinks[0]: object-lock-retain: \"1y\" is not a duration; write 365d or 12h",
        ),
        (
            "  url: s3://a\n- name: b\n  type: s3\n  policy-file: p\n  url: s3://b\n  spool-dir: ./x/../spool\n",
            "config.yaml:11:14: sinks[1]: spool-dir: ./x/../spool is that of sink \"a\" already; give it another",
        ),
        (
            "  url: s3://a\n- name: b\n  type: webhook\n  policy-file: p\n  config-file: w\n  spool-dir: spool\n",
            "config.yaml:11:14: sinks[1]: spool-dir: spool is that of sink \"a\" already; give it another",
        ),
        (
            "  url: s3://a\n  secret-access-key: k\n",
            "config.yaml:7:3: sinks[0]: a sink of type s3 has no \"secret-access-key\"",
        ),
    ];
    for (keys, expected) in cases {
        let error = config(&entry(keys), &[]).unwrap_err();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
}
