//! The keys of an entry of `sinks` with the type `kafka`.

use std::path::PathBuf;

use audit_stream::kafka::{
    self, DEFAULT_CLIENT_ID, KafkaSettings, PasswordMechanism, SaslSettings, TlsSettings,
};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::boolean_flag::BooleanFlag;
use super::parse::default_flags;
use super::setting::{Setting, SettingError};
use super::stream::{error, node_name, pairs, size};

/// The largest `max-request-size` in MiB: brokers accept no more (`socket.request.max.bytes`).
const MAX_REQUEST_SIZE: u64 = 100;

/// The keys of an entry of the type `kafka`, besides those of its spool. They are declared like
/// flags for their defaults and for the reference, but `serve` has no such flags.
#[derive(Debug, Clone, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct KafkaKeys {
    /// Brokers to connect to first, as `host:port`; they return the addresses of the others
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// Topic of the records; it must exist
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub topic: String,
    /// How events are assigned to partitions
    #[arg(long, value_enum, value_name = "PARTITIONER", default_value_t)]
    pub partitioner: KafkaPartitioner,
    /// Write all events to this partition, numbered from 0, instead [default: by `partitioner`]
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,
    /// Compression of the records
    #[arg(long, value_enum, value_name = "CODEC", default_value_t)]
    pub compression: KafkaCompression,
    /// Maximum size of a request, and of an event before compression, in MiB, at most 100
    #[arg(long, value_name = "MIB", default_value_t = 16)]
    pub max_request_size: i64,
    /// Client ID, which brokers use in logs and for quotas
    #[arg(long, value_name = "ID", default_value = DEFAULT_CLIENT_ID)]
    pub client_id: String,
    /// Header `cluster` of each record [default: no such header]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Header `node` of each record: the name of this proxy [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Connect with TLS
    #[arg(long, default_value = "false", boolean())]
    pub tls: bool,
    /// CA certificates (PEM) that the brokers' certificates must chain to [default: those of the
    /// system]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub client_cert_file: Option<PathBuf>,
    /// Key of `client-cert-file` (PEM, not encrypted)
    #[arg(long, value_name = "FILE")]
    pub client_key_file: Option<PathBuf>,
    /// Name in the brokers' certificates [default: the host in their addresses]
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// SASL authentication [default: no authentication]
    #[arg(long, value_enum, value_name = "MECHANISM")]
    pub sasl_mechanism: Option<SaslMechanism>,
    /// User name for PLAIN and SCRAM
    #[arg(long, value_name = "NAME")]
    pub sasl_username: Option<String>,
    /// File that contains the password for PLAIN and SCRAM
    #[arg(long, value_name = "FILE")]
    pub sasl_password_file: Option<PathBuf>,
    /// File that contains the token for OAUTHBEARER
    #[arg(long, value_name = "FILE")]
    pub sasl_token_file: Option<PathBuf>,
    /// SASL extensions for OAUTHBEARER, such as `logicalCluster=lkc-1`
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub sasl_extensions: Vec<String>,
}

/// `partitioner`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KafkaPartitioner {
    /// By the audit ID, like Java's producer: all events of a request are in one partition, in
    /// order
    #[default]
    Key,
    /// One partition after the other; the events of a request are in different partitions
    RoundRobin,
}

/// `compression`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KafkaCompression {
    /// Zstandard; needs Kafka 2.1 or later
    #[default]
    Zstd,
    /// gzip
    Gzip,
    /// LZ4
    Lz4,
    /// Snappy
    Snappy,
    /// No compression
    None,
}

