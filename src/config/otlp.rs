//! The keys of an entry of `sinks` with the type `otlp`.

use std::path::PathBuf;

use audit_stream::otlp::{DEFAULT_SERVICE_NAME, Encoding, OtlpSettings};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::kafka::client_certificate;
use super::parse::default_flags;
use super::setting::{Setting, SettingError};
use super::stream::{error, node_name, pairs};

/// The keys of an entry of the type `otlp`, besides those of its spool. They are declared like
/// flags for their defaults and for the reference, but `serve` has no such flags.
#[derive(Debug, Clone, Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct OtlpKeys {
    /// URL of the collector, such as `http://127.0.0.1:4318`; `/v1/logs` is appended unless it ends
    /// with it
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub endpoint: String,
    /// Encoding of requests
    #[arg(long, value_enum, value_name = "ENCODING", default_value_t)]
    pub encoding: OtlpEncoding,
    /// Compression of requests
    #[arg(long, value_enum, value_name = "CODEC", default_value_t)]
    pub compression: OtlpCompression,
    /// Headers of requests that are not secret, such as `X-Scope-OrgID=audit`
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub headers: Vec<String>,
    /// File with further headers, one a line, such as `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "FILE")]
    pub headers_file: Option<PathBuf>,
    /// CA certificates (PEM) that the collector's certificate must chain to [default: those of the
    /// system]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub client_cert_file: Option<PathBuf>,
    /// Key of `client-cert-file` (PEM, not encrypted)
    #[arg(long, value_name = "FILE")]
    pub client_key_file: Option<PathBuf>,
    /// Resource attribute `service.name`
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SERVICE_NAME)]
    pub service_name: String,
    /// Resource attribute `k8s.cluster.name` [default: no such attribute]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Resource attribute `host.name`: the name of this proxy [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Further resource attributes, such as `deployment.environment.name=production`
    #[arg(long, value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub resource_attributes: Vec<String>,
}

/// `encoding`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OtlpEncoding {
    /// `application/x-protobuf`
    #[default]
    Protobuf,
    /// `application/json`
    Json,
}

/// `compression`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OtlpCompression {
    /// gzip
    #[default]
    Gzip,
    /// No compression
    None,
}

impl Default for OtlpKeys {
    fn default() -> OtlpKeys {
        default_flags()
    }
}

impl OtlpKeys {
    /// Returns the settings of the collector.
    pub(super) fn validate(&self) -> Result<OtlpSettings, SettingError> {
        if self.endpoint.is_empty() {
            return Err(error("endpoint", " is missing; write the URL of the collector"));
        }
        let certificate =
            client_certificate(self.client_cert_file.clone(), self.client_key_file.clone())?;
        let attributes = pairs("resource-attributes", &self.resource_attributes)?;
        let settings = OtlpSettings {
            encoding: match self.encoding {
                OtlpEncoding::Protobuf => Encoding::Protobuf,
                OtlpEncoding::Json => Encoding::Json,
            },
            gzip: self.compression == OtlpCompression::Gzip,
            headers: pairs("headers", &self.headers)?.into_iter().collect(),
            headers_file: self.headers_file.clone(),
            ca_file: self.ca_file.clone(),
            client_certificate: certificate,
            service_name: self.service_name.clone(),
            cluster: self.cluster.clone().unwrap_or_default(),
            node: node_name(self.node.as_deref()),
            resource_attributes: attributes.into_iter().collect(),
            ..OtlpSettings::new(self.endpoint.clone())
        };
        settings.validate().map_err(|error| Setting::key_only(error.setting()).error(error))?;
        Ok(settings)
    }
}
