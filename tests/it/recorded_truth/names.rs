//! The name of a created object is taken from the response.

use http::Response;

use super::REQUEST_RESPONSE;
use crate::support::http1;
use crate::support::proxy::{Builder, METADATA};
use crate::support::upstream::{FakeUpstream, Protocols, full};
use crate::support::{in_time, wait_for};

const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const JSON: &str = "Content-Type: application/json";

/// Returns an API server that always sends this response.
async fn answering(code: u16, media_type: &'static str, body: &'static [u8]) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |request| async move {
        http_body_util::BodyExt::collect(request.into_body()).await?;
        let response = Response::builder().status(code).header("content-type", media_type);
        Ok(response.body(full(body))?)
    })
    .await
}

#[tokio::test]
async fn a_generated_name_is_recorded() {
    const CREATED: &[u8] =
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"real","namespace":"a"}}"#;
    const GENERATED: &[u8] = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web-x7k2p","generateName":"web-","namespace":"a"}}"#;
    const STATUS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"decoy\" already exists","reason":"AlreadyExists","code":409}"#;
    let named = r#"{"metadata":{"name":"decoy"}}"#;
    let generated = r#"{"metadata":{"generateName":"web-"}}"#;
    let unreadable = r#"{"metadata": oops"#;
    for (code, answer, body, name, annotation, mismatches) in [
        (201, CREATED, r#"{"metadata":{"name":"real"}}"#, "real", "", 0),
        (
            201,
            CREATED,
            named,
            "real",
            "the proxy read decoy from the request, but real was created",
            1,
        ),
        (
            201,
            CREATED,
            "{}",
            "real",
            "the proxy read no name from the request, but real was created",
            1,
        ),
        (
            201,
            CREATED,
            unreadable,
            "real",
            "taken from the response: it could not be read from the request",
            0,
        ),
        // Like in kube-apiserver, a generated name is not in the event.
        (201, GENERATED, generated, "", "", 0),
        (409, STATUS, named, "decoy", "", 0),
        (
            201,
            b"{\"kind\":\"Status\"}",
            unreadable,
            "",
            "unknown: it could be read neither from the request nor from the response",
            0,
        ),
    ] {
        let upstream = answering(code, "application/json", answer).await;
        for policy in [METADATA, REQUEST_RESPONSE] {
            let proxy = Builder::new(upstream.addr).policy(policy).start().await;
            let request =
                http1::request("POST", CONFIG_MAPS, &[JSON, "Audit-ID: id"], body.as_bytes());
            let exchange = http1::exchange(proxy.addr, Some("admin"), &request);
            let response = in_time("an answer", exchange).await.unwrap();
            assert_eq!(response.body, answer);
            let events = proxy.audit_log().wait_end("id").await;
            let event = &events[1];
            assert_eq!(event.text("/objectRef/name"), name, "{body} {code}");
            let found = event.text("/annotations/kube-audit-proxy~1object-name");
            assert_eq!(found, annotation, "{body} {code}");
            let counted = proxy.metric("kube_audit_proxy_object_name_mismatches_total").await;
            assert_eq!(counted, mismatches);
            let logged = || proxy.process.stderr().contains("object with another name");
            if mismatches > 0 {
                wait_for("a warning", || logged().then_some(())).await;
            } else {
                assert!(!logged());
            }
        }
    }
}

#[tokio::test]
async fn a_name_in_the_url_is_not_looked_for_elsewhere() {
    let other = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"other"}}"#;
    let upstream = answering(200, "application/json", other).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let target = format!("{CONFIG_MAPS}/c");
    let request = http1::request("PUT", &target, &[JSON, "Audit-ID: id"], b"{}");
    in_time("an answer", http1::exchange(proxy.addr, Some("admin"), &request)).await.unwrap();
    let events = proxy.audit_log().wait_end("id").await;
    assert_eq!(events[1].text("/objectRef/name"), "c");
    assert_eq!(events[1].at("/annotations"), None);
}

