//! The settings of a Kafka backend.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::SettingsError;

/// The client ID of a backend that has none configured.
pub const DEFAULT_CLIENT_ID: &str = "kube-audit-proxy";
/// The default of [`KafkaSettings::max_request_size`], in bytes.
pub const DEFAULT_MAX_REQUEST_SIZE: usize = 16 << 20;
/// Kafka's limit for the name of a topic.
const MAX_TOPIC_LENGTH: usize = 249;

/// Where a Kafka backend sends events, and how. Nothing in it is secret: passwords, tokens and keys
/// are named by their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port` of the brokers to connect to first. They return the addresses of the others.
    pub brokers: Vec<String>,
    /// The topic. It must exist; the backend does not create it.
    pub topic: String,
    /// The client ID, which brokers show in logs and use for quotas.
    pub client_id: String,
    /// How events are assigned to partitions.
    pub partitioner: Partitioner,
    /// How batches are compressed.
    pub compression: Compression,
    /// The largest request, and the largest event before compression, in bytes, like Java's
    /// `max.request.size`. Besides, brokers reject events that are larger than `max.message.bytes`
    /// of the topic after compression.
    pub max_request_size: usize,
    /// TLS; `None` for plain text.
    pub tls: Option<TlsSettings>,
    /// SASL authentication.
    pub sasl: Option<SaslSettings>,
    /// The header `cluster` of each record; absent if it is empty.
    pub cluster: String,
    /// The header `node` of each record; absent if it is empty.
    pub node: String,
}

/// How events are assigned to partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// By the murmur2 hash of the key, the audit ID, like Java's producer. All events of a request
    /// are in one partition, in order.
    #[default]
    Key,
    /// One after the other. The events of a request are in different partitions.
    RoundRobin,
    /// All events go to one partition.
    Fixed(i32),
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard, level 3; needs Kafka 2.1.
    #[default]
    Zstd,
    /// gzip.
    Gzip,
    /// LZ4.
    Lz4,
    /// Snappy.
    Snappy,
    /// Not at all.
    None,
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The CAs of the brokers' certificates, PEM; the CAs that the system trusts if it is `None`.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The name in the brokers' certificates if it is not the host in their addresses.
    pub server_name: Option<String>,
}

/// SASL authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslSettings {
    /// A user name and a password.
    Password {
        /// The mechanism.
        mechanism: PasswordMechanism,
        /// The user name.
        username: String,
        /// The file that contains the password.
        password_file: PathBuf,
    },
    /// A token (OAUTHBEARER).
    Token {
        /// The file that contains the token.
        token_file: PathBuf,
        /// SASL extensions, such as `logicalCluster`.
        extensions: BTreeMap<String, String>,
    },
}

/// A SASL mechanism with user name and password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordMechanism {
    /// `PLAIN`: the broker receives the password.
    Plain,
    /// `SCRAM-SHA-256`
    ScramSha256,
    /// `SCRAM-SHA-512`
    ScramSha512,
}

impl KafkaSettings {
    /// Settings with defaults for everything but brokers and topic.
    pub fn new(brokers: Vec<String>, topic: String) -> KafkaSettings {
        KafkaSettings {
            brokers,
            topic,
            client_id: DEFAULT_CLIENT_ID.to_owned(),
            partitioner: Partitioner::default(),
            compression: Compression::default(),
            max_request_size: DEFAULT_MAX_REQUEST_SIZE,
            tls: None,
            sasl: None,
            cluster: String::new(),
            node: String::new(),
        }
    }

