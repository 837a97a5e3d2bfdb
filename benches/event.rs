//! What the audit record costs: one event encoded, one request's facts resolved.
//!
//! Run with `cargo bench --bench event`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use kube_audit_proxy::audit::body::{Budget, Redaction};
use kube_audit_proxy::audit::event::{Event, ObjectRef, UserAgent};
use kube_audit_proxy::audit::record::{
    AuditSink, Backend, Encoding, Format, Record, Recorder, RequestFacts,
};
use kube_audit_proxy::audit::recording::BodySettings;
use kube_audit_proxy::audit::timestamp::Timestamp;
use kube_audit_proxy::authn::UserInfo;
use kube_audit_proxy::policy::{self, Level, PolicyHandle, Stage};
use kube_audit_proxy::request::RequestInfo;
use kube_audit_proxy::request::source::TrustedProxies;
use kube_audit_proxy::request::uri::request_uri;
use kube_audit_proxy::sink::Sink;
use kube_audit_proxy::status::Status;

const ROUNDS: u32 = 200_000;

fn main() {
    let target = PathAndQuery::from_static(
        "/apis/apps/v1/namespaces/shop/deployments/web?fieldManager=kubectl&fieldValidation=Strict",
    );
    let info = RequestInfo::new(&Method::PATCH, &target).expect("a resource");
    let user = UserInfo {
        username: "system:serviceaccount:shop:deployer".into(),
        uid: "3761b3bc-93b9-41fd-9783-0dc0459d48d2".into(),
        groups: ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"]
            .map(String::from)
            .to_vec(),
        extra: [(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec!["JTI=f1cbe19d-e993-4865-afd1-6fdc8a5dfc85".to_owned()],
        )]
        .into(),
    };
    let agent = HeaderValue::from_static("kubectl/v1.36.2 (linux/amd64) kubernetes/abcdef0");
    let user_agent = UserAgent::new(Some(&agent));
    let source_ips = ["203.0.113.7".parse().expect("an address")];
    let status = Status { code: 200, ..Status::default() };
    let event = Event {
        level: Level::Metadata,
        audit_id: b"0d4e1f6a-2f0c-4a8e-9f0e-6b1f5a0c7d11",
        stage: Stage::ResponseComplete,
        request_uri: &request_uri(&target),
        verb: info.verb(),
        user: Some(&user),
        impersonated_user: None,
        impersonation_constraint: None,
        source_ips: &source_ips,
        user_agent: &user_agent,
        object_ref: Some(ObjectRef { info: &info, metadata: None }),
        response_status: Some(&status),
        request_object: None,
        response_object: None,
        request_received: Timestamp::now(),
        stage_timestamp: Timestamp::now(),
        annotations: &[],
    };
    let mut line = Vec::with_capacity(2048);
    measure("event to JSON", || {
        line.clear();
        event.push_json(black_box(&mut line));
    });
    measure("event to a legacy line", || {
        line.clear();
        event.push_legacy(black_box(&mut line));
    });
    for uri in [
        "/api/v1/namespaces/shop/pods/web-0",
        "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1&resourceVersion=7",
        "/api/v1/namespaces/shop/pods/web%2D0/log",
    ] {
        let target = PathAndQuery::from_static(uri);
        measure(&format!("request info of {uri}"), || {
            black_box(RequestInfo::new(&Method::GET, black_box(&target)).ok());
        });
    }
    records(&target, &user, &agent);
    let headers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-forwarded-for"),
        HeaderValue::from_static("203.0.113.7, 198.51.100.2"),
    )]);
    let peer = ([10, 0, 0, 1], 443).into();
    measure("source addresses", || {
        black_box(TrustedProxies::Everyone.source_ips(black_box(&headers), peer));
    });
}

/// A whole record at level Metadata, both events of it, by sinks that keep nothing.
fn records(target: &PathAndQuery, user: &UserInfo, agent: &HeaderValue) {
    let user = Arc::new(user.clone());
    let bodies = BodySettings {
        max_request: 3 << 20,
        max_response: 3 << 19,
        budget: Budget::new(1 << 27),
        redaction: Some(Arc::new(Redaction::default())),
    };
    let policy = |text: &str| {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let policy = policy::parse(format!("{head}{text}").as_bytes(), "bench");
        PolicyHandle::new(policy.expect("a policy").policy)
    };
    let sink = |policy: &PolicyHandle, format| {
        let (observer, _) = tokio::sync::mpsc::unbounded_channel();
        AuditSink {
            name: String::new(),
            backend: Backend::Log(Sink::channel(observer)),
            policy: policy.clone(),
            bodies: bodies.clone(),
            encoding: Encoding { format, max_event: None },
        }
    };
    let all = policy("rules: [{level: Metadata}]");
    let late = policy("omitStages: [RequestReceived]\nrules: [{level: Metadata}]");
    for (what, sinks) in [
        ("one sink", vec![sink(&all, Format::Json)]),
        ("three sinks, one policy", (0..3).map(|_| sink(&all, Format::Json)).collect()),
        (
            "three sinks, two policies of the same level",
            vec![sink(&all, Format::Json), sink(&late, Format::Json), sink(&late, Format::Json)],
        ),
        ("two sinks, two formats", vec![sink(&all, Format::Json), sink(&all, Format::Legacy)]),
    ] {
        let recorder = Arc::new(Recorder::new(sinks, Arc::default(), None));
        measure(&format!("record at Metadata, {what}"), || {
            let facts = RequestFacts {
                accept: None,
                received: Timestamp::now(),
                audit_id: HeaderValue::from_static("0d4e1f6a-2f0c-4a8e-9f0e-6b1f5a0c7d11"),
                info: RequestInfo::new(&Method::GET, target).expect("a resource"),
                target: target.clone(),
                source_ips: Vec::new(),
                user_agent: UserAgent::new(Some(agent)),
            };
            let mut record = Record::begin(recorder.clone(), facts, Some(user.clone()));
            drop(record.received());
            record.answered(200, None);
            drop(record.complete());
        });
    }
}

/// The best of five rounds: what disturbs a run only ever makes it slower.
fn measure(what: &str, mut work: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| work());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:<80} {best:>8.0} ns");
}
