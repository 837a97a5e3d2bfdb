use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::*;

fn line(event: &Event<'_>) -> String {
    let mut out = Vec::new();
    event.push_json(&mut out);
    String::from_utf8(out).unwrap()
}

fn legacy(event: &Event<'_>) -> String {
    let mut out = Vec::new();
    event.push_legacy("2026-05-04T10:11:12.345678Z", &mut out);
    String::from_utf8(out).unwrap()
}

fn event<'a>(user_agent: &'a UserAgent) -> Event<'a> {
    Event {
        level: Level::Metadata,
        audit_id: b"7d1c",
        stage: Stage::RequestReceived,
        request_uri: "/version",
        verb: "get",
        user: None,
        impersonated_user: None,
        impersonation_constraint: None,
        source_ips: &[],
        user_agent,
        object_ref: None,
        response_status: None,
        request_object: None,
        response_object: None,
        request_received: Timestamp::from_nanos(1_777_889_472_345_678_000),
        stage_timestamp: Timestamp::from_nanos(1_777_889_472_351_002_999),
        annotations: &[],
    }
}

#[test]
fn a_full_event() {
    let info = RequestInfo::new(
        &Method::GET,
        &PathAndQuery::from_static("/api/v1/namespaces/shop/pods/web-0"),
    )
    .unwrap();
    let user = UserInfo {
        username: "alice".into(),
        uid: "7".into(),
        groups: vec!["dev".into(), "system:authenticated".into()],
        extra: BTreeMap::from([("example.org/team".into(), vec!["a".into(), "b".into()])]),
    };
    let agent = UserAgent::new(Some(&HeaderValue::from_static("kubectl/v1.36.2")));
    let status = Status { code: 200, ..Status::default() };
    let event = Event {
        stage: Stage::ResponseComplete,
        request_uri: "/api/v1/namespaces/shop/pods/web-0?pretty=1&x=%3Ca%3E",
        user: Some(&user.into()),
        impersonated_user: Some(&UserInfo::default()),
        impersonation_constraint: None,
        source_ips: &["203.0.113.7".parse().unwrap(), "::ffff:10.0.0.5".parse().unwrap()],
        object_ref: Some(ObjectRef { info: &info, metadata: None }),
        response_status: Some(&status),
        annotations: &[("a/b", "<\"".into()), ("c", String::new())],
        ..event(&agent)
    };
    let expected = concat!(
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"7d1c","#,
        r#""stage":"ResponseComplete","requestURI":"/api/v1/namespaces/shop/pods/web-0"#,
        r#"?pretty=1\u0026x=%3Ca%3E","verb":"get","user":{"username":"alice","uid":"7","#,
        r#""groups":["dev","system:authenticated"],"extra":{"example.org/team":["a","b"]}},"#,
        r#""impersonatedUser":{},"sourceIPs":["203.0.113.7","10.0.0.5"],"#,
        r#""userAgent":"kubectl/v1.36.2","objectRef":{"resource":"pods","namespace":"shop","#,
        r#""name":"web-0","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"#,
        r#""requestReceivedTimestamp":"2026-05-04T10:11:12.345678Z","#,
        r#""stageTimestamp":"2026-05-04T10:11:12.351002Z","#,
        r#""annotations":{"a/b":"\u003c\"","c":""}}"#,
        "\n"
    );
    assert_eq!(line(&event), expected);
}

#[test]
fn empty_members_are_left_out() {
    let agent = UserAgent::new(Some(&HeaderValue::from_static("")));
    let expected = concat!(
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"7d1c","#,
        r#""stage":"RequestReceived","requestURI":"/version","verb":"get","user":{},"#,
        r#""requestReceivedTimestamp":"2026-05-04T10:11:12.345678Z","#,
        r#""stageTimestamp":"2026-05-04T10:11:12.351002Z"}"#,
        "\n"
    );
    assert_eq!(line(&event(&agent)), expected);
}

#[test]
fn the_request_object_fills_what_the_url_leaves_empty() {
    let info = RequestInfo::new(
        &Method::POST,
        &PathAndQuery::from_static("/apis/apps/v1/namespaces/shop/deployments"),
    )
    .unwrap();
    let metadata = ObjectMetadata {
        namespace: "other".into(),
        name: "web".into(),
        uid: "u".into(),
        resource_version: "7".into(),
    };
    let agent = UserAgent::default();
    let mut event = event(&agent);
    event.object_ref = Some(ObjectRef { info: &info, metadata: Some(&metadata) });
    let expected = r#""objectRef":{"resource":"deployments","namespace":"shop","name":"web","uid":"u","apiGroup":"apps","apiVersion":"v1","resourceVersion":"7"}"#;
    assert!(line(&event).contains(expected), "{}", line(&event));
}

#[test]
fn long_user_agents_are_truncated() {
    for (length, cut) in [(1024, ""), (1025, "...TRUNCATED"), (2048, "...TRUNCATED")] {
        let header = HeaderValue::from_str(&"a".repeat(length)).unwrap();
        let agent = UserAgent::new(Some(&header));
        let expected = format!("\"userAgent\":\"{}{cut}\"", "a".repeat(1024));
        assert!(line(&event(&agent)).contains(&expected), "{length}");
    }
}

#[test]
fn status_details_and_addresses() {
    let status = Status {
        status: "Failure".into(),
        message: "no <x>".into(),
        details: Some(Box::default()),
        code: 404,
        ..Status::default()
    };
    let agent = UserAgent::default();
    let event = Event {
        response_status: Some(&status),
        source_ips: &["2001:db8:0:0:1:0:0:1".parse().unwrap()],
        ..event(&agent)
    };
    let line = line(&event);
    let expected = r#""responseStatus":{"metadata":{},"status":"Failure","message":"no \u003cx\u003e","details":{},"code":404}"#;
    assert!(line.contains(expected), "{line}");
    assert!(line.contains(r#""sourceIPs":["2001:db8::1:0:0:1"]"#), "{line}");
}

#[test]
fn legacy_lines() {
    let agent = UserAgent::new(Some(&HeaderValue::from_static("a\"b<")));
    let user = UserInfo {
        username: "jane".into(),
        groups: vec!["dev".into(), "system:authenticated".into()],
        ..UserInfo::default()
    };
    let status = Status { code: 200, ..Status::default() };
    let other = UserInfo { username: "bob".into(), ..UserInfo::default() };
    let full = Event {
        user: Some(&user.into()),
        impersonated_user: Some(&other),
        impersonation_constraint: None,
        source_ips: &["10.1.2.3".parse().unwrap(), "10.1.2.4".parse().unwrap()],
        response_status: Some(&status),
        ..event(&agent)
    };
    let expected = r#" AUDIT: id="7d1c" stage="RequestReceived" ip="10.1.2.3" method="get" user="jane" groups="\"dev\",\"system:authenticated\"" as="bob" asgroups="<lookup>" user-agent="a\"b<" namespace="<none>" uri="/version" response="200""#;
    let text = legacy(&full);
    assert!(text.ends_with(&format!("{expected}\n")), "{text}");
    let none = UserAgent::default();
    let empty = legacy(&event(&none));
    let expected = r#" AUDIT: id="7d1c" stage="RequestReceived" ip="<unknown>" method="get" user="<none>" groups="<none>" as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="/version" response="<deferred>""#;
    assert!(empty.ends_with(&format!("{expected}\n")), "{empty}");
}
