//! CBOR in responses and requests, which kube-apiserver supports behind an alpha feature gate.

use http::Response;
use http_body_util::BodyExt;

use super::REQUEST_RESPONSE;
use crate::support::audit_log::Event;
use crate::support::http1;
use crate::support::in_time;
use crate::support::proxy::{Builder, METADATA};
use crate::support::upstream::{FakeUpstream, Protocols, full};

const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const CBOR: &str = "application/cbor";

/// A Status as encoded by kube-apiserver 1.36.
const STATUS: &[u8] = b"\xd9\xd9\xf7\xa8DkindFStatusJapiVersionBv1Hmetadata\xa0FstatusGFailureGmessageX\x1bconfigmaps \"nope\" not foundFreasonHNotFoundGdetails\xa2DnameDnopeDkindJconfigmapsDcode\x19\x01\x94";

/// A ConfigMap as encoded by kube-apiserver 1.36: text in byte strings, bytes below tag 22.
const CREATED: &[u8] = b"\xd9\xd9\xf7\xa5Hmetadata\xa2DnameDrealInamespaceAaDdata\xa1AxAyJbinaryData\xa1Ab\xd6BhiDkindIConfigMapJapiVersionBv1";

async fn answering(code: u16, media_type: &'static str, body: &'static [u8]) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |request| async move {
        request.into_body().collect().await?;
        let response = Response::builder().status(code).header("content-type", media_type);
        Ok(response.body(full(body))?)
    })
    .await
}

/// Returns the last event of one request.
async fn event(
    upstream: &FakeUpstream,
    policy: &str,
    (method, media_type, body): (&str, &str, &[u8]),
    flags: &[&str],
) -> Event {
    let builder = Builder::new(upstream.addr).policy(policy);
    let proxy = flags.iter().fold(builder, |builder, flag| builder.flag(flag)).start().await;
    let headers = [&format!("Content-Type: {media_type}"), "Audit-ID: id"];
    let target = if method == "GET" { "/api/v1/namespaces/a/configmaps/nope" } else { CONFIG_MAPS };
    let request = http1::request(method, target, &headers, body);
    in_time("an answer", http1::exchange(proxy.addr, Some("admin"), &request)).await.unwrap();
    proxy.audit_log().wait_end("id").await.pop().unwrap()
}

fn note(event: &Event, name: &str) -> String {
    event.text(&format!("/annotations/kube-audit-proxy~1{name}")).to_owned()
}

#[tokio::test]
async fn a_status_keeps_its_reason_and_message() {
    let upstream = answering(404, CBOR, STATUS).await;
    for policy in [METADATA, REQUEST_RESPONSE] {
        let event = event(&upstream, policy, ("GET", CBOR, b""), &[]).await;
        assert_eq!(event.text("/responseStatus/reason"), "NotFound");
        assert_eq!(event.text("/responseStatus/message"), "configmaps \"nope\" not found");
        assert_eq!(event.text("/responseStatus/details/name"), "nope");
        let kind = if policy == METADATA { "" } else { "Status" };
        assert_eq!(event.text("/responseObject/kind"), kind);
    }
}

#[tokio::test]
async fn the_name_is_checked_against_the_response() {
    let upstream = answering(201, CBOR, CREATED).await;
    let decoy = br#"{"metadata":{"name":"decoy"}}"#;
    for policy in [METADATA, REQUEST_RESPONSE] {
        let event = event(&upstream, policy, ("POST", "application/json", decoy), &[]).await;
        assert_eq!(event.text("/objectRef/name"), "real");
        let why = "the proxy read decoy from the request, but real was created";
        assert_eq!(note(&event, "object-name"), why);
        if policy == REQUEST_RESPONSE {
            assert_eq!(event.text("/responseObject/binaryData/b"), "aGk=");
            assert_eq!(event.text("/responseObject/data/x"), "y");
        }
    }
}

#[tokio::test]
async fn a_response_that_is_not_cbor_is_annotated() {
    let upstream = answering(200, CBOR, b"\xa2\x41a\x01\x41a\x02").await;
    let flags = ["--audit-redact=none"];
    let event = event(&upstream, REQUEST_RESPONSE, ("GET", CBOR, b""), &flags).await;
    assert_eq!(note(&event, "response-object"), "cbor: found duplicate map key");
    assert_eq!(event.text("/responseObject"), "okFhAUFhAg==");
}

#[tokio::test]
async fn a_request_is_recorded_as_json() {
    let upstream = answering(201, CBOR, CREATED).await;
    let event = event(&upstream, REQUEST_RESPONSE, ("POST", CBOR, CREATED), &[]).await;
    assert_eq!(event.text("/objectRef/name"), "real");
    assert_eq!(event.text("/requestObject/binaryData/b"), "aGk=");
    assert_eq!(event.at("/annotations"), None);
}

/// Without the feature gate kube-apiserver does not decode it, and records no object.
#[tokio::test]
async fn a_request_that_is_not_supported_has_no_object() {
    const UNSUPPORTED: &[u8] = br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf","reason":"UnsupportedMediaType","code":415}"#;
    let upstream = answering(415, "application/json", UNSUPPORTED).await;
    let event = event(&upstream, REQUEST_RESPONSE, ("POST", CBOR, CREATED), &[]).await;
    assert_eq!(event.at("/requestObject"), None);
    assert_eq!(event.text("/objectRef/name"), "");
}