    /// Checks everything that can be checked without a file or a broker.
    ///
    /// # Errors
    /// The first field that cannot be used, and what is accepted instead.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.brokers.is_empty() {
            return Err(SettingsError::new(
                "brokers",
                "is empty; name at least one broker as host:port",
            ));
        }
        for broker in &self.brokers {
            check_broker(broker)?;
        }
        check_topic(&self.topic)?;
        if self.client_id.is_empty() {
            return Err(SettingsError::new("client-id", "is empty; omit it for kube-audit-proxy"));
        }
        if self.max_request_size < 1024 || self.max_request_size > 100 << 20 {
            let reason = format!(
                "{} is not a size in bytes; give 1024 to 104857600, which brokers accept at most",
                self.max_request_size
            );
            return Err(SettingsError::new("max-request-size", reason));
        }
        if let Partitioner::Fixed(partition) = self.partitioner
            && partition < 0
        {
            let reason = format!("{partition} is not a partition; partitions are numbered from 0");
            return Err(SettingsError::new("partition", reason));
        }
        if let Some(SaslSettings::Password { username, .. }) = &self.sasl
            && username.is_empty()
        {
            return Err(SettingsError::new("sasl-username", "is empty; give the user name"));
        }
        Ok(())
    }

    /// Returns whether a password or token is sent without encryption.
    pub(super) fn exposes_secret(&self) -> bool {
        let is_sent = matches!(
            self.sasl,
            Some(
                SaslSettings::Token { .. }
                    | SaslSettings::Password { mechanism: PasswordMechanism::Plain, .. }
            )
        );
        is_sent && self.tls.is_none()
    }
}

fn check_broker(broker: &str) -> Result<(), SettingsError> {
    let wrong = |reason: &str| {
        let reason = format!("{broker:?} {reason}; give host:port, such as kafka-0.kafka:9092");
        Err(SettingsError::new("brokers", reason))
    };
    if broker.contains("://") {
        return wrong("is a URL");
    }
    if broker.contains([',', ' ', '\t', '/', '@']) {
        return wrong("is not one address");
    }
    let Some((host, port)) = broker.rsplit_once(':') else { return wrong("has no port") };
    if host.is_empty() || host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong("has no host, or an IPv6 address without brackets");
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => wrong("has no port from 1 to 65535"),
        Ok(_) => Ok(()),
    }
}

fn check_topic(topic: &str) -> Result<(), SettingsError> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if topic.is_empty()
        || topic.len() > MAX_TOPIC_LENGTH
        || matches!(topic, "." | "..")
        || !topic.bytes().all(is_legal)
    {
        let reason = format!(
            "{topic:?} is not a name of a topic; give 1 to {MAX_TOPIC_LENGTH} characters of \
             a-z, A-Z, 0-9, '.', '_' and '-'"
        );
        return Err(SettingsError::new("topic", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(broker: &str, topic: &str) -> KafkaSettings {
        KafkaSettings::new(vec![broker.to_owned()], topic.to_owned())
    }

    fn error(settings: &KafkaSettings) -> String {
        settings.validate().unwrap_err().to_string()
    }

    #[test]
    fn addresses_and_topics_are_checked() {
        for broker in ["kafka:9092", "10.0.0.1:9092", "[2001:db8::1]:9092", "kafka-0.kafka.svc:1"] {
            assert!(settings(broker, "audit").validate().is_ok(), "{broker}");
        }
        for broker in [
            "",
            "kafka",
            "kafka:",
            ":9092",
            "kafka:0",
            "kafka:65536",
            "2001:db8::1:9092",
            "a:1,b:2",
            "a:1 ",
        ] {
            let error = error(&settings(broker, "audit"));
            assert!(error.starts_with("brokers: "), "{broker}: {error}");
            assert!(error.contains("give host:port"), "{error}");
        }
        assert!(error(&settings("kafka://kafka:9092", "audit")).contains("is a URL"));
        for topic in ["", ".", "..", "a b", "audit/x", "ä", &"a".repeat(250)] {
            assert!(error(&settings("kafka:9092", topic)).starts_with("topic: "), "{topic}");
        }
    }

    #[test]
    fn sizes_and_partitions_are_checked() {
        let mut wrong = settings("kafka:9092", "audit");
        wrong.max_request_size = 100;
        assert!(error(&wrong).starts_with("max-request-size: 100 is not a size"));
        let mut wrong = settings("kafka:9092", "audit");
        wrong.partitioner = Partitioner::Fixed(-1);
        assert!(error(&wrong).starts_with("partition: -1 is not a partition"));
        let none = KafkaSettings::new(Vec::new(), "audit".to_owned());
        assert_eq!(error(&none), "brokers: is empty; name at least one broker as host:port");
    }
}
