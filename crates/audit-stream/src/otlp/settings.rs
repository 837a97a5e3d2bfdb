//! The settings of an OTLP backend.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api_client::Endpoint;
use http::{HeaderName, HeaderValue};

use crate::SettingsError;

/// The default of [`OtlpSettings::service_name`].
pub const DEFAULT_SERVICE_NAME: &str = "kube-audit-proxy";

/// Where an OTLP backend sends events, and how. Nothing in it is secret: tokens and keys are named
/// by their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// The URL of the collector. `/v1/logs` is appended unless it ends with it.
    pub endpoint: String,
    /// The encoding of requests.
    pub encoding: Encoding,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// Headers of each request that are not secret.
    pub headers: BTreeMap<String, String>,
    /// A file of further headers, each a line like `Authorization: Bearer …`.
    pub headers_file: Option<PathBuf>,
    /// The CAs of the collector's certificate, PEM; the CAs that the system trusts if it is `None`.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key, PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The resource attribute `service.name`.
    pub service_name: String,
    /// The resource attribute `k8s.cluster.name`; absent if it is empty.
    pub cluster: String,
    /// The resource attribute `host.name`; absent if it is empty.
    pub node: String,
    /// Further resource attributes, such as `deployment.environment.name`.
    pub resource_attributes: BTreeMap<String, String>,
}

/// The encoding of OTLP requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Protobuf (`application/x-protobuf`).
    #[default]
    Protobuf,
    /// JSON (`application/json`).
    Json,
}

impl OtlpSettings {
    /// Settings with defaults for everything but the endpoint.
    pub fn new(endpoint: String) -> OtlpSettings {
        OtlpSettings {
            endpoint,
            encoding: Encoding::default(),
            gzip: true,
            headers: BTreeMap::new(),
            headers_file: None,
            ca_file: None,
            client_certificate: None,
            service_name: DEFAULT_SERVICE_NAME.to_owned(),
            cluster: String::new(),
            node: String::new(),
            resource_attributes: BTreeMap::new(),
        }
    }

    /// Checks everything that can be checked without a file or a collector.
    ///
    /// # Errors
    /// The first field that cannot be used, and what is accepted instead.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.endpoint.contains(['?', '#']) {
            let reason = "has a query; give the URL of the collector, such as https://otel:4318";
            return Err(SettingsError::new("endpoint", reason));
        }
        let server = Endpoint::parse(&self.endpoint, "endpoint").map_err(super::of_config)?;
        if !server.is_https() && (self.ca_file.is_some() || self.client_certificate.is_some()) {
            let key = if self.ca_file.is_some() { "ca-file" } else { "client-cert-file" };
            let reason = "needs an endpoint with https; write https://, or remove this key";
            return Err(SettingsError::new(key, reason));
        }
        if self.service_name.is_empty() {
            let reason = "is empty; omit it for kube-audit-proxy";
            return Err(SettingsError::new("service-name", reason));
        }
        for (name, value) in &self.headers {
            header(name, value).map_err(|reason| SettingsError::new("headers", reason))?;
        }
        for name in ["service.name", "k8s.cluster.name", "host.name"] {
            if self.resource_attributes.contains_key(name) {
                let reason = format!("{name} has a key of its own: service-name, cluster or node");
                return Err(SettingsError::new("resource-attributes", reason));
            }
        }
        Ok(())
    }
}

/// Parses a header. Errors do not show its value, which may be secret.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        // What stands there may be a value.
        return Err("this is not the name of a header; write NAME: VALUE".to_owned());
    };
    let own = ["content-type", "content-encoding", "content-length", "host", "transfer-encoding"];
    if own.contains(&parsed.as_str()) {
        return Err(format!("{name:?} is set by the proxy itself; remove it"));
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        format!("the value of {name:?} has characters that a header cannot have; use visible ASCII")
    })?;
    value.set_sensitive(true);
    Ok((parsed, value))
}
