use super::*;
use crate::config::sinks::entry::BackendKeys;
use test_support::TempDir;

fn parsed(yaml: &str, arguments: &[&str]) -> Result<ServeFlags, String> {
    let dir = TempDir::new();
    let path = dir.write("config.yaml", yaml);
    let mut all = vec![OsString::from("--config"), path.clone().into()];
    all.extend(arguments.iter().map(OsString::from));
    let result = parse(&all).unwrap();
    result.map_err(|error| {
        error.to_string().replace(&path.display().to_string(), "config.yaml").replace('`', "'")
    })
}

#[test]
fn a_name_that_looks_like_a_yaml_boolean_or_number_stays_a_string() {
    let flags = parsed("audit-node-name: no\n", &[]).unwrap();
    assert_eq!(flags.annotations.audit_node_name.as_deref(), Some("no"));
    let sinks = "sinks:\n- {name: on, type: s3, policy-file: 007, cluster: 1.10, node: y}\n";
    let flags = parsed(sinks, &[]).unwrap();
    let [entry] = &flags.sinks[..] else { panic!("{flags:?}") };
    let BackendKeys::S3(keys) = &entry.backend else { panic!("{entry:?}") };
    let policy = entry.policy.policy_file.as_deref();
    assert_eq!((&*entry.name, policy), ("on", Some(Path::new("007"))));
    assert_eq!((&*keys.cluster, keys.node.as_deref()), ("1.10", Some("y")));
}

#[test]
fn entries_are_flags_and_flags_win() {
    let yaml = "\
# where
secure-port: 8443
bind-address: \"::1\"
anonymous-auth: false
audit-log-path: \"-\"
audit-log-maxage: 0
audit-log-batch-throttle-qps: 1.5
shutdown-timeout: 1m30s
trusted-proxies: [10.0.0.0/8, 192.0.2.0/24]
tls-cipher-suites:
- A
- B,C
";
    let flags = parsed(yaml, &["--secure-port=1", "--tls-cipher-suites", "D"]).unwrap();
    assert_eq!(flags.serving.secure_port, 1);
    assert_eq!(flags.serving.bind_address.to_string(), "::1");
    assert_eq!(flags.authentication.anonymous_auth, Some(false));
    assert_eq!(flags.log.path.as_deref(), Some(Path::new("-")));
    assert_eq!(flags.log.maxage, 0);
    assert_eq!(flags.log.batch_throttle_qps, 1.5);
    assert_eq!(flags.operation.shutdown_timeout.as_secs(), 90);
    assert_eq!(flags.authentication.trusted_proxies.len(), 2);
    assert_eq!(flags.serving.tls_cipher_suites, ["D"]);
    assert_eq!(parsed(yaml, &[]).unwrap().serving.tls_cipher_suites, ["A", "B", "C"]);
    assert_eq!(
        parsed(yaml, &["--anonymous-auth"]).unwrap().authentication.anonymous_auth,
        Some(true)
    );
}

#[test]
fn an_empty_file_changes_nothing() {
    for yaml in ["", "# only words\n", "{}\n"] {
        assert_eq!(parsed(yaml, &[]).unwrap().serving.secure_port, 6443, "{yaml:?}");
    }
}

#[test]
fn errors_name_line_column_and_remedy() {
    let cases = [
        (
            "secure-port: 1\naudit-polcy-file: x\n",
            "config.yaml:2:1: there is no \"audit-polcy-file\"; did you mean \"audit-policy-file\"?",
        ),
        (
            "zzz: 1\n",
            "config.yaml:1:1: there is no \"zzz\"; keys are the flags of serve without their dashes",
        ),
        ("help: true\n", "config.yaml:1:1: there is no \"help\"; keys are the flags"),
        ("config: other.yaml\n", "config.yaml:1:1: a configuration file cannot name another"),
        (
            "secure-port: 70000\n",
            "config.yaml:1:14: secure-port: \"70000\" is invalid: 70000 is not in",
        ),
        (
            "\naudit-log-mode: eager\n",
            "config.yaml:2:17: audit-log-mode: \"eager\" is not supported; write batch, blocking or blocking-strict",
        ),
        (
            "trusted-proxies:\n  - 10.0.0.0/8\n  - nonsense\n",
            "config.yaml:3:5: trusted-proxies: \"nonsense\" is invalid: ",
        ),
        (
            "shutdown-timeout: 30\n",
            "config.yaml:1:19: shutdown-timeout: \"30\" is invalid: time: missing unit",
        ),
        (
            "anonymous-auth: no\n",
            "config.yaml:1:17: anonymous-auth: \"no\" is invalid: neither true nor false",
        ),
        ("kubeconfig:\n", "config.yaml: "),
        (
            "kubeconfig: {a: b}\n",
            "config.yaml:1:13: kubeconfig must be a value or a list of values, not a map",
        ),
        ("- secure-port\n", "config.yaml: "),
        ("secure-port: 1\nsecure-port: 2\n", "config.yaml: "),
        ("a: [\n", "config.yaml: "),
    ];
    for (yaml, expected) in cases {
        let error = parsed(yaml, &[]).unwrap_err();
        println!("{yaml:?}\n  {error}");
        assert!(error.starts_with(expected), "{yaml:?}\n{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let all = [OsString::from("--config=/nowhere/config.yaml")];
    let error = parse(&all).unwrap().unwrap_err().to_string();
    assert!(error.starts_with("--config: /nowhere/config.yaml: No such file"), "{error}");
}
