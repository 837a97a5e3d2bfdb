//! The harness tested against itself, without the program.

use http_body_util::BodyExt;

use crate::support::client::{self, Short};
use crate::support::http1::{self, Connection};
use crate::support::in_time;
use crate::support::upstream::{FakeUpstream, Protocols, json};

#[tokio::test]
async fn the_fake_records_what_arrives_over_http1() {
    let fake = FakeUpstream::start(Protocols::Http1, |request| async move {
        let body = request.into_body().collect().await?.to_bytes();
        json(201, body)
    })
    .await;
    let request = http1::request("FROB", "/a//b?c#d", &["x-ODD: v"], b"{}");
    let answer = http1::exchange(fake.addr, Some("alice"), &request).await.unwrap();
    assert_eq!((answer.head.status, answer.body.as_slice()), (201, b"{}".as_slice()));
    assert_eq!(fake.raw(), [request]);
    assert_eq!(fake.seen()[0].all("X-Odd"), ["v"]);
    assert!(fake.seen()[0].certificate.is_some());
}

#[tokio::test]
async fn the_fake_speaks_http2() {
    let fake = FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await;
    let mut sender = client::http2::<Short>(fake.addr, None).await.unwrap();
    let response = client::h2_get(&mut sender, "/x?y", &[("a", "b")]).await.unwrap();
    assert_eq!(client::whole(response).await.unwrap(), "{}");
    assert_eq!(fake.seen()[0].target, "/x?y");
}

#[tokio::test]
async fn stopping_the_fake_breaks_its_connections() {
    let fake = FakeUpstream::start(Protocols::Http1, |_| std::future::pending()).await;
    let mut connection = Connection::open(fake.addr, None).await.unwrap();
    connection.send(&http1::request("GET", "/", &[], b"")).await.unwrap();
    fake.stop().await;
    in_time("the end of the connection", connection.head()).await.unwrap_err();
}
