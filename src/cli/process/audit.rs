//! Audit policies and backends.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::follow::Follow;
use crate::audit::record::{AuditPipeline, AuditSink, Backend, Encoding, Format};
use crate::audit::recording::BodySettings;
use crate::config::{Audit, BackendSettings, Bodies, Setting, SinkSettings};
use crate::file_watch::{POLL_INTERVAL, Reloaded};
use crate::policy::{PolicyFile, PolicyHandle};
use crate::upstream::{ConfigError, KubeconfigFile, UpstreamConfig, WebhookEndpoint};
use api_client::ApiClient;
use audit_body::Budget;
use audit_log::stream::{StreamBackend, StreamConfig};
use audit_log::webhook::WebhookBackend;
use audit_log::{BackendMetrics, Destination, LogBackend};
use audit_stream::kafka::Kafka;
use audit_stream::otlp::Otlp;
use audit_stream::s3::S3Destination;

/// Opens each policy file once and follows it; gives the policy of each sink.
pub(super) fn policies(
    sinks: &[SinkSettings],
    follow: &Follow,
) -> anyhow::Result<Vec<PolicyHandle>> {
    let mut open: Vec<(&Path, PolicyHandle)> = Vec::new();
    for sink in sinks {
        let path = sink.policy_file.as_path();
        if open.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let (file, warnings) = PolicyFile::open(path).map_err(|error| {
            anyhow::Error::msg(sink.error(Setting::common("policy-file"), error))
        })?;
        for warning in warnings {
            tracing::warn!("audit policy: {warning}");
        }
        let of_it =
            sinks.iter().zip(&follow.metrics.backends).filter(|(sink, _)| sink.policy_file == path);
        let file =
            file.of_sinks(of_it.map(|(_, backend)| follow.metrics.policy(backend)).collect());
        open.push((path, file.handle()));
        let forced = follow.forced.clone();
        tokio::spawn(file.watch(follow.metrics.reloads.clone(), forced, POLL_INTERVAL));
    }
    let of = |sink: &SinkSettings| {
        let known = open.iter().find(|(path, _)| *path == sink.policy_file);
        known.expect("it was opened just now").1.clone()
    };
    Ok(sinks.iter().map(of).collect())
}

/// Opens all sinks: webhooks first, so that a start that fails leaves no log file behind. An
/// `observer` gets the events of the first log.
pub(super) fn recorder(
    audit: Audit,
    policies: Vec<PolicyHandle>,
    mut observer: Option<UnboundedSender<Vec<u8>>>,
    follow: &Follow,
) -> anyhow::Result<AuditPipeline> {
    let budget = Budget::new(audit.total_body_bytes);
    let backends = follow.metrics.backends.iter().cloned();
    let mut settings: Vec<_> = audit.sinks.into_iter().zip(policies).zip(backends).collect();
    settings.sort_by_key(|((sink, _), _)| matches!(sink.backend, BackendSettings::Log { .. }));
    let mut sinks = Vec::new();
    for ((sink, policy), metrics) in settings {
        let (format, backend) = match &sink.backend {
            BackendSettings::Log { config, format } => {
                let log = LogBackend::open(config.clone(), follow.metrics.log(metrics));
                let mut log = log.map_err(|error| {
                    anyhow::Error::msg(sink.error_of(Setting::log(error.setting()), error))
                })?;
                if let Some(observer) = observer.take() {
                    log = log.with_observer(observer);
                }
                (*format, Backend::Log(log))
            }
            BackendSettings::Webhook { file, config } => {
                let client = webhook_client(file, follow).map_err(|error| {
                    anyhow::Error::msg(sink.error_of(Setting::webhook("config-file"), error))
                })?;
                let webhook = WebhookBackend::start(
                    config.clone(),
                    Arc::new(client),
                    follow.metrics.delivery(metrics),
                );
                let webhook = webhook.map_err(|error| {
                    anyhow::Error::msg(sink.error_of(Setting::webhook(error.setting()), error))
                })?;
                (Format::Json, Backend::Webhook(Box::new(webhook)))
            }
            BackendSettings::S3 { config, store } => {
                let bucket = S3Destination::new((**store).clone())
                    .map_err(|error| key_error(&sink, error.setting(), error))?;
                (Format::Json, stream(&sink, config, bucket, metrics, follow)?)
            }
            BackendSettings::Kafka { config, topic } => {
                let topic = Kafka::new((**topic).clone())
                    .map_err(|error| key_error(&sink, error.setting(), error.reason()))?;
                (Format::Json, stream(&sink, config, topic, metrics, follow)?)
            }
            BackendSettings::Otlp { config, collector } => {
                let own = follow.metrics.otlp(metrics.clone());
                let collector = Otlp::new((**collector).clone(), own)
                    .map_err(|error| key_error(&sink, error.setting(), error.reason()))?;
                (Format::Json, stream(&sink, config, collector, metrics, follow)?)
            }
        };
        let Bodies { max_request, max_response, redaction } = sink.bodies;
        let bodies = BodySettings { max_request, max_response, budget: budget.clone(), redaction };
        let encoding = Encoding { format, max_event: sink.max_event };
        sinks.push(AuditSink { name: sink.name, backend, policy, bodies, encoding });
    }
    let recorder = AuditPipeline::new(sinks, follow.metrics.audit.clone(), audit.node_name);
    let recorder = recorder.annotating_rule(audit.annotates_rule);
    Ok(recorder.with_ambiguous_bodies(audit.ambiguous_bodies))
}

/// Returns an error about a key of this sink.
fn key_error(sink: &SinkSettings, key: &'static str, error: impl Display) -> anyhow::Error {
    anyhow::Error::msg(sink.error_of(Setting::key_only(key), error))
}

/// Starts to send the events of a sink to `destination`.
fn stream(
    sink: &SinkSettings,
    config: &StreamConfig,
    destination: impl Destination + 'static,
    metrics: Arc<BackendMetrics>,
    follow: &Follow,
) -> anyhow::Result<Backend> {
    let metrics = follow.metrics.delivery(metrics);
    let stream = StreamBackend::start(config.clone(), Arc::new(destination), metrics);
    let stream = stream.map_err(|error| key_error(sink, error.setting(), error))?;
    Ok(Backend::Stream(Box::new(stream)))
}

/// A client of the webhook endpoint that a kubeconfig describes, which is followed.
fn webhook_client(path: &Path, follow: &Follow) -> Result<WebhookEndpoint, ConfigError> {
    // Its connections are not those to the API server.
    let client = ApiClient::new(UpstreamConfig::of_webhook(path)?, "the audit webhook")?;
    let owned = path.to_owned();
    let resolve = move || UpstreamConfig::of_webhook(&owned);
    let paths = [path.to_owned()];
    let file = KubeconfigFile::new(Reloaded::AuditWebhookConfig, &paths, Box::new(resolve));
    follow.spawn_kubeconfig(file, &client);
    Ok(WebhookEndpoint(client))
}
