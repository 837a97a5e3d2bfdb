use http::Method;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::audit::recording::BodySettings;
use crate::policy::{Policy, PolicyHandle, PolicyRule, PolicySpec};
use audit_log::LogBackend;

struct Events(UnboundedReceiver<Vec<u8>>);

impl Events {
    /// Stage and code of each event so far.
    fn stages(&mut self) -> Vec<String> {
        let mut stages = Vec::new();
        while let Ok(line) = self.0.try_recv() {
            let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let code = &event["responseStatus"]["code"];
            stages.push(format!("{}:{code}", event["stage"].as_str().unwrap()));
        }
        stages
    }
}

fn begin(path: &'static str, level: Level, omit: &[Stage]) -> (Box<AuditContext>, Events) {
    let (sink, events) = sink(level, omit);
    let recorder = AuditPipeline::new(vec![sink], Arc::default(), None);
    (record(Arc::new(recorder), path), events)
}

/// Returns a sink with a policy of one rule.
fn sink(level: Level, omit: &[Stage]) -> (AuditSink, Events) {
    let (sender, receiver) = unbounded_channel();
    let omit_stages = omit.iter().copied().collect();
    let rule = PolicyRule { omit_stages, ..PolicyRule::new(level) };
    let spec = PolicySpec { rules: vec![rule], ..PolicySpec::default() };
    let sink = AuditSink {
        name: "test".into(),
        backend: Backend::Log(LogBackend::channel(sender)),
        policy: PolicyHandle::new(Policy::new(&spec)),
        bodies: BodySettings {
            max_request: 1 << 20,
            max_response: 1 << 20,
            budget: audit_body::Budget::new(1 << 24),
            redaction: None,
        },
        encoding: Encoding { format: Format::Json, max_event: None },
    };
    (sink, Events(receiver))
}

fn record(recorder: Arc<AuditPipeline>, path: &'static str) -> Box<AuditContext> {
    let target = PathAndQuery::from_static(path);
    let facts = RequestContext {
        received: Timestamp::now(),
        audit_id: HeaderValue::from_static("id"),
        info: RequestInfo::new(&Method::GET, &target).unwrap(),
        target,
        source_ips: Vec::new(),
        user_agent: UserAgent::default(),
        accept: Some(Accepted { pretty: false }),
    };
    AuditContext::begin(recorder, facts, None)
}

const ORDINARY: &str = "/api/v1/namespaces/a/pods/x";
const WATCH: &str = "/api/v1/pods?watch=1";

#[test]
fn ordinary_and_long_running_requests_have_their_stages() {
    for (path, expected) in [
        (ORDINARY, &["RequestReceived:null", "ResponseComplete:200"][..]),
        (WATCH, &["RequestReceived:null", "ResponseStarted:200", "ResponseComplete:200"]),
    ] {
        let (mut record, mut events) = begin(path, Level::Metadata, &[]);
        drop(record.received());
        record.answered(200, None);
        drop(record.response_started());
        drop(record.complete());
        assert_eq!(events.stages(), expected, "{path}");
    }
}

#[test]
fn omitted_stages_and_level_none_write_nothing() {
    let (mut record, mut events) = begin(ORDINARY, Level::None, &[]);
    drop(record.received());
    drop(record.complete());
    assert!(events.stages().is_empty());
    let (mut record, mut events) = begin(WATCH, Level::Request, &[Stage::ResponseStarted]);
    record.answered(403, None);
    drop(record.response_started());
    drop(record.complete());
    assert_eq!(events.stages(), ["ResponseComplete:403"]);
}

#[test]
fn a_record_that_is_dropped_ends_once() {
    let (record, mut events) = begin(ORDINARY, Level::Metadata, &[]);
    drop(record);
    assert_eq!(events.stages(), ["ResponseComplete:504"], "the client went before an answer");
    let (mut record, mut events) = begin(WATCH, Level::Metadata, &[]);
    record.answered(200, None);
    drop(record.response_started());
    drop(record);
    assert_eq!(events.stages(), ["ResponseStarted:200", "ResponseComplete:200"]);
}

#[test]
fn a_panic_is_recorded_with_its_message() {
    crate::audit::panic_message::install();
    let (mut record, mut events) = begin(ORDINARY, Level::Metadata, &[]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        drop(record.received());
        panic!("lost the {}", "plot");
    }));
    assert!(panicked.is_err());
    events.0.try_recv().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&events.0.try_recv().unwrap()).unwrap();
    assert_eq!(event["stage"], "Panic");
    let status = &event["responseStatus"];
    assert_eq!(status["message"], "APIServer panic'd: lost the plot");
    assert_eq!((&status["code"], &status["reason"]), (&500.into(), &"InternalError".into()));
    assert!(events.0.try_recv().is_err());
}

#[test]
fn failed_authentication_is_one_event() {
    let (record, mut events) = begin(WATCH, Level::Metadata, &[]);
    drop(record.refused_unauthenticated(Status::unauthorized()));
    assert_eq!(events.stages(), ["ResponseStarted:401"]);
}

