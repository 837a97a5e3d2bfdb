//! The headers of S3 Object Lock, on requests to a server that records them.

use std::time::{Duration, SystemTime};

use http::Method;

use crate::support::client::{self, Short};
use crate::support::corpus;
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, Seen, empty, json};
use crate::support::wait_for;

fn text(request: &Seen, name: &str) -> String {
    request.all(name).concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_locked_when_they_are_created() {
    let upstream =
        FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{\"items\":[]}") }).await;
    let store = FakeUpstream::start(Protocols::Http1, |request| async move {
        let status = if request.method() == Method::PUT { 200 } else { 404 };
        let response = http::Response::builder().status(status).header("etag", "\"1\"");
        Ok(response.body(empty()).unwrap())
    })
    .await;
    let builder = Builder::new(upstream.addr)
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_SESSION_TOKEN", "token");
    builder.dir().write(
        "all.yaml",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n",
    );
    let (port, ca) = (store.addr.port(), corpus::pki("ca.crt"));
    let mut proxy = builder
        .sinks(&format!(
            "\
             - name: bucket\n  type: s3\n  policy-file: DIR/all.yaml\n  url: s3://audit/logs\n  \
               endpoint: https://127.0.0.1:{port}\n  ca-file: {}\n  region: eu-central-1\n  \
               object-lock-mode: compliance\n  object-lock-retain: 365d\n  segment-max-age: 1s\n  \
               spool-dir: DIR/spool\n",
            ca.display()
        ))
        .start()
        .await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let answer = client::h2_get(&mut sender, "/api/v1/pods", &[]).await.unwrap();
    client::whole(answer).await.unwrap();
    let put =
        wait_for("the object", || store.seen().into_iter().find(|request| request.method == "PUT"))
            .await;
    let key = put.target.replace("%3D", "=");
    assert!(key.starts_with("/audit/logs/cluster=kubernetes/date="), "{key}");
    assert_eq!(text(&put, "if-none-match"), "*");
    assert_eq!(text(&put, "x-amz-object-lock-mode"), "COMPLIANCE");
    let until: jiff::Timestamp = text(&put, "x-amz-object-lock-retain-until-date").parse().unwrap();
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let expected = jiff::Timestamp::try_from(SystemTime::now() + year).unwrap();
    let difference = expected.duration_since(until).as_secs();
    assert!((0..60).contains(&difference), "{until} is not in a year");
    // What S3 demands of locked objects, and that all of it is signed.
    assert_eq!(text(&put, "x-amz-checksum-sha256").len(), 44);
    let authorization = text(&put, "authorization");
    let scope = "/eu-central-1/s3/aws4_request, ";
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=key/"), "{authorization}");
    assert!(authorization.contains(scope), "{authorization}");
    let signed = authorization.split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
    for header in [
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "x-amz-checksum-sha256",
        "x-amz-content-sha256",
        "x-amz-security-token",
    ] {
        assert!(signed.split(';').any(|name| name == header), "{header} is not in {signed}");
    }
    // Other requests do not have them.
    let others = store.seen().into_iter().filter(|request| request.method != "PUT");
    for other in others {
        assert_eq!(text(&other, "x-amz-object-lock-mode"), "", "{}", other.target);
    }
    assert!(proxy.stop().await.success());
}
