//! Replays unusual and hostile bodies whose events a real kube-apiserver has recorded: the proxy
//! records them equally, or with an annotation that gives the reason.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::audit_log::Event;
use crate::support::corpus;
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, json as answer};

const EVERYTHING: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: RequestResponse\n";

/// A request, and what kube-apiserver recorded.
#[derive(Deserialize)]
struct Body {
    uri: String,
    headers: HashMap<String, String>,
    body: String,
    status: u16,
    event: Value,
    created: Option<String>,
}

impl Body {
    /// Returns the response of kube-apiserver, as far as the corpus contains it.
    fn answer(&self) -> (u16, Bytes) {
        let object = if self.status < 300 {
            let name = self.created.as_deref().unwrap_or_default();
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}}).to_string()
        } else {
            let mut status = self.event["responseStatus"].clone();
            status["apiVersion"] = "v1".into();
            // Like kube-apiserver, the kind comes first, by which a Status is recognized.
            let rest = status.to_string();
            format!("{{\"kind\":\"Status\",{}", &rest[1..])
        };
        (self.status, Bytes::from(object))
    }
}

fn bodies() -> Vec<Body> {
    let compressed = std::fs::read(corpus::path("bodies.jsonl.zst")).unwrap();
    let text = zstd::decode_all(&compressed[..]).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The members of the object that are compared.
const MEMBERS: [&str; 7] = [
    "/data",
    "/binaryData",
    "/immutable",
    "/kind",
    "/apiVersion",
    "/metadata/name",
    "/metadata/labels",
];

/// Returns the members that differ, among those that kube-apiserver's event has.
fn differences(body: &Body, event: &Event) -> Vec<&'static str> {
    let differs = |pointer: &&str| {
        let expected = body.event["requestObject"].pointer(pointer);
        expected.is_some_and(|expected| {
            event.at("/requestObject").and_then(|object| object.pointer(pointer)) != Some(expected)
        })
    };
    let mut differences: Vec<_> = MEMBERS.into_iter().filter(differs).collect();
    let name = body.event["objectRef"]["name"].as_str();
    if name.is_some_and(|name| event.text("/objectRef/name") != name) {
        differences.push("objectRef.name");
    }
    differences
}

