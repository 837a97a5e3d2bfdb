use std::sync::Arc;

use http::Method;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::audit::record::{AuditPipeline, AuditSink, Backend, Encoding, Format, RequestContext};
use crate::audit::recording::BodySettings;
use crate::policy::{Level, Policy, PolicyHandle, PolicyRule, PolicySpec};
use crate::upstream::ConnectionError;
use audit_log::LogBackend;
use k8s_audit::event::UserAgent;
use k8s_audit::request::RequestInfo;
use k8s_audit::request::accept::Accepted;
use k8s_audit::timestamp::Timestamp;

const PATH: &str = "/api/v1/namespaces/a/pods?a=1&b=2";

/// A request at level Metadata, whose first event was written, and its further events.
struct Asked {
    record: Box<AuditContext>,
    events: UnboundedReceiver<Vec<u8>>,
}

impl Asked {
    fn new() -> Asked {
        let (sender, mut events) = unbounded_channel();
        let rules = vec![PolicyRule::new(Level::Metadata)];
        let spec = PolicySpec { rules, ..PolicySpec::default() };
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
        let target = PathAndQuery::from_static(PATH);
        let facts = RequestContext {
            received: Timestamp::now(),
            audit_id: HeaderValue::from_static("id"),
            info: RequestInfo::new(&Method::POST, &target).unwrap(),
            target,
            source_ips: Vec::new(),
            user_agent: UserAgent::default(),
            accept: Some(Accepted { pretty: false }),
        };
        let pipeline = AuditPipeline::new(vec![sink], Arc::default(), None);
        let mut record = AuditContext::begin(Arc::new(pipeline), facts, None);
        drop(record.received());
        events.try_recv().unwrap();
        Asked { record, events }
    }

    /// Refuses the request; returns the response and the only other event.
    async fn refused(
        self,
        by: impl FnOnce(Box<AuditContext>) -> BoxFuture<'static, Response<ResponseBody>>,
    ) -> (Response<ResponseBody>, Value) {
        let Asked { record, mut events } = self;
        let response = by(record).await;
        let event = serde_json::from_slice(&events.try_recv().unwrap()).unwrap();
        assert!(events.try_recv().is_err(), "one event");
        (response, event)
    }
}

fn header<'a>(response: &'a Response<ResponseBody>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn text(response: Response<ResponseBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn status(response: Response<ResponseBody>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn a_refusal_is_the_response_and_the_event() {
    let status_sent = Status::bad_request("CONNECT is not supported");
    let (response, event) = Asked::new().refused(|record| refuse(record, status_sent)).await;
    assert_eq!(response.status(), 400);
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    let sent = status(response).await;
    assert_eq!(
        (&sent["message"], &sent["code"]),
        (&"CONNECT is not supported".into(), &400.into())
    );
    assert_eq!(event["stage"], "ResponseComplete");
    assert_eq!(event["responseStatus"]["message"], "CONNECT is not supported");
    assert_eq!(event["responseStatus"]["code"], 400);
}

#[tokio::test]
async fn an_unauthenticated_request_has_only_the_event_of_its_refusal() {
    let shown = Status { message: "shown".to_owned(), ..Status::of_code(401) };
    let status_sent = Status::unauthorized();
    let (response, event) =
        Asked::new().refused(|record| refuse_unauthenticated(record, &status_sent, shown)).await;
    assert_eq!(status(response).await["message"], "Unauthorized");
    assert_eq!(
        (&event["stage"], &event["responseStatus"]["message"]),
        (&"ResponseStarted".into(), &"shown".into())
    );
}

#[tokio::test]
async fn tokens_that_cannot_be_authenticated_now_are_a_503() {
    let denied = "kube-audit-proxy/upstream-access-denied";
    let (response, event) = Asked::new().refused(|record| refuse_unavailable(record, None)).await;
    assert_eq!(response.status(), 503);
    let message = "token authentication is temporarily unavailable";
    assert_eq!(status(response).await["message"], message);
    assert!(event["annotations"].get(denied).is_none(), "{event}");
    let denial = Denial::Forbidden;
    let (response, event) =
        Asked::new().refused(|record| refuse_unavailable(record, Some(denial))).await;
    let message = denial.message(Access::TokenReview);
    assert_eq!(status(response).await["message"], message);
    assert_eq!(event["annotations"][denied], message);
}

#[tokio::test]
async fn denied_access_of_the_proxy_is_a_503_with_an_annotation() {
    let (access, denial) = (Access::SubjectAccessReview, Denial::Unauthorized);
    let (response, event) =
        Asked::new().refused(|record| access_denied(record, access, denial)).await;
    assert_eq!(response.status(), 503);
    assert_eq!(status(response).await["message"], denial.message(access));
    let annotation = &event["annotations"]["kube-audit-proxy/upstream-access-denied"];
    assert_eq!(*annotation, denial.message(access));
}

#[tokio::test]
async fn urls_that_cannot_be_resolved_are_answered_in_plain_text() {
    let error = InfoError::NothingAfterVerb;
    let shown = error.to_string();
    let (response, event) = Asked::new().refused(|record| refuse_unresolved(record, error)).await;
    assert_eq!(response.status(), 500);
    assert_eq!(header(&response, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
    assert_eq!(
        text(response).await,
        format!("Internal Server Error: {PATH:?}: failed to create RequestInfo: {shown}, {PATH}\n")
    );
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 500}));
}

#[tokio::test]
async fn what_was_lost_decides_the_response() {
    let source = || Arc::new(ConnectionError::Unfinished);
    let unknown = "kube-audit-proxy/outcome-unknown";

    let error = SendError::NotProcessed { source: source() };
    let (response, event) =
        Asked::new().refused(|record| unreachable_upstream(record, &error)).await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "retry-after"), Some("1"), "a client may repeat it");
    assert_eq!(status(response).await["message"], "the proxy cannot reach the API server");
    assert!(event["annotations"].get(unknown).is_none(), "{event}");

    for (error, words) in [
        (SendError::Interrupted { source: source() }, "lost the connection to the API server"),
        (SendError::Unreadable { source: source() }, "sent a response that the proxy cannot parse"),
    ] {
        let (response, event) =
            Asked::new().refused(|record| unreachable_upstream(record, &error)).await;
        assert_eq!(response.status(), 503);
        let retry_after = header(&response, "retry-after").unwrap();
        assert!(httpdate::parse_http_date(retry_after).is_ok(), "no seconds: {retry_after}");
        let sent = status(response).await;
        assert!(sent["message"].as_str().unwrap().contains(words), "{sent}");
        assert_eq!(event["responseStatus"]["message"], sent["message"]);
        let annotation = event["annotations"][unknown].as_str().unwrap();
        assert!(annotation.contains("may have been processed"), "{annotation}");
    }

    let error = SendError::BodyFromClient;
    let (response, event) =
        Asked::new().refused(|record| unreachable_upstream(record, &error)).await;
    assert_ne!(response.status(), 503, "the API server is not at fault");
    assert!(event["annotations"].get(unknown).is_none(), "{event}");
}

