//! Tests of entries of the types `kafka` and `otlp`.

use std::time::Duration;

use super::super::super::BackendSettings;
use super::tests::config;
use audit_log::stream::StreamMode;
use audit_stream::kafka::{Compression, Partitioner, PasswordMechanism, SaslSettings};
use audit_stream::otlp::Encoding;

fn entry(kind: &str, keys: &str) -> String {
    format!("sinks:\n- name: a\n  type: {kind}\n  policy-file: p\n  spool-dir: spool\n{keys}")
}

fn check_errors(kind: &str, cases: &[(&str, &str)]) {
    for (keys, expected) in cases {
        let error = config(&entry(kind, keys), &[]).unwrap_err();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_entry_of_kafka_has_its_own_keys() {
    let keys = "  brokers: [kafka-0:9092, kafka-1:9092]\n  topic: audit\n  mode: blocking\n  \
                  tls: true\n  ca-file: ca.crt\n  client-cert-file: c.crt\n  client-key-file: c.key\n  \
                  sasl-mechanism: SCRAM-SHA-512\n  sasl-username: proxy\n  \
                  sasl-password-file: password\n  cluster: prod\n  node: node-1\n  \
                  compression: lz4\n  max-request-size: 2\n";
    let audit = config(&entry("kafka", keys), &[]).unwrap().audit;
    let BackendSettings::Kafka { config: stream, topic } = &audit.sinks[0].backend else {
        panic!("{audit:?}")
    };
    assert_eq!((stream.segment_max_size, stream.spool.max_size), (1 << 20, 4 << 30));
    assert_eq!(stream.segment_max_age, Duration::from_secs(1));
    assert_eq!(stream.mode, StreamMode::Blocking);
    assert_eq!(topic.brokers, ["kafka-0:9092", "kafka-1:9092"]);
    assert_eq!((&*topic.topic, &*topic.client_id), ("audit", "kube-audit-proxy"));
    assert_eq!((&*topic.cluster, &*topic.node), ("prod", "node-1"));
    assert_eq!((topic.compression, topic.max_request_size), (Compression::Lz4, 2 << 20));
    assert_eq!(topic.partitioner, Partitioner::Key);
    let tls = topic.tls.as_ref().unwrap();
    assert_eq!(tls.client_certificate, Some(("c.crt".into(), "c.key".into())));
    let expected = SaslSettings::Password {
        mechanism: PasswordMechanism::ScramSha512,
        username: "proxy".to_owned(),
        password_file: "password".into(),
    };
    assert_eq!(topic.sasl, Some(expected));

    let keys = "  brokers: kafka-0:9092,kafka-1:9092\n  topic: audit\n  partition: 3\n  \
                  sasl-mechanism: OAUTHBEARER\n  sasl-token-file: token\n  \
                  sasl-extensions: [logicalCluster=lkc-1]\n";
    let audit = config(&entry("kafka", keys), &[]).unwrap().audit;
    let BackendSettings::Kafka { topic, .. } = &audit.sinks[0].backend else { panic!("{audit:?}") };
    assert_eq!(topic.brokers, ["kafka-0:9092", "kafka-1:9092"]);
    assert_eq!((topic.partitioner, &topic.tls), (Partitioner::Fixed(3), &None));
    assert!(topic.cluster.is_empty() && !topic.node.is_empty());
    let expected = SaslSettings::Token {
        token_file: "token".into(),
        extensions: [("logicalCluster".to_owned(), "lkc-1".to_owned())].into(),
    };
    assert_eq!(topic.sasl, Some(expected));
}

#[test]
fn wrong_entries_of_kafka_are_reported_with_place_and_remedy() {
    check_errors(
        "kafka",
        &[
            ("", "config.yaml:2:3: sinks[0]: brokers is missing; write host:port of at least one"),
            ("  brokers: a:1\n", "config.yaml:2:3: sinks[0]: topic is missing; write the name"),
            (
                "  brokers: [a]\n  topic: t\n",
                "config.yaml:6:12: sinks[0]: brokers: \"a\" has no port; give host:port",
            ),
            (
                "  brokers: a:1\n  topic: a/b\n",
                "config.yaml:7:10: sinks[0]: topic: \"a/b\" is not a name of a topic; give 1 to",
            ),
            (
                "  brokers: a:1\n  topic: t\n  max-request-size: 101\n",
                "config.yaml:8:21: sinks[0]: max-request-size: 101 is not a size in MiB; give 1 to 100",
            ),
            (
                "  brokers: a:1\n  topic: t\n  partitioner: round-robin\n  partition: 1\n",
                "config.yaml:9:14: sinks[0]: partition excludes partitioner: round-robin; remove one",
            ),
            (
                "  brokers: a:1\n  topic: t\n  partitioner: sticky\n",
                "config.yaml:8:16: sinks[0]: partitioner: \"sticky\" is not supported; write key or",
            ),
            (
                "  brokers: a:1\n  topic: t\n  ca-file: ca.crt\n",
                "config.yaml:8:12: sinks[0]: ca-file needs tls: true",
            ),
            (
                "  brokers: a:1\n  topic: t\n  tls: true\n  client-cert-file: c\n",
                "config.yaml:9:21: sinks[0]: client-cert-file needs client-key-file",
            ),
            (
                "  brokers: a:1\n  topic: t\n  sasl-username: u\n",
                "config.yaml:8:18: sinks[0]: sasl-username needs sasl-mechanism: PLAIN, SCRAM-SHA-256",
            ),
            (
                "  brokers: a:1\n  topic: t\n  sasl-mechanism: PLAIN\n  sasl-username: u\n",
                "config.yaml:2:3: sinks[0]: sasl-password-file is missing; SASL needs a password",
            ),
            (
                "  brokers: a:1\n  topic: t\n  sasl-mechanism: PLAIN\n  sasl-token-file: u\n",
                "config.yaml:9:20: sinks[0]: sasl-token-file needs sasl-mechanism: OAUTHBEARER",
            ),
            (
                "  brokers: a:1\n  topic: t\n  sasl-mechanism: GSSAPI\n",
                "config.yaml:8:19: sinks[0]: sasl-mechanism: \"GSSAPI\" is not supported; write PLAIN,",
            ),
            (
                "  brokers: a:1\n  topic: t\n  sasl-mechanism: OAUTHBEARER\n  \
                   sasl-token-file: t\n  sasl-extensions: hunter2\n",
                "config.yaml:10:20: sinks[0]: sasl-extensions: write NAME=VALUE, or a list of them",
            ),
            (
                "  brokers: a:1\n  topic: t\n  sasl-password: hunter2\n",
                "config.yaml:8:3: sinks[0]: a sink of type kafka has no \"sasl-password\"",
            ),
            (
                "  brokers: a:1\n  topic: t\n  segment-max-age: 0s\n",
                "config.yaml:8:20: sinks[0]: segment-max-age must be above 0",
            ),
        ],
    );
    let error = config(&entry("kafka", "").replace("  spool-dir: spool\n", ""), &[]).unwrap_err();
    assert!(error.starts_with("config.yaml:2:3: sinks[0]: brokers is missing"), "{error}");
    let without_spool = entry("kafka", "  brokers: a:1\n  topic: t\n");
    let error = config(&without_spool.replace("  spool-dir: spool\n", ""), &[]).unwrap_err();
    assert!(error.starts_with("config.yaml:2:3: sinks[0]: spool-dir is missing"), "{error}");
}

#[test]
fn an_entry_of_a_collector_has_its_own_keys() {
    let keys = "  endpoint: https://otel:4318/otlp\n  encoding: json\n  compression: none\n  \
                  headers: [X-Scope-OrgID=audit]\n  headers-file: headers\n  ca-file: ca.crt\n  \
                  service-name: audit\n  cluster: prod\n  node: node-1\n  \
                  resource-attributes: a.b=c=d, e=f\n  segment-max-age: 250ms\n";
    let audit = config(&entry("otlp", keys), &[]).unwrap().audit;
    let BackendSettings::Otlp { config: stream, collector } = &audit.sinks[0].backend else {
        panic!("{audit:?}")
    };
    assert_eq!((stream.segment_max_size, stream.mode), (1 << 20, StreamMode::Batch));
    assert_eq!(stream.segment_max_age, Duration::from_millis(250));
    assert_eq!((collector.encoding, collector.gzip), (Encoding::Json, false));
    assert_eq!(collector.headers["X-Scope-OrgID"], "audit");
    assert_eq!(collector.headers_file, Some("headers".into()));
    assert_eq!((&*collector.service_name, &*collector.cluster), ("audit", "prod"));
    let attributes: Vec<_> = collector.resource_attributes.iter().collect();
    assert_eq!(attributes, [(&"a.b".into(), &"c=d".into()), (&"e".into(), &"f".into())]);
}

#[test]
fn wrong_entries_of_a_collector_are_reported_with_place_and_remedy() {
    check_errors(
        "otlp",
        &[
            ("", "config.yaml:2:3: sinks[0]: endpoint is missing; write the URL of the collector"),
            (
                "  endpoint: otel:4318\n",
                "config.yaml:6:13: sinks[0]: endpoint: the scheme is missing",
            ),
            (
                "  endpoint: https://a:hunter2@otel:4318\n",
                "config.yaml:6:13: sinks[0]: endpoint: credentials do not belong in the URL",
            ),
            (
                "  endpoint: https://otel:4318/v1/logs?token=hunter2\n",
                "config.yaml:6:13: sinks[0]: endpoint: has a query",
            ),
            (
                "  endpoint: http://otel:4318\n  ca-file: ca.crt\n",
                "config.yaml:7:12: sinks[0]: ca-file: needs an endpoint with https",
            ),
            (
                "  endpoint: https://otel:4318\n  client-key-file: c\n",
                "config.yaml:7:20: sinks[0]: client-key-file needs client-cert-file",
            ),
            (
                "  endpoint: https://otel:4318\n  headers: [\"Authorization: hunter2\"]\n",
                "config.yaml:7:12: sinks[0]: headers: write NAME=VALUE, or a list of them",
            ),
            (
                "  endpoint: https://otel:4318\n  headers: Content-Type=text/plain\n",
                "config.yaml:7:12: sinks[0]: headers: \"Content-Type\" is set by the proxy itself",
            ),
            (
                "  endpoint: https://otel:4318\n  resource-attributes: [a=b, a=c]\n",
                "config.yaml:7:24: sinks[0]: resource-attributes: a is there twice; write it once",
            ),
            (
                "  endpoint: https://otel:4318\n  resource-attributes: [host.name=b]\n",
                "config.yaml:7:24: sinks[0]: resource-attributes: host.name has a key of its own",
            ),
            (
                "  endpoint: https://otel:4318\n  encoding: grpc\n",
                "config.yaml:7:13: sinks[0]: encoding: \"grpc\" is not supported; write protobuf or json",
            ),
        ],
    );
}

#[test]
fn spools_of_all_types_are_separate() {
    let yaml = format!(
        "{}- {{name: b, type: otlp, policy-file: p, spool-dir: spool, endpoint: 'http://a:1'}}\n",
        entry("kafka", "  brokers: a:1\n  topic: t\n")
    );
    let error = config(&yaml, &[]).unwrap_err();
    assert!(
        error.contains("sinks[1]: spool-dir: spool is that of sink \"a\" already; give it another"),
        "{error}"
    );
}
