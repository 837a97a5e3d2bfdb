use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::audit::record::Format;
use crate::request::source::TrustedProxies;
use crate::server::tls::MinVersion;
use crate::upstream::identity::Identity;
use audit_log::webhook::WebhookConfig;
use audit_log::{Compress, LogConfig, LogPath, Mode, Rotation, SyncMode, Throttle};

/// Enough for everything else to be looked at.
const REQUIRED: [&str; 2] = ["--audit-policy-file=policy.yaml", "--audit-log-path=audit.log"];

/// The log of a configuration that has one.
fn log(config: &Config) -> (&LogConfig, Format) {
    let found = config.audit.sinks.iter().find_map(|sink| match &sink.backend {
        BackendSettings::Log { config, format } => Some((config, *format)),
        _ => None,
    });
    found.unwrap()
}

/// Its webhook, if it has one.
fn webhook(audit: &Audit) -> Option<&WebhookConfig> {
    audit.sinks.iter().find_map(|sink| match &sink.backend {
        BackendSettings::Webhook { config, .. } => Some(config),
        _ => None,
    })
}

/// Returns the configuration of these flags in addition to [`REQUIRED`] ones.
pub(in crate::config) fn config(arguments: &[&str]) -> Result<Config, String> {
    let all: Vec<OsString> = REQUIRED.iter().chain(arguments).map(OsString::from).collect();
    let flags = file::parse(&all).map_err(|error| error.to_string())?.unwrap();
    Config::new(flags).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_kube_apiservers() {
    let config = config(&[]).unwrap();
    assert_eq!(config.serving.addr, "0.0.0.0:6443".parse().unwrap());
    assert_eq!(
        config.serving.certificate,
        CertificateSource::SelfSigned("/var/run/kubernetes".into())
    );
    assert_eq!(config.serving.tls.min_version, MinVersion::Tls12);
    assert!(config.serving.tls.cipher_suites.is_none());
    assert!(!config.serving.tls.request_client_certificates);
    assert_eq!(config.authentication.anonymous_auth, None);
    assert_eq!(config.authentication.trusted_proxies, TrustedProxies::Everyone);
    assert_eq!(config.upstream.identity, Identity::Impersonate);
    assert_eq!(config.audit.sinks[0].policy_file, PathBuf::from("policy.yaml"));
    assert_eq!(log(&config).0.path, LogPath::File("audit.log".into()));
    assert_eq!(log(&config).0.mode, Mode::Blocking);
    // But for the index, which kube-apiserver does not have.
    assert_eq!(log(&config).0.rotation, Rotation { index: true, ..Rotation::default() });
    assert_eq!(log(&config).0.sync, SyncMode::Off);
    assert_eq!(log(&config).1, Format::Json);
    assert_eq!(config.operation.admin_addr, "127.0.0.1:8081".parse().unwrap());
    assert_eq!(config.operation.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(config.operation.log_level, tracing::Level::INFO);
}

#[test]
fn flags_become_settings() {
    let config = config(&[
        "--bind-address=::",
        "--secure-port=0",
        "--tls-cert-file=a.crt",
        "--tls-private-key-file=a.key",
        "--tls-min-version=VersionTLS13",
        "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        "--client-ca-file=ca.crt",
        "--anonymous-auth=false",
        "--audit-log-path=-",
        "--audit-log-mode=batch",
        "--audit-log-batch-max-wait=500ms",
        "--audit-log-batch-throttle-enable",
        "--audit-log-batch-throttle-qps=10",
        "--audit-log-batch-throttle-burst=15",
        "--audit-log-maxsize=0",
        "--audit-log-compress",
        "--audit-log-sync=interval",
        "-v4",
    ])
    .unwrap();
    assert_eq!(config.serving.addr, "[::]:0".parse().unwrap());
    let (certificate, key) = ("a.crt".into(), "a.key".into());
    assert_eq!(config.serving.certificate, CertificateSource::Files { certificate, key });
    assert_eq!(config.serving.tls.min_version, MinVersion::Tls13);
    assert_eq!(config.serving.tls.cipher_suites.as_ref().unwrap().len(), 2);
    assert!(config.serving.tls.request_client_certificates);
    assert_eq!(config.authentication.anonymous_auth, Some(false));
    assert_eq!(log(&config).0.path, LogPath::Stdout);
    let mode = Mode::Batch {
        buffer_size: 10_000,
        max_size: 1,
        max_wait: Duration::from_millis(500),
        throttle: Some(Throttle { qps: 10.0, burst: 15 }),
    };
    assert_eq!(log(&config).0.mode, mode);
    assert_eq!(log(&config).0.rotation.max_size_mib, 0);
    assert_eq!(log(&config).0.rotation.compress, Compress::Gzip);
    assert_eq!(log(&config).0.sync, SyncMode::Interval(Duration::from_secs(1)));
    assert_eq!(config.operation.log_level, tracing::Level::DEBUG);
}

#[test]
fn the_webhook_has_kube_apiservers_defaults_and_needs_no_log() {
    let parse = |arguments: &[&str]| {
        let all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Config::new(file::parse(&all).unwrap().unwrap()).unwrap().audit
    };
    let audit = parse(&["--audit-policy-file=p.yaml", "--audit-webhook-config-file=w.conf"]);
    let names: Vec<&str> = audit.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["webhook"]);
    let its = webhook(&audit).unwrap();
    let mode = Mode::Batch {
        buffer_size: 10_000,
        max_size: 400,
        max_wait: Duration::from_secs(30),
        throttle: Some(Throttle { qps: 10.0, burst: 15 }),
    };
    assert_eq!(its.mode, mode);
    assert_eq!(its.initial_backoff, Duration::from_secs(10));
    assert_eq!((its.max_event_size, its.compress, &its.spool), (None, false, &None));
    // Nothing of it is looked at where there is no webhook.
    let none = config(&["--audit-webhook-batch-throttle-qps=-1"]).unwrap();
    assert!(webhook(&none.audit).is_none());
    let with = |arguments: &[&str]| {
        config(&[&["--audit-webhook-config-file=w.conf"], arguments].concat()).unwrap_err()
    };
    for (arguments, expected) in [
        (
            &["--audit-webhook-batch-throttle-qps=-1"][..],
            "--audit-webhook-batch-throttle-qps: invalid audit batch webhook throttle QPS -1, must",
        ),
        (
            &["--audit-webhook-truncate-max-event-size=-1"],
            "invalid audit truncate webhook max event size -1, must be a positive number",
        ),
        (
            &[
                "--audit-webhook-truncate-max-batch-size=1",
                "--audit-webhook-truncate-max-event-size=2",
            ],
            "must be greater than max event size",
        ),
        (
            &["--audit-webhook-mode=blocking", "--audit-webhook-spool-dir=d"],
            "--audit-webhook-spool-dir needs --audit-webhook-mode=batch",
        ),
        (
            &["--audit-webhook-spool-dir=d", "--audit-webhook-spool-max-size=0"],
            "--audit-webhook-spool-max-size: 0 is not a size in MiB",
        ),
    ] {
        let error = with(arguments);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn invalid_combinations_are_rejected_with_a_remedy() {
    let cases: [(&[&str], &str); 29] = [
        (&["--audit-log-seal"], "--audit-log-seal needs --audit-log-seal-key-file"),
        (&["--audit-log-seal-key-file=k"], "has no effect without --audit-log-seal"),
        (&["--audit-log-seal-checkpoint-file=c"], "has no effect without --audit-log-seal"),
        (
            &["--audit-log-path=-", "--audit-log-seal", "--audit-log-seal-key-file=k"],
            "standard output cannot be sealed",
        ),
        (&["--audit-log-sync=on"], "[possible values: off, interval, always]"),
        (
            &["--audit-log-sync=interval", "--audit-log-sync-interval=0s"],
            "--audit-log-sync-interval must be above 0",
        ),
        (&["--audit-log-mode=foo"], "[possible values: batch, blocking, blocking-strict]"),
        (&["--audit-log-format=foo"], "[possible values: json, legacy]"),
        (&["--audit-log-version=v1beta1"], "[possible values: audit.k8s.io/v1]"),
        (
            &["--audit-log-mode=batch", "--audit-log-batch-buffer-size=-3"],
            "--audit-log-batch-buffer-size: invalid audit batch log buffer size -3, must be a positive number",
        ),
        (
            &["--audit-log-mode=batch", "--audit-log-batch-max-size", "0"],
            "--audit-log-batch-max-size: invalid audit batch log max batch size 0, must be",
        ),
        (
            &["--audit-log-mode=batch", "--audit-log-batch-throttle-enable"],
            "invalid audit batch log throttle QPS 0, must be a positive number",
        ),
        (
            &[
                "--audit-log-mode=batch",
                "--audit-log-batch-throttle-enable=true",
                "--audit-log-batch-throttle-qps=1",
                "--audit-log-batch-throttle-burst=-1",
            ],
            "invalid audit batch log throttle burst -1, must be a positive number",
        ),
        (
            &["--audit-log-maxage", "-1"],
            "--audit-log-maxage -1 can't be a negative number; give 0 for no limit",
        ),
        (&["--audit-log-maxbackup=-1"], "--audit-log-maxbackup -1 can't be a negative number"),
        (
            &["--audit-log-maxsize=-1"],
            "--audit-log-maxsize -1 can't be a negative number; give 0 to never rotate",
        ),
        (&["--audit-log-path="], "--audit-log-path"),
        (&["--tls-cert-file=a"], "--tls-cert-file needs --tls-private-key-file"),
        (&["--tls-private-key-file=a"], "--tls-private-key-file needs --tls-cert-file"),
        (
            &["--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
        (&["--tls-min-version=VersionTLS10"], "[possible values: VersionTLS12, VersionTLS13]"),
        (&["--anonymous-auth=false"], "would reject every request; give --client-ca-file"),
        (&["--anonymous-auth=maybe"], "neither true nor false"),
        (&["--client-crl-file=crl"], "--client-crl-file needs --client-ca-file"),
        (&["--context=c", "--upstream-server=https://a"], "--context needs a kubeconfig"),
        (&["--credential-plugin-timeout=0s"], "--credential-plugin-timeout must be longer"),
        (&["--shutdown-timeout=-1s"], "a time to wait cannot be negative"),
        (&["--shutdown-timeout=30"], "time: missing unit in duration \"30\"; write it as 30s"),
        (&["--audit-polcy-file=x"], "--audit-policy-file"),
    ];
    for (arguments, expected) in cases {
        let error = config(arguments).unwrap_err();
        assert!(error.contains(expected), "{arguments:?}\n{error}");
    }
}

#[test]
fn batch_settings_do_not_matter_in_the_blocking_modes() {
    let arguments = ["--audit-log-mode=blocking-strict", "--audit-log-batch-buffer-size=-3"];
    assert_eq!(log(&config(&arguments).unwrap()).0.mode, Mode::BlockingStrict);
}

#[test]
fn there_is_no_serving_without_recording() {
    let [policy, log] = REQUIRED;
    let cases = [
        (log, "--audit-policy-file is missing", "config/policy-recommended.yaml"),
        (policy, "--audit-log-path is missing", "a file, or to - for standard output"),
    ];
    for (given, start, remedy) in cases {
        let flags = file::parse(&[OsString::from(given)]).unwrap().unwrap();
        let error = Config::new(flags).unwrap_err().to_string();
        assert!(error.starts_with(start) && error.contains(remedy), "{error}");
    }
}

#[test]
fn the_later_of_two_values_wins() {
    let twice = config(&["--secure-port=1", "--secure-port=2"]).unwrap();
    assert_eq!(twice.serving.addr.port(), 2);
}

#[test]
fn the_flags_are_one_log_and_one_webhook_with_one_policy() {
    let flags = ["--audit-webhook-config-file=w.conf", "--audit-node-name=cp-1"];
    let audit = config(&flags).unwrap().audit;
    let sinks: Vec<_> =
        audit.sinks.iter().map(|s| (&*s.name, s.policy_file.to_str().unwrap())).collect();
    assert_eq!(sinks, [("log", "policy.yaml"), ("webhook", "policy.yaml")]);
    let redactions = audit.sinks.iter().map(|sink| sink.bodies.redaction.as_ref().unwrap());
    let redactions: Vec<_> = redactions.map(std::sync::Arc::as_ptr).collect();
    assert_eq!(redactions[0], redactions[1], "so that they share bodies");
    assert_eq!(audit.node_name.as_deref(), Some("cp-1"));
    for name in ["", "a b"] {
        let error = config(&[&format!("--audit-node-name={name}")]).unwrap_err();
        assert!(error.starts_with("--audit-node-name is invalid"), "{error}");
    }
}
