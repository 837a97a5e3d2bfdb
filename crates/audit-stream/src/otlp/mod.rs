//! OTLP/HTTP: each event is a log record, sent to an OpenTelemetry Collector or to anything else
//! that accepts `POST /v1/logs`.
//!
//! The body of a record is the event as text, as it stands in the log. A structured body would
//! lose that: digests of the line could not be verified, and large integers, the order of members
//! and duplicate members depend on the collector. What is searched for is in attributes; a
//! collector parses the text where it wants to (`ParseJSON(log.body)`).
//!
//! Responses follow the specification: 429, 502, 503 and 504 are retried, after `Retry-After`; a
//! batch that gets another error is set aside without another attempt. There are two exceptions.
//! 401, 403, 404, 405 and redirects are problems of the settings and not of the events, which wait
//! until they are corrected. 413 is answered with shorter batches. Records that a collector rejects
//! in a successful response (`partial_success.rejected_log_records`) must not be sent again; they
//! are logged and counted.

mod json;
mod metrics;
mod protobuf;
mod record;
mod response;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use api_client::{
    ApiClient, ApiRequest, ClientCertificate, ClientConfig, ConfigError, Endpoint, Pem, Trust,
};
use audit_log::{Batch, DeliveryError, Destination};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

pub use self::metrics::{OtlpFamilies, OtlpMetrics};
pub use self::settings::{DEFAULT_SERVICE_NAME, Encoding, OtlpSettings};

use self::record::LogRecord;
use crate::SettingsError;

/// The instrumentation scope of the records.
const SCOPE: &str = "kube-audit-proxy";
const SCOPE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The path of logs.
const PATH: &str = "/v1/logs";
/// The time in which the collector responds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A collector.
pub struct Otlp {
    settings: OtlpSettings,
    address: String,
    path: String,
    resource: Vec<(String, String)>,
    client: ApiClient,
    /// The headers of the file when it was last usable.
    secret_headers: Mutex<HeaderMap>,
    /// Whether the last read of the file failed; a lasting failure is logged once.
    is_file_failing: AtomicBool,
    metrics: OtlpMetrics,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Otlp {
    /// Checks the settings and reads the files that they name. Connects with the first batch. Must
    /// be called within a tokio runtime.
    ///
    /// # Errors
    /// The first field or file that cannot be used.
    pub fn new(settings: OtlpSettings, metrics: OtlpMetrics) -> Result<Otlp, SettingsError> {
        settings.validate()?;
        let mut server = Endpoint::parse(&settings.endpoint, "endpoint").map_err(of_config)?;
        let prefix = std::mem::take(&mut server.path_prefix);
        let path = match prefix.ends_with(PATH) {
            true => prefix,
            false => format!("{prefix}{PATH}"),
        };
        let address = format!("{}://{}{path}", server.scheme, server.authority);
        let is_https = server.is_https();
        let secret_headers = match &settings.headers_file {
            Some(file) => read_headers(file)?,
            None => HeaderMap::new(),
        };
        let config = ClientConfig {
            trust: match &settings.ca_file {
                Some(file) => Trust::Ca(Pem::file("ca-file", file)),
                None if is_https => Trust::System,
                None => Trust::Unset,
            },
            client_certificate: settings.client_certificate.as_ref().map(|(certificate, key)| {
                ClientCertificate::Pem {
                    certificate: Pem::file("client-cert-file", certificate),
                    key: Pem::file("client-key-file", key),
                }
            }),
            ..ClientConfig::new(server)
        };
        if settings.headers_file.is_some() && !is_https {
            tracing::warn!(
                destination = %address,
                "the connection to the OpenTelemetry collector is not encrypted; the headers of \
                 headers-file are sent in plain text"
            );
        }
        let client = ApiClient::new(config, "the OpenTelemetry collector").map_err(of_config)?;
        let mut resource = vec![("service.name".to_owned(), settings.service_name.clone())];
        for (name, value) in
            [("k8s.cluster.name", &settings.cluster), ("host.name", &settings.node)]
        {
            if !value.is_empty() {
                resource.push((name.to_owned(), value.clone()));
            }
        }
        resource.extend(settings.resource_attributes.clone());
        Ok(Otlp {
            address,
            path,
            resource,
            client,
            secret_headers: Mutex::new(secret_headers),
            is_file_failing: AtomicBool::new(false),
            metrics,
            settings,
        })
    }

    async fn send(&self, batch: Batch) -> Result<(), DeliveryError> {
        let headers = self.headers();
        let body = self.body(&batch.lines);
        let request =
            ApiRequest { method: Method::POST, path: &self.path, headers, body, timeout: TIMEOUT };
        let response = match self.client.request(&request).await {
            Ok(response) => response,
            Err(error) => {
                let reason = error.to_string();
                return Err(DeliveryError::Unavailable { reason, retry_after: None });
            }
        };
        if response.status() == StatusCode::OK {
            self.count_rejected(response.body(), batch.events);
            return Ok(());
        }
        Err(response::error(response.status(), response.headers(), SystemTime::now()))
    }

    fn body(&self, lines: &Bytes) -> Bytes {
        let lines: Vec<Bytes> = crate::lines::lines(lines).collect();
        let records = lines.iter().map(|line| LogRecord::new(line));
        let encoded = match self.settings.encoding {
            Encoding::Protobuf => protobuf::encode(&self.resource, records),
            Encoding::Json => json::encode(&self.resource, records),
        };
        if !self.settings.gzip {
            return encoded.into();
        }
        let mut encoder =
            GzEncoder::new(Vec::with_capacity(encoded.len() / 8), Compression::fast());
        let written = encoder.write_all(&encoded).and_then(|()| encoder.finish());
        written.expect("a vector takes everything").into()
    }

    /// Returns the headers of a request. If the file cannot be used, those that it had before are.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.settings.headers {
            if let Ok((name, value)) = settings::header(name, value) {
                headers.insert(name, value);
            }
        }
        if let Some(file) = &self.settings.headers_file {
            let read = read_headers(file);
            let failed_before = self.is_file_failing.swap(read.is_err(), Ordering::Relaxed);
            let mut last = self.secret_headers.lock().unwrap_or_else(PoisonError::into_inner);
            match read {
                Ok(read) => *last = read,
                Err(error) if !failed_before => tracing::warn!(
                    destination = %self.address,
                    %error,
                    "headers not reloaded, the current ones stay active"
                ),
                Err(_) => {}
            }
            headers.extend(last.clone());
        }
        let content_type = match self.settings.encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.settings.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers
    }

    /// Logs and counts what a successful response rejects. It must not be sent again.
    fn count_rejected(&self, response: &[u8], events: u64) {
        let partial = match self.settings.encoding {
            Encoding::Protobuf => protobuf::partial_success(response),
            Encoding::Json => json::partial_success(response),
        };
        match partial {
            Some((rejected @ 1.., message)) => {
                let rejected = rejected.min(events);
                self.metrics.rejected(rejected);
                tracing::error!(
                    destination = %self.address,
                    rejected,
                    events,
                    message,
                    "the OpenTelemetry collector rejected audit events of an accepted request; they \
                     are lost"
                );
            }
            Some((0, message)) if !message.is_empty() => {
                tracing::warn!(destination = %self.address, message, "the OpenTelemetry collector warns");
            }
            _ => {}
        }
    }
}