#[tokio::test]
async fn a_timeout_is_worded_differently_in_the_event() {
    for outcome_unknown in [false, true] {
        let (response, event) =
            Asked::new().refused(|record| timed_out(record, outcome_unknown)).await;
        assert_eq!(response.status(), 504);
        assert!(response.extensions().get::<SkipCors>().is_some());
        assert_eq!(header(&response, "content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(header(&response, "cache-control"), Some("no-cache, private"));
        let sent = text(response).await;
        assert!(sent.ends_with("}\n"), "{sent}");
        let sent: Value = serde_json::from_str(&sent).unwrap();
        assert!(sent.get("kind").is_none());
        assert_eq!(sent["metadata"], json!({}));
        assert_eq!((&sent["reason"], &sent["code"]), (&"Timeout".into(), &504.into()));
        let message = sent["message"].as_str().unwrap();
        assert!(message.ends_with("did not complete within the allotted timeout"), "{message}");
        let shown = event["responseStatus"]["message"].as_str().unwrap();
        assert!(shown.ends_with("context deadline exceeded"), "{shown}");
        let annotation = event["annotations"].get("kube-audit-proxy/outcome-unknown");
        assert_eq!(annotation.is_some(), outcome_unknown, "{event}");
    }
}

#[tokio::test]
async fn too_many_requests_may_be_repeated_after_a_second() {
    let (response, event) = Asked::new().refused(too_many_requests).await;
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "retry-after"), Some("1"));
    assert_eq!(text(response).await, "Too many requests, please try again later.\n");
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 429}));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_answered_without_markup() {
    let Asked { record, mut events } = Asked::new();
    let response = rejected(record);
    assert_eq!(response.status(), 500);
    assert_eq!(
        text(response).await,
        "Internal Server Error: \"/api/v1/namespaces/a/pods?a=1&amp;b=2\": failed to store \
         audit event\n"
    );
    assert!(events.try_recv().is_err(), "no event can be stored");
    assert!(text(panicked()).await.contains("caused apiserver to panic"));
}

#[test]
fn a_known_body_is_complete_before_it_is_sent() {
    let body = ResponseBody::known(Bytes::from_static(b"four"));
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, Some(4)));
    let body = ResponseBody::known(Bytes::new());
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (true, Some(0)));
}
