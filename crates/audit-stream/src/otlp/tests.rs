use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord as ReceivedRecord;
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use serde_json::Value as Json;
use test_support::TempDir;
use tokio::net::TcpListener;

use super::*;

/// Status, headers and body.
type NextResponse = (u16, Vec<(&'static str, &'static str)>, Vec<u8>);

/// What a collector got, and what it responds next.
#[derive(Default)]
struct Collector {
    requests: Mutex<Vec<(HeaderMap, String, Vec<u8>)>>,
    responses: Mutex<VecDeque<NextResponse>>,
}

impl Collector {
    async fn start() -> (Arc<Collector>, String) {
        let collector = Arc::new(Collector::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&collector);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let collector = Arc::clone(&collector);
                    async move { Ok::<_, hyper::Error>(collector.respond(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        (collector, url)
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let mut body = body.collect().await.unwrap().to_bytes().to_vec();
        if head.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        let path = head.uri.path().to_owned();
        self.requests.lock().unwrap().push((head.headers, path, body));
        let next = self.responses.lock().unwrap().pop_front();
        let (status, headers, body) = next.unwrap_or((200, Vec::new(), Vec::new()));
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        response.body(Full::new(body.into())).unwrap()
    }

    fn will_respond(&self, status: u16, headers: &[(&'static str, &'static str)], body: Vec<u8>) {
        self.responses.lock().unwrap().push_back((status, headers.to_vec(), body));
    }

    fn last(&self) -> (HeaderMap, String, Vec<u8>) {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

const DENIED: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a-1","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/shop/deployments/web?dryRun=All","verb":"patch","user":{"username":"alice@example.com","uid":"u-1","groups":["dev","system:authenticated"]},"impersonatedUser":{"username":"deployer","groups":["ops"]},"sourceIPs":["192.0.2.1","10.0.0.1"],"userAgent":"kubectl/v1.36","objectRef":{"resource":"deployments","namespace":"shop","name":"web","uid":"d-1","apiGroup":"apps","apiVersion":"v1"},"responseStatus":{"metadata":{},"status":"Failure","reason":"Forbidden","code":403},"requestObject":{"big":12345678901234567890},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.999999Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#;
const TIME: u64 = 1_767_323_045_999_999_000;

fn batch(lines: &[&str]) -> Batch {
    let events = lines.len() as u64;
    let lines = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    Batch { number: 1, lines: lines.into(), events }
}

fn settings(url: &str) -> OtlpSettings {
    let mut settings = OtlpSettings::new(url.to_owned());
    settings.cluster = "prod".to_owned();
    settings.node = "control-1".to_owned();
    settings.resource_attributes.insert("deployment.environment.name".into(), "live".into());
    settings
}

fn otlp(settings: OtlpSettings) -> (Otlp, Counter) {
    let metrics = OtlpMetrics::default();
    let rejected = metrics.rejected.clone();
    (Otlp::new(settings, metrics).unwrap(), rejected)
}

fn of_any(value: Option<Any>) -> String {
    match value.unwrap().value.unwrap() {
        AnyValue::StringValue(text) => text,
        AnyValue::IntValue(number) => number.to_string(),
        AnyValue::ArrayValue(list) => {
            list.values.into_iter().map(|value| of_any(Some(value))).collect::<Vec<_>>().join(",")
        }
        other => panic!("{other:?}"),
    }
}

fn map(attributes: Vec<KeyValue>) -> HashMap<String, String> {
    let count = attributes.len();
    let map: HashMap<_, _> =
        attributes.into_iter().map(|pair| (pair.key, of_any(pair.value))).collect();
    assert_eq!(map.len(), count, "no attribute is there twice");
    map
}

fn check_denied(mut record: ReceivedRecord) {
    assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (TIME, TIME));
    assert_eq!((record.severity_number, &*record.severity_text), (13, "WARN"));
    assert_eq!(of_any(record.body.take()), DENIED, "the event is not changed");
    let attributes = map(record.attributes);
    for (name, value) in [
        ("log.record.uid", "a-1/ResponseComplete"),
        ("k8s.audit.id", "a-1"),
        ("k8s.audit.stage", "ResponseComplete"),
        ("k8s.audit.level", "Request"),
        ("k8s.audit.verb", "patch"),
        ("http.request.method", "PATCH"),
        ("http.response.status_code", "403"),
        ("url.path", "/apis/apps/v1/namespaces/shop/deployments/web"),
        ("url.query", "dryRun=All"),
        ("user_agent.original", "kubectl/v1.36"),
        ("client.address", "192.0.2.1"),
        ("enduser.id", "alice@example.com"),
        ("user.name", "alice@example.com"),
        ("user.id", "u-1"),
        ("user.roles", "dev,system:authenticated"),
        ("k8s.audit.impersonated_user.name", "deployer"),
        ("k8s.audit.impersonated_user.roles", "ops"),
        ("k8s.audit.status.reason", "Forbidden"),
        ("k8s.namespace.name", "shop"),
        ("k8s.deployment.name", "web"),
        ("k8s.deployment.uid", "d-1"),
        ("k8s.audit.object.resource", "deployments"),
        ("k8s.audit.object.api_group", "apps"),
        ("k8s.audit.annotation.authorization.k8s.io/decision", "forbid"),
    ] {
        assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!attributes.contains_key("k8s.pod.name"));
}

#[tokio::test]
async fn protobuf_is_what_collectors_decode() {
    let (collector, url) = Collector::start().await;
    let (otlp, _) = otlp(settings(&url));
    otlp.check().await.unwrap();
    let ok = DENIED.replace("403", "200");
    let failed = DENIED.replace("403", "503");
    otlp.deliver(batch(&[DENIED, &ok, &failed, "not an event"])).await.unwrap();
    let (headers, path, body) = collector.last();
    assert_eq!(path, "/v1/logs");
    assert_eq!(headers[CONTENT_TYPE], "application/x-protobuf");
    let mut request = ExportLogsServiceRequest::decode(&body[..]).unwrap();
    let mut logs = request.resource_logs.remove(0);
    let resource = map(logs.resource.unwrap().attributes);
    assert_eq!(resource["service.name"], "kube-audit-proxy");
    assert_eq!(resource["k8s.cluster.name"], "prod");
    assert_eq!(resource["host.name"], "control-1");
    assert_eq!(resource["deployment.environment.name"], "live");
    let scope = logs.scope_logs.remove(0);
    assert_eq!(scope.scope.unwrap().name, "kube-audit-proxy");
    let mut records = scope.log_records.into_iter();
    check_denied(records.next().unwrap());
    assert_eq!(records.next().unwrap().severity_text, "INFO");
    assert_eq!(records.next().unwrap().severity_number, 17);
    let other = records.next().unwrap();
    assert_eq!((of_any(other.body), other.attributes.len()), ("not an event".to_owned(), 0));
    assert!(records.next().is_none() && request.resource_logs.is_empty());
}

#[tokio::test]
async fn json_has_the_same_content() {
    let (collector, url) = Collector::start().await;
    let mut settings = settings(&format!("{url}/otlp/v1/logs"));
    settings.encoding = Encoding::Json;
    settings.gzip = false;
    let (otlp, rejected) = otlp(settings);
    let partial = br#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}"#;
    collector.will_respond(200, &[], partial.to_vec());
    otlp.deliver(batch(&[DENIED])).await.unwrap();
    assert_eq!(rejected.get(), 1);
    let (headers, path, body) = collector.last();
    assert_eq!(path, "/otlp/v1/logs");
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert!(!headers.contains_key(CONTENT_ENCODING));
    let request: Json = serde_json::from_slice(&body).unwrap();
    let logs = &request["resourceLogs"][0];
    assert_eq!(logs["resource"]["attributes"][0]["key"], "service.name");
    let record = &logs["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["timeUnixNano"], TIME.to_string());
    assert_eq!(record["severityNumber"], 13);
    assert_eq!(record["body"]["stringValue"], DENIED);
    let attributes = record["attributes"].as_array().unwrap();
    let value = |name: &str| {
        let found = attributes.iter().find(|pair| pair["key"] == name);
        found.unwrap_or_else(|| panic!("{name}"))["value"].clone()
    };
    assert_eq!(value("http.response.status_code")["intValue"], "403");
    assert_eq!(value("user.roles")["arrayValue"]["values"][0]["stringValue"], "dev");
}

#[tokio::test]
async fn rejected_records_are_counted_and_not_sent_again() {
    let (collector, url) = Collector::start().await;
    let (otlp, rejected) = otlp(settings(&url));
    for (records, counted) in [(1, 1), (0, 1), (900, 3)] {
        let partial = ExportLogsPartialSuccess {
            rejected_log_records: records,
            error_message: "some are too old".to_owned(),
        };
        let response = ExportLogsServiceResponse { partial_success: Some(partial) };
        collector.will_respond(200, &[], response.encode_to_vec());
        otlp.deliver(batch(&[DENIED, DENIED])).await.unwrap();
        assert_eq!(rejected.get(), counted, "never more than the batch has");
    }
    // Nonsense in a success is a success.
    collector.will_respond(200, &[], b"\xff\xff\xff".to_vec());
    otlp.deliver(batch(&[DENIED])).await.unwrap();
    assert_eq!((rejected.get(), collector.requests.lock().unwrap().len()), (3, 4));
}

#[tokio::test]
async fn a_collector_that_is_busy_or_gone_is_unavailable() {
    let (collector, url) = Collector::start().await;
    let (otlp, _) = otlp(settings(&url));
    collector.will_respond(503, &[("retry-after", "9")], Vec::new());
    let error = otlp.deliver(batch(&[DENIED])).await.unwrap_err();
    let DeliveryError::Unavailable { retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(9)));
    otlp.deliver(batch(&[DENIED])).await.unwrap();
    // Nothing listens at a port that was just free.
    let address = test_support::servers::free_address();
    let (otlp, _) = super::tests::otlp(settings(&format!("http://{address}")));
    for error in
        [otlp.check().await.unwrap_err(), otlp.deliver(batch(&[DENIED])).await.unwrap_err()]
    {
        assert!(matches!(error, DeliveryError::Unavailable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn secret_headers_come_from_a_file_and_reload() {
    let (collector, url) = Collector::start().await;
    let dir = TempDir::new();
    let file = dir.path().join("headers");
    std::fs::write(&file, "# the tenant's\n\nAuthorization: Bearer one\nX-Tenant: a\n").unwrap();
    let mut with_file = settings(&url);
    with_file.headers_file = Some(file.clone());
    with_file.headers.insert("x-source".to_owned(), "audit".to_owned());
    let (otlp, _) = otlp(with_file.clone());
    let deliver = async |authorization: &str| {
        otlp.deliver(batch(&[DENIED])).await.unwrap();
        let (headers, ..) = collector.last();
        assert_eq!(headers["authorization"], authorization);
        assert_eq!(
            (&headers["x-tenant"], &headers["x-source"]),
            (&"a".parse().unwrap(), &"audit".parse().unwrap())
        );
    };
    deliver("Bearer one").await;
    std::fs::write(&file, "authorization: Bearer two\nx-tenant: a").unwrap();
    deliver("Bearer two").await;
    // Partially written: the last usable contents stay active.
    for broken in ["authorization Bearer three", "content-type: text/plain"] {
        std::fs::write(&file, broken).unwrap();
        deliver("Bearer two").await;
        let error = Otlp::new(with_file.clone(), OtlpMetrics::default()).unwrap_err().to_string();
        assert!(error.starts_with("headers-file: ") && error.contains(":1"), "{error}");
        assert!(!error.contains("three"), "{error}");
    }
    assert!(!format!("{otlp:?}").contains("Bearer"));
}

#[tokio::test]
async fn settings_that_cannot_be_used_name_their_field() {
    let error = |settings: OtlpSettings| {
        Otlp::new(settings, OtlpMetrics::default()).unwrap_err().to_string()
    };
    for url in ["", "collector:4318", "grpc://collector:4317", "http://a/?x=1"] {
        let error = error(OtlpSettings::new(url.to_owned()));
        assert!(error.starts_with("endpoint: "), "{url}: {error}");
    }
    let mut wrong = OtlpSettings::new("http://collector:4318".to_owned());
    wrong.headers.insert("content-type".to_owned(), "x".to_owned());
    assert!(error(wrong).starts_with("headers: \"content-type\" is set by the proxy"));
    let mut wrong = OtlpSettings::new("http://collector:4318".to_owned());
    wrong.resource_attributes.insert("host.name".to_owned(), "x".to_owned());
    assert!(error(wrong).starts_with("resource-attributes: host.name has a key of its own"));
}