#[test]
fn impersonation_shows_only_where_it_was_allowed() {
    let caller = UserInfo { username: "ops".into(), ..UserInfo::default() };
    let jane = UserInfo { username: "jane".into(), ..UserInfo::default() };
    let refused = "users \"jane\" is forbidden: User \"ops\" cannot impersonate resource \"users\"";
    for (answer, recorded, shown) in [
        ("pods is forbidden: User \"jane\" cannot get resource \"pods\"", true, true),
        (refused, true, false),
        (refused, false, false),
    ] {
        let (mut record, mut events) = begin(ORDINARY, Level::Metadata, &[]);
        record.user = Some(Arc::new(caller.clone().into()));
        record.impersonation_requested(jane.clone());
        drop(record.received());
        record.answered(
            403,
            Some(ParsedStatus { status: Status::forbidden(answer, None), recorded }),
        );
        drop(record.complete());
        let received = String::from_utf8(events.0.try_recv().unwrap()).unwrap();
        assert!(!received.contains("impersonatedUser"));
        let complete = String::from_utf8(events.0.try_recv().unwrap()).unwrap();
        assert_eq!(complete.contains("impersonatedUser"), shown, "{complete}");
        assert_eq!(complete.contains("forbidden"), recorded, "{complete}");
    }
}

#[test]
fn what_is_too_long_loses_its_larger_body_and_keeps_it_for_others() {
    let (mut record, _events) = begin(ORDINARY, Level::RequestResponse, &[]);
    let view = record.views.iter_mut().next().unwrap();
    view.request_object = Some(br#""small""#.to_vec());
    view.response_object = Some(format!("\"{}\"", "x".repeat(5000)).into_bytes());
    let encode = |max_event| {
        let (stage, encoding) =
            (Stage::ResponseComplete, Encoding { format: Format::Json, max_event });
        let view = record.views.iter().next().unwrap();
        let line = record.encode_within(view, stage, Timestamp::now(), encoding);
        serde_json::from_slice::<serde_json::Value>(&line).unwrap()
    };
    let cut = encode(Some(2000));
    assert_eq!((&cut["requestObject"], cut.get("responseObject")), (&"small".into(), None));
    assert_eq!(cut["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!(cut["annotations"]["kube-audit-proxy/response-object-bytes"], "5002");
    let bare = encode(Some(1));
    assert_eq!((bare.get("requestObject"), bare.get("responseObject")), (None, None));
    let whole = encode(None);
    assert_eq!(whole["responseObject"].as_str().unwrap().len(), 5000);
    assert_eq!(whole.get("annotations"), None, "of this sink only");
}

#[test]
fn sinks_that_are_to_see_the_same_share_a_view_and_others_do_not() {
    let received = Stage::RequestReceived;
    let (metadata, mut all_stages) = sink(Level::Metadata, &[]);
    let (also_metadata, mut late) = sink(Level::Metadata, &[received]);
    let (mut legacy, mut text) = sink(Level::Metadata, &[received]);
    legacy.encoding.format = Format::Legacy;
    let (bodies, mut whole) = sink(Level::RequestResponse, &[received]);
    let (none, mut nothing) = sink(Level::None, &[]);
    let (mut redacted, mut without_secrets) = sink(Level::RequestResponse, &[received]);
    redacted.bodies.redaction = Some(Arc::default());
    let sinks = vec![metadata, also_metadata, legacy, bodies, none, redacted];
    let metrics = Arc::new(crate::audit::metrics::AuditMetrics::default());
    let recorder = AuditPipeline::new(sinks, metrics.clone(), Some("cp-1".into()));
    let mut record = record(Arc::new(recorder), ORDINARY);
    let views: Vec<_> =
        record.views.iter().map(|v| (v.level, v.takers(Stage::ResponseComplete))).collect();
    assert_eq!(views.len(), 4, "Metadata, bodies, bodies without secrets, and none: {views:?}");
    drop(record.received());
    record.responded_by_proxy(Status::forbidden("no", None));
    drop(record.complete());

    assert_eq!(all_stages.stages(), ["RequestReceived:null", "ResponseComplete:403"]);
    let event = |events: &mut Events| {
        let line = events.0.try_recv().unwrap();
        assert!(events.0.try_recv().is_err(), "one event");
        serde_json::from_slice::<serde_json::Value>(&line).unwrap()
    };
    let plain = event(&mut late);
    assert_eq!((&plain["level"], plain.get("responseObject")), (&"Metadata".into(), None));
    assert_eq!(plain["annotations"]["kube-audit-proxy/node"], "cp-1");
    assert!(text.0.try_recv().unwrap().windows(9).any(|part| part == b"AUDIT: id"));
    for events in [&mut whole, &mut without_secrets] {
        let event = event(events);
        assert_eq!(event["level"], "RequestResponse");
        assert_eq!(event["responseObject"]["code"], 403);
    }
    assert!(nothing.0.try_recv().is_err());
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::prometheus_text::encode(&mut text, &registry).unwrap();
    for line in [
        "apiserver_audit_event_total 2",
        "apiserver_audit_level_total{level=\"RequestResponse\"} 1",
        "apiserver_audit_level_total{level=\"Metadata\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}