/// Returns the proxy's annotations about bodies.
fn marks(event: &Event) -> String {
    let annotations = event.at("/annotations").and_then(Value::as_object);
    let own = |(key, value): (&String, &Value)| {
        let key = key.strip_prefix("kube-audit-proxy/")?;
        Some(format!("{key}: {}", value.as_str()?))
    };
    annotations.into_iter().flatten().filter_map(own).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn bodies_are_recorded_like_by_kube_apiserver() {
    let bodies = bodies();
    let answers: Arc<Vec<_>> = Arc::new(bodies.iter().map(Body::answer).collect());
    let upstream = FakeUpstream::start(Protocols::Http2, move |request| {
        let id = request.headers()["audit-id"].to_str().unwrap_or_default();
        let index: usize = id.strip_prefix("body-").and_then(|n| n.parse().ok()).unwrap_or(0);
        let (status, body) = answers[index].clone();
        async move { answer(status, body) }
    })
    .await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    for (index, body) in bodies.iter().enumerate() {
        let mut headers: Vec<_> =
            body.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        headers.push(format!("Audit-ID: body-{index}"));
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let bytes = corpus::decode(&body.body);
        let request = http1::request("POST", &body.uri, &headers, &bytes);
        connection.send(&request).await.unwrap();
        let answered = in_time("an answer", connection.answer("POST")).await.unwrap();
        assert_eq!(answered.head.status, body.status, "{index}");
    }
    let mut log = proxy.audit_log();
    log.wait_end(&format!("body-{}", bodies.len() - 1)).await;
    let ends: HashMap<String, Event> = log
        .events()
        .iter()
        .filter(|event| event.is_end())
        .map(|event| (event.audit_id().to_owned(), event.clone()))
        .collect();

    let (mut equal, mut silent) = (0, Vec::new());
    let mut marked: BTreeMap<String, usize> = BTreeMap::new();
    for (index, body) in bodies.iter().enumerate() {
        let event = &ends[&format!("body-{index}")];
        let differences = differences(body, event);
        if differences.is_empty() {
            equal += 1;
            continue;
        }
        let mark = marks(event);
        if mark.is_empty() {
            silent.push((index, differences.join(", ")));
        } else {
            *marked.entry(format!("{} ({mark})", differences.join(", "))).or_default() += 1;
        }
    }
    println!("{equal} of {} are equal; marked: {marked:#?}", bodies.len());
    assert!(silent.is_empty(), "differ without an annotation: {silent:?}");
    assert!(
        equal * 1000 >= bodies.len() * 995,
        "{equal} of {} are equal: {marked:#?}",
        bodies.len()
    );
}

/// The content encoding that a client declares does not affect the record.
#[tokio::test]
async fn the_content_encoding_of_a_request_is_ignored() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async move {
        answer(200, Bytes::from_static(b"{\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"c\"}}"))
    })
    .await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let target = "/api/v1/namespaces/a/configmaps";
    let named = format!("{target}/c");
    let object = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"}}"#;
    let options = r#"{"propagationPolicy":"Foreground"}"#;
    let patch = "application/merge-patch+json";
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    for encoding in ["br", "gzip", "foo", "deflate", "gzip, gzip"] {
        for (method, target, media_type, body, pointer, expected) in [
            ("POST", target, "application/json", object, "/requestObject/metadata/name", "c"),
            ("PUT", &named, "application/json", object, "/requestObject/metadata/name", "c"),
            ("PATCH", &named, patch, object, "/requestObject/metadata/name", "c"),
            (
                "DELETE",
                &named,
                "application/json",
                options,
                "/requestObject/propagationPolicy",
                "Foreground",
            ),
        ] {
            let id = format!("{method}-{}", encoding.replace(", ", "-"));
            let headers = [
                format!("Content-Type: {media_type}"),
                format!("Content-Encoding: {encoding}"),
                format!("Audit-ID: {id}"),
            ];
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let request = http1::request(method, target, &headers, body.as_bytes());
            connection.send(&request).await.unwrap();
            in_time("an answer", connection.answer(method)).await.unwrap();
            let event = proxy.audit_log().wait_end(&id).await.pop().unwrap();
            assert_eq!(event.text(pointer), expected, "{method} {encoding}");
            assert_eq!(event.text("/objectRef/name"), "c", "{method} {encoding}");
        }
    }
}

/// The first binding names `viewer`, but the API server binds `cluster-admin`.
#[tokio::test]
async fn a_merge_key_does_not_hide_a_role() {
    let upstream = FakeUpstream::start(Protocols::Http2, |_| async move {
        answer(
            201,
            Bytes::from_static(b"{\"kind\":\"ClusterRoleBinding\",\"metadata\":{\"name\":\"b\"}}"),
        )
    })
    .await;
    let proxy = Builder::new(upstream.addr).policy(EVERYTHING).start().await;
    let body = "kind: ClusterRoleBinding\napiVersion: rbac.authorization.k8s.io/v1\nmetadata: {name: b}\nroleRef: {kind: ClusterRole, name: viewer, <<: {name: cluster-admin}}\n";
    let headers = ["Content-Type: application/yaml", "Audit-ID: binding"];
    let target = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let request = http1::request("POST", target, &headers, body.as_bytes());
    let mut connection = Connection::open(proxy.addr, Some("admin")).await.unwrap();
    connection.send(&request).await.unwrap();
    in_time("an answer", connection.answer("POST")).await.unwrap();
    let event = proxy.audit_log().wait_end("binding").await.pop().unwrap();
    assert_eq!(event.text("/requestObject/roleRef/name"), "cluster-admin");
    assert_eq!(marks(&event), "request-ambiguous: merge-key-override");
}
