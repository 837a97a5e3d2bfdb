//! The identity that the API server receives, for clients of all kinds.

use crate::support::http1;
use crate::support::proxy::Builder;
use crate::support::upstream::{FakeUpstream, Protocols, Seen, json};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";

const FORGED: [&str; 5] = [
    "X-Remote-User: root",
    "X-Remote-Group: system:masters",
    "X-Remote-Uid: 0",
    "X-Remote-Extra-Scopes: all",
    "Connection: X-Remote-User, X-Remote-Group",
];

async fn ok_upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

fn remote(seen: &Seen) -> Vec<(&str, &str)> {
    let mut all: Vec<_> =
        seen.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.retain(|(name, _)| name.starts_with("x-remote") || name.starts_with("impersonate"));
    all.sort_unstable();
    all
}

#[tokio::test]
async fn requests_without_credentials_stay_anonymous() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    let answer = http1::get(proxy.addr, None, TARGET, &FORGED).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let expected =
        [("x-remote-group", "system:unauthenticated"), ("x-remote-user", "system:anonymous")];
    assert_eq!(remote(&upstream.seen()[0]), expected);
}

#[tokio::test]
async fn requests_without_credentials_are_rejected_if_anonymous_access_is_off() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).flag("--anonymous-auth=false").start().await;
    let answer = http1::get(proxy.addr, None, TARGET, &FORGED).await.unwrap();
    assert_eq!(answer.head.status, 401);
    assert!(upstream.seen().is_empty());
}

/// Certificates of other CAs, including the front proxy's, are not users here.
#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    for certificate in ["rogue", "front-proxy-client"] {
        let answer = http1::get(proxy.addr, Some(certificate), TARGET, &FORGED).await.unwrap();
        assert_eq!(answer.head.status, 401, "{certificate}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_token_of_the_token_file_authenticates_its_user() {
    let upstream = ok_upstream().await;
    let proxy = Builder::new(upstream.addr).start().await;
    let lines = [&FORGED[..], &["Authorization: bearer carol-token"]].concat();
    http1::get(proxy.addr, None, TARGET, &lines).await.unwrap();
    let seen = upstream.seen();
    let expected = [
        ("x-remote-group", "dev"),
        ("x-remote-group", "system:authenticated"),
        ("x-remote-group", "team-b"),
        ("x-remote-uid", "uid-carol"),
        ("x-remote-user", "carol"),
    ];
    assert_eq!(remote(&seen[0]), expected);
    assert!(seen[0].all("authorization").is_empty());
}

/// Names that a header cannot carry, or that its recipient would decode differently: nothing is
/// sent.
#[tokio::test]
async fn requests_whose_identity_does_not_fit_into_headers_are_not_sent() {
    let users = [
        ("split", "\"a\r\nX-Remote-Group: system:masters\",u,g"),
        ("padded-user", "\" kubernetes-admin\",u,g"),
        ("padded-group", "a,u,\"dev, system:masters\""),
        ("tab-group", "a,u,\"system:masters\t\""),
        ("nul", "\"a\0b\",u,g"),
    ];
    for identity in ["request-header", "impersonate"] {
        let upstream = ok_upstream().await;
        let builder = Builder::new(upstream.addr).identity(identity);
        let rows: Vec<_> = users.iter().map(|(token, rest)| format!("{token},{rest}\n")).collect();
        let file = builder.dir().write("tokens.csv", &rows.concat());
        let flag = format!("--token-auth-file={}", file.display());
        let proxy = builder.flag(&flag).start().await;
        for (token, _) in users {
            let lines = [format!("Authorization: Bearer {token}"), format!("Audit-ID: {token}")];
            let lines = lines.each_ref().map(String::as_str);
            let answer = http1::get(proxy.addr, None, TARGET, &lines).await.unwrap();
            assert!(answer.head.status >= 400, "{identity}, {token}: {}", answer.head.status);
            assert!(upstream.seen().is_empty(), "{identity}, {token}: {:?}", upstream.seen());
            let events = proxy.audit_log().wait_end(token).await;
            assert_eq!(events[1].code(), u64::from(answer.head.status), "{token}");
        }
    }
}

#[tokio::test]
async fn a_non_ascii_name_is_forwarded_unchanged() {
    let upstream = ok_upstream().await;
    let builder = Builder::new(upstream.addr);
    let file = builder.dir().write("tokens.csv", "t,zoë,u,\"größe,a b,c%2fd\"\n");
    let proxy = builder.flag(&format!("--token-auth-file={}", file.display())).start().await;
    let answer = http1::get(proxy.addr, None, TARGET, &["Authorization: Bearer t"]).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let seen = &upstream.seen()[0];
    assert_eq!(seen.all("x-remote-user"), ["zoë"]);
    assert_eq!(seen.all("x-remote-group")[..3], ["größe", "a b", "c%2fd"]);
}