/// Reads headers, one a line. Empty lines and lines that begin with `#` are skipped.
fn read_headers(file: &Path) -> Result<HeaderMap, SettingsError> {
    let text = watched_files::regular_file::read_to_string(file)
        .map_err(|error| SettingsError::read("headers-file", file, &error))?;
    let text = Zeroizing::new(text);
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason: String| {
            let reason = format!("{}:{}: {reason}", file.display(), index + 1);
            SettingsError::new("headers-file", reason)
        };
        let Some((name, value)) = line.split_once(':') else {
            return Err(wrong("there is no colon; write NAME: VALUE".to_owned()));
        };
        let (name, value) = settings::header(name.trim(), value.trim()).map_err(wrong)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Returns the error of a setting that the client rejects, under its key.
fn of_config(error: ConfigError) -> SettingsError {
    let key = |field: &str| match field.split([':', ' ']).next() {
        Some("ca-file") => "ca-file",
        Some("client-cert-file") => "client-cert-file",
        Some("client-key-file") => "client-key-file",
        _ => "endpoint",
    };
    match error {
        ConfigError::Read { field, path, source } => {
            SettingsError::read(key(&field), &path, &source)
        }
        ConfigError::Field { field, reason } => {
            let rest = field.strip_prefix(key(&field)).unwrap_or(&field);
            let rest = rest.trim_start_matches([':', ' ']);
            match rest.is_empty() {
                true => SettingsError::new(key(&field), reason),
                false => SettingsError::new(key(&field), format!("{rest}: {reason}")),
            }
        }
        error @ ConfigError::Yaml { .. } => SettingsError::new("endpoint", error),
    }
}

impl Destination for Otlp {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<(), DeliveryError>> {
        self.send(batch).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), DeliveryError>> {
        async {
            self.client.check().await.map_err(|error| DeliveryError::Unavailable {
                reason: error.to_string(),
                retry_after: None,
            })
        }
        .boxed()
    }
}