/// `sasl-mechanism`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
pub(crate) enum SaslMechanism {
    /// Sends the user name and the password
    #[value(name = "PLAIN")]
    #[serde(rename = "PLAIN")]
    Plain,
    /// Proves the password without sending it (SHA-256)
    #[value(name = "SCRAM-SHA-256")]
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Proves the password without sending it (SHA-512)
    #[value(name = "SCRAM-SHA-512")]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// Sends a token, such as one of an OAuth 2.0 server
    #[value(name = "OAUTHBEARER")]
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl Default for KafkaKeys {
    fn default() -> KafkaKeys {
        default_flags()
    }
}

impl KafkaKeys {
    /// Returns the settings of the topic.
    pub(super) fn validate(&self) -> Result<KafkaSettings, SettingError> {
        if self.brokers.is_empty() {
            return Err(error("brokers", " is missing; write host:port of at least one broker"));
        }
        if self.topic.is_empty() {
            return Err(error("topic", " is missing; write the name of a topic that exists"));
        }
        let partitioner = match (self.partition, self.partitioner) {
            (Some(_), KafkaPartitioner::RoundRobin) => {
                return Err(error("partition", " excludes partitioner: round-robin; remove one"));
            }
            (Some(partition), KafkaPartitioner::Key) => kafka::Partitioner::Fixed(partition),
            (None, KafkaPartitioner::Key) => kafka::Partitioner::Key,
            (None, KafkaPartitioner::RoundRobin) => kafka::Partitioner::RoundRobin,
        };
        let max = size("max-request-size", self.max_request_size, MAX_REQUEST_SIZE)?;
        let brokers = self.brokers.iter().map(|broker| broker.trim().to_owned()).collect();
        let settings = KafkaSettings {
            client_id: self.client_id.clone(),
            partitioner,
            compression: match self.compression {
                KafkaCompression::Zstd => kafka::Compression::Zstd,
                KafkaCompression::Gzip => kafka::Compression::Gzip,
                KafkaCompression::Lz4 => kafka::Compression::Lz4,
                KafkaCompression::Snappy => kafka::Compression::Snappy,
                KafkaCompression::None => kafka::Compression::None,
            },
            max_request_size: usize::try_from(max).unwrap_or(usize::MAX),
            tls: self.tls()?,
            sasl: self.sasl()?,
            cluster: self.cluster.clone().unwrap_or_default(),
            node: node_name(self.node.as_deref()),
            ..KafkaSettings::new(brokers, self.topic.clone())
        };
        settings.validate().map_err(|error| Setting::key_only(error.setting()).error(error))?;
        Ok(settings)
    }

    fn tls(&self) -> Result<Option<TlsSettings>, SettingError> {
        let given = [
            ("ca-file", self.ca_file.is_some()),
            ("client-cert-file", self.client_cert_file.is_some()),
            ("client-key-file", self.client_key_file.is_some()),
            ("tls-server-name", self.tls_server_name.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given && !self.tls) {
            return Err(error(key, " needs tls: true"));
        }
        let client_certificate =
            client_certificate(self.client_cert_file.clone(), self.client_key_file.clone())?;
        Ok(self.tls.then(|| TlsSettings {
            ca_file: self.ca_file.clone(),
            client_certificate,
            server_name: self.tls_server_name.clone(),
        }))
    }

    fn sasl(&self) -> Result<Option<SaslSettings>, SettingError> {
        let password = [
            ("sasl-username", self.sasl_username.is_some()),
            ("sasl-password-file", self.sasl_password_file.is_some()),
        ];
        let token = [
            ("sasl-token-file", self.sasl_token_file.is_some()),
            ("sasl-extensions", !self.sasl_extensions.is_empty()),
        ];
        let without = |keys: &[(&'static str, bool)], mechanisms: &str| match keys
            .iter()
            .find(|(_, given)| *given)
        {
            Some((key, _)) => Err(error(key, &format!(" needs sasl-mechanism: {mechanisms}"))),
            None => Ok(()),
        };
        let mechanism = match self.sasl_mechanism {
            None => {
                without(&password, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")?;
                without(&token, "OAUTHBEARER")?;
                return Ok(None);
            }
            Some(SaslMechanism::OauthBearer) => {
                without(&password, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")?;
                let missing = || error("sasl-token-file", " is missing; OAUTHBEARER needs a token");
                let extensions = pairs("sasl-extensions", &self.sasl_extensions)?;
                return Ok(Some(SaslSettings::Token {
                    token_file: self.sasl_token_file.clone().ok_or_else(missing)?,
                    extensions: extensions.into_iter().collect(),
                }));
            }
            Some(SaslMechanism::Plain) => PasswordMechanism::Plain,
            Some(SaslMechanism::ScramSha256) => PasswordMechanism::ScramSha256,
            Some(SaslMechanism::ScramSha512) => PasswordMechanism::ScramSha512,
        };
        without(&token, "OAUTHBEARER")?;
        let missing = |key, what: &str| error(key, &format!(" is missing; SASL needs a {what}"));
        Ok(Some(SaslSettings::Password {
            mechanism,
            username: (self.sasl_username.clone())
                .ok_or_else(|| missing("sasl-username", "user name"))?,
            password_file: (self.sasl_password_file.clone())
                .ok_or_else(|| missing("sasl-password-file", "password"))?,
        }))
    }
}

/// Returns the files of the client certificate and its key: both or none.
pub(super) fn client_certificate(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, SettingError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(error("client-cert-file", " needs client-key-file")),
        (None, Some(_)) => Err(error("client-key-file", " needs client-cert-file")),
    }
}