#[tokio::test]
async fn the_name_for_a_body_that_is_too_long_comes_from_the_response_or_is_unknown() {
    const CREATED: &[u8] =
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"real","namespace":"a"}}"#;
    const STATUS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"real\" already exists","reason":"AlreadyExists","code":409}"#;
    let filler = "x".repeat(5000);
    let body = format!(r#"{{"data":{{"a":"{filler}"}},"metadata":{{"name":"real"}}}}"#);
    for (code, answer, name, annotation) in [
        (201, CREATED, "real", "taken from the response: it could not be read from the request"),
        (409, STATUS, "", "unknown: the request body is longer than what is kept of it"),
    ] {
        let upstream = answering(code, "application/json", answer).await;
        for policy in [METADATA, REQUEST_RESPONSE] {
            let builder = Builder::new(upstream.addr).policy(policy);
            let proxy = builder.flag("--audit-max-request-body-bytes=1024").start().await;
            let request =
                http1::request("POST", CONFIG_MAPS, &[JSON, "Audit-ID: id"], body.as_bytes());
            let exchange = http1::exchange(proxy.addr, Some("admin"), &request);
            in_time("an answer", exchange).await.unwrap();
            let events = proxy.audit_log().wait_end("id").await;
            assert_eq!(events[1].text("/objectRef/name"), name, "{code}");
            let found = events[1].text("/annotations/kube-audit-proxy~1object-name");
            assert_eq!(found, annotation, "{code}");
        }
    }
}

/// The name is in the URL, but other members of `objectRef` are not.
#[tokio::test]
async fn an_update_that_is_too_long_is_annotated_as_having_an_incomplete_reference() {
    const UPDATED: &[u8] =
        br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","uid":"u"}}"#;
    let filler = "x".repeat(5000);
    let body = format!(r#"{{"data":{{"a":"{filler}"}},"metadata":{{"name":"c","uid":"u"}}}}"#);
    let upstream = answering(200, "application/json", UPDATED).await;
    for policy in [METADATA, REQUEST_RESPONSE] {
        let builder = Builder::new(upstream.addr).policy(policy);
        let proxy = builder.flag("--audit-max-request-body-bytes=1024").start().await;
        let target = format!("{CONFIG_MAPS}/c");
        let request = http1::request("PUT", &target, &[JSON, "Audit-ID: id"], body.as_bytes());
        in_time("an answer", http1::exchange(proxy.addr, Some("admin"), &request)).await.unwrap();
        let events = proxy.audit_log().wait_end("id").await;
        assert_eq!(events[1].text("/objectRef/name"), "c");
        assert_eq!(
            events[1].text("/annotations/kube-audit-proxy~1object-ref"),
            "uid and resourceVersion unknown: the request body is longer than what is kept of it"
        );
    }
}

/// In YAML and CBOR `metadata` comes after `data`.
#[tokio::test]
async fn a_response_that_is_too_long_to_check_the_name_is_annotated() {
    let lines: String = (0..6000).map(|line| format!("  k{line}: {:050}\n", line)).collect();
    let created =
        format!("apiVersion: v1\ndata:\n{lines}kind: ConfigMap\nmetadata:\n  name: other\n");
    let upstream = answering(201, "application/yaml", created.into_bytes().leak()).await;
    let proxy = Builder::new(upstream.addr).policy(METADATA).start().await;
    let body = br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"asked"}}"#;
    let request = http1::request("POST", CONFIG_MAPS, &[JSON, "Audit-ID: id"], body);
    in_time("an answer", http1::exchange(proxy.addr, Some("admin"), &request)).await.unwrap();
    let events = proxy.audit_log().wait_end("id").await;
    assert_eq!(events[1].text("/objectRef/name"), "asked");
    assert_eq!(
        events[1].text("/annotations/kube-audit-proxy~1object-name"),
        "not checked: the response is longer than what is kept of it"
    );
}
