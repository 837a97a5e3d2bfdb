use http::Method;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::audit::recording::BodySettings;
use crate::policy::StageSet;
use crate::sink::Sink;

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

fn begin(path: &'static str, level: Level, omit: &[Stage]) -> (Record, Events) {
    let (sender, receiver) = unbounded_channel();
    let recorder = Arc::new(Recorder {
        webhook: None,
        sink: Sink::channel(sender),
        format: Format::Json,
        metrics: Arc::default(),
        bodies: BodySettings {
            max_request: 1 << 20,
            max_response: 1 << 20,
            budget: body::Budget::new(1 << 24),
            redaction: None,
            max_event: None,
        },
    });
    let target = PathAndQuery::from_static(path);
    let facts = RequestFacts {
        received: Timestamp::now(),
        audit_id: HeaderValue::from_static("id"),
        info: RequestInfo::new(&Method::GET, &target).unwrap(),
        target,
        source_ips: Vec::new(),
        user_agent: UserAgent::default(),
        accept: Some(Accepted { pretty: false }),
    };
    let decision = Decision {
        level,
        omit_stages: StageSet::from_iter(omit.iter().copied()),
        omit_managed_fields: false,
    };
    (Record::begin(recorder, facts, None, decision), Events(receiver))
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
        record.received();
        record.answered(200, None);
        record.response_started();
        record.complete();
        assert_eq!(events.stages(), expected, "{path}");
    }
}

#[test]
fn omitted_stages_and_level_none_write_nothing() {
    let (mut record, mut events) = begin(ORDINARY, Level::None, &[]);
    record.received();
    record.complete();
    assert!(events.stages().is_empty());
    let (mut record, mut events) = begin(WATCH, Level::Request, &[Stage::ResponseStarted]);
    record.answered(403, None);
    record.response_started();
    record.complete();
    assert_eq!(events.stages(), ["ResponseComplete:403"]);
}

#[test]
fn a_record_that_is_dropped_ends_once() {
    let (record, mut events) = begin(ORDINARY, Level::Metadata, &[]);
    drop(record);
    assert_eq!(events.stages(), ["ResponseComplete:504"], "the client went before an answer");
    let (mut record, mut events) = begin(WATCH, Level::Metadata, &[]);
    record.answered(200, None);
    record.response_started();
    drop(record);
    assert_eq!(events.stages(), ["ResponseStarted:200", "ResponseComplete:200"]);
}

#[test]
fn a_panic_is_recorded_with_its_message() {
    crate::audit::panic_message::install();
    let (mut record, mut events) = begin(ORDINARY, Level::Metadata, &[]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        record.received();
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
    record.refused_unauthenticated(Status::unauthorized());
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
        record.user = Some(Arc::new(caller.clone()));
        record.impersonation_asked(jane.clone());
        record.received();
        record.answered(403, Some(Said { status: Status::forbidden(answer, None), recorded }));
        record.complete();
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
    record.request_object = Some(br#""small""#.to_vec());
    record.response_object = Some(format!("\"{}\"", "x".repeat(5000)).into_bytes());
    let mut encode = |most| {
        let stage = Stage::ResponseComplete;
        let line = record.encode_within(stage, Timestamp::now(), Format::Json, most);
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
