//! Identity headers in client requests: whatever a client sends, the API server receives the
//! identity that the proxy sets.

use crate::support::client::{self, Short};
use crate::support::http1::{self, Answer, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, Seen, json};

mod table;

use table::{ATTACKS, Attack, HTTP2_ATTACKS, Outcome};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";

/// An upstream identity mode, and the credential that a client uses.
struct Mode {
    identity: &'static str,
    certificate: Option<&'static str>,
    /// A header line with a token; empty if a certificate is presented.
    token: &'static str,
}

const MODES: [Mode; 3] = [
    Mode { identity: "request-header", certificate: Some("alice"), token: "" },
    Mode { identity: "impersonate", certificate: Some("alice"), token: "" },
    Mode {
        identity: "pass-through",
        certificate: None,
        token: "Authorization: Bearer carol-token",
    },
];

async fn upstream(protocols: Protocols) -> FakeUpstream {
    FakeUpstream::start(protocols, |request| async move {
        // Allow all reviews of the proxy in impersonate mode.
        match request.uri().path() {
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                json(201, r#"{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}"#)
            }
            "/version" => json(200, r#"{"major":"1","minor":"36"}"#),
            _ => json(200, "{}"),
        }
    })
    .await
}

/// Returns the client's requests that reached the API server, without the proxy's own reviews.
fn arrived(upstream: &FakeUpstream) -> Vec<Seen> {
    let mut seen = upstream.take_seen();
    seen.retain(|seen| !seen.target.contains("accessreviews") && seen.target != "/version");
    seen
}

/// Returns every header that names an identity, or that a server could treat as one, sorted.
fn identity(seen: &Seen) -> Vec<(String, String)> {
    let mut headers = seen.headers.clone();
    headers.retain(|(name, _)| {
        let name = decoded(name);
        ["x-remote", "impersonate", "authorization", "proxy-authorization", "front-proxy"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    });
    headers.sort();
    headers
}

/// Returns the name as the most lenient parser would decode it.
fn decoded(name: &str) -> String {
    let mut text = name.to_ascii_lowercase().replace('_', "-");
    for (code, plain) in [("%2d", "-"), ("%5f", "-"), ("%2e", "."), ("%52", "r"), ("%20", "")] {
        text = text.replace(code, plain);
    }
    text
}

async fn baseline(proxy: &Proxy, upstream: &FakeUpstream, mode: &Mode) -> Seen {
    let lines: Vec<&str> = [mode.token].into_iter().filter(|line| !line.is_empty()).collect();
    let answer = http1::get(proxy.addr, mode.certificate, TARGET, &lines).await.unwrap();
    assert_eq!(answer.head.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let seen = arrived(upstream);
    assert_eq!(seen.len(), 1);
    check_baseline(mode, &seen[0]);
    seen[0].clone()
}

fn check_baseline(mode: &Mode, seen: &Seen) {
    let groups = ["dev", "team-a"];
    match mode.identity {
        "request-header" => {
            assert_eq!(seen.all("x-remote-user"), ["alice"]);
            assert_eq!(seen.all("x-remote-group")[..2], groups);
            assert!(seen.all("authorization").is_empty());
            assert!(identity(seen).iter().all(|(name, _)| name.starts_with("x-remote-")));
        }
        "impersonate" => {
            assert_eq!(seen.all("impersonate-user"), ["alice"]);
            assert_eq!(seen.all("impersonate-group")[..2], groups);
            assert!(identity(seen).iter().all(|(name, _)| name.starts_with("impersonate-")));
        }
        _ => {
            let token = ("authorization".to_owned(), "Bearer carol-token".to_owned());
            assert_eq!(identity(seen), [token]);
        }
    }
}

/// Sends an attack. Returns `None` if the connection was closed without a response.
async fn send(proxy: &Proxy, mode: &Mode, attack: &Attack) -> Option<Answer> {
    let mut connection = Connection::open(proxy.addr, mode.certificate).await.unwrap();
    let token = match mode.token {
        "" => String::new(),
        line => format!("{line}\r\n"),
    };
    let request = attack.request.replace("{token}", &token).replace("{target}", TARGET);
    connection.send(request.as_bytes()).await.ok()?;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), connection.answer("GET"));
    let answer = answer.await.ok()?.ok();
    // A second response on the same connection would be to a smuggled request; wait for it.
    let more = std::time::Duration::from_millis(if attack.is_smuggling { 200 } else { 0 });
    let _ = tokio::time::timeout(more, connection.read_to_end()).await;
    answer
}

/// Returns the outcome of an attack, or why it violates the expectation.
fn judge(
    attack: &Attack,
    expected: &Seen,
    answer: Option<&Answer>,
    arrived: &[Seen],
) -> Result<Outcome, String> {
    if arrived.iter().any(|seen| seen.target.contains("smuggled")) {
        return Err("a smuggled request reached the API server".to_owned());
    }
    match arrived {
        [] => match answer.map(|answer| answer.head.status) {
            None | Some(400..=499) => Ok(Outcome::Refused),
            Some(status) => Err(format!("answered {status} though nothing reached the API server")),
        },
        [seen] => {
            let mut wanted = identity(expected);
            wanted.extend(attack.adds.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
            wanted.sort();
            if identity(seen) != wanted {
                return Err(format!("identity {:?}\n      wanted {wanted:?}", identity(seen)));
            }
            let nominated = seen.all("connection").join(",").to_ascii_lowercase();
            if nominated.contains("x-remote") || nominated.contains("impersonate") {
                return Err(format!("the API server receives Connection: {nominated:?}"));
            }
            let leaked = attack.removed.iter().find(|name| !seen.all(name).is_empty());
            match leaked {
                Some(name) => Err(format!("{name} reached the API server: {:?}", seen.all(name))),
                None => Ok(Outcome::Stamped),
            }
        }
        more => Err(format!("{} requests reached the API server", more.len())),
    }
}

async fn attack_all(mode: &Mode, protocols: Protocols) {
    let upstream = upstream(protocols).await;
    let proxy = Builder::new(upstream.addr).identity(mode.identity).start().await;
    let expected = baseline(&proxy, &upstream, mode).await;
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for attack in ATTACKS.iter().filter(|attack| attack.applies_to(mode.identity)) {
        let answer = send(&proxy, mode, attack).await;
        let arrived = arrived(&upstream);
        let outcome = judge(attack, &expected, answer.as_ref(), &arrived);
        match outcome {
            Ok(outcome) if attack.expect.is_none_or(|expect| expect == outcome) => {
                if outcome == Outcome::Refused {
                    refused.push(attack.name);
                }
            }
            Ok(outcome) => wrong.push(format!(
                "{}: {outcome:?}, not {:?}; the client got {:?}",
                attack.name,
                attack.expect,
                answer.map(|answer| answer.head.status)
            )),
            Err(why) => wrong.push(format!("{}: {why}", attack.name)),
        }
    }
    for raw in upstream.raw() {
        // All forged values contain this text, which must not be in a trailer either.
        let text = String::from_utf8_lossy(&raw);
        assert!(!text.contains("root"), "a forged value went on:\n{text}");
    }
    println!("{} by {protocols:?}: refused are {refused:?}", mode.identity);
    assert!(wrong.is_empty(), "{}:\n  {}", mode.identity, wrong.join("\n  "));
    proxy_still_serves(&proxy, &upstream, mode).await;
}

async fn proxy_still_serves(proxy: &Proxy, upstream: &FakeUpstream, mode: &Mode) {
    baseline(proxy, upstream, mode).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_header_mode_over_http1() {
    attack_all(&MODES[0], Protocols::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_header_mode_over_http2() {
    attack_all(&MODES[0], Protocols::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impersonate_mode() {
    attack_all(&MODES[1], Protocols::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pass_through_mode() {
    attack_all(&MODES[2], Protocols::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_speak_http2() {
    for mode in &MODES[..2] {
        let upstream = upstream(Protocols::Http2).await;
        let proxy = Builder::new(upstream.addr).identity(mode.identity).start().await;
        let expected = baseline(&proxy, &upstream, mode).await;
        let mut sender = client::http2::<Short>(proxy.addr, mode.certificate).await.unwrap();
        for (name, headers) in HTTP2_ATTACKS {
            let response = client::h2_get(&mut sender, TARGET, headers).await;
            let arrived = arrived(&upstream);
            match (response, arrived.as_slice()) {
                (Ok(response), []) => {
                    assert!(response.status().is_client_error(), "{name}: {}", response.status());
                }
                (Err(_), []) => {
                    sender = client::http2::<Short>(proxy.addr, mode.certificate).await.unwrap();
                }
                (_, [seen]) => assert_eq!(identity(seen), identity(&expected), "{name}"),
                (_, more) => panic!("{name}: {} requests", more.len()),
            }
        }
    }
}

#[tokio::test]
async fn pass_through_sends_no_request_that_has_only_a_certificate() {
    let upstream = upstream(Protocols::Http2).await;
    let proxy = Builder::new(upstream.addr).identity("pass-through").start().await;
    let answer = http1::get(proxy.addr, Some("alice"), TARGET, &[]).await.unwrap();
    assert!(answer.head.status >= 400, "answered {}", answer.head.status);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn the_proxy_shows_its_own_certificate() {
    for identity in ["request-header", "impersonate"] {
        let upstream = upstream(Protocols::Http2).await;
        let proxy = Builder::new(upstream.addr).identity(identity).start().await;
        http1::get(proxy.addr, Some("alice"), TARGET, &[]).await.unwrap();
        assert!(upstream.seen()[0].certificate.is_some(), "{identity}");
    }
}

/// `--trusted-proxies`, the `sourceIPs` of the event, and the `X-Forwarded-For` header for the API
/// server.
const SOURCES: [(&str, &[&str], &str); 4] = [
    ("", &["203.0.113.7", "198.51.100.2", "127.0.0.1"], "203.0.113.7, 198.51.100.2, 127.0.0.1"),
    ("10.0.0.0/8", &["127.0.0.1"], "127.0.0.1"),
    // The nearest proxy is trusted; what it received from an unknown address is not.
    ("127.0.0.0/8", &["198.51.100.2", "127.0.0.1"], "203.0.113.7, 198.51.100.2, 127.0.0.1"),
    (
        "127.0.0.0/8,198.51.100.0/24",
        &["203.0.113.7", "198.51.100.2", "127.0.0.1"],
        "203.0.113.7, 198.51.100.2, 127.0.0.1",
    ),
];

#[tokio::test]
async fn forged_source_addresses_count_only_from_trusted_proxies() {
    for (trusted, ips, forwarded) in SOURCES {
        let upstream = upstream(Protocols::Http1).await;
        let mut builder = Builder::new(upstream.addr);
        if !trusted.is_empty() {
            builder = builder.flag(&format!("--trusted-proxies={trusted}"));
        }
        let proxy = builder.start().await;
        let lines = ["X-Forwarded-For: 203.0.113.7, 198.51.100.2", "Audit-ID: from"];
        http1::get(proxy.addr, Some("alice"), TARGET, &lines).await.unwrap();
        let event = &proxy.audit_log().wait_end("from").await[0];
        assert_eq!(event.value["sourceIPs"], serde_json::json!(ips), "{trusted:?}");
        let seen = upstream.seen();
        assert_eq!(seen[0].all("x-forwarded-for"), [forwarded], "{trusted:?}");
    }
}

#[tokio::test]
async fn an_untrusted_x_real_ip_is_not_forwarded() {
    let upstream = upstream(Protocols::Http1).await;
    let builder = Builder::new(upstream.addr).flag("--trusted-proxies=10.0.0.0/8");
    let proxy = builder.start().await;
    let lines = ["X-Real-Ip: 203.0.113.9", "Audit-ID: real"];
    http1::get(proxy.addr, Some("alice"), TARGET, &lines).await.unwrap();
    let event = &proxy.audit_log().wait_end("real").await[0];
    assert_eq!(event.value["sourceIPs"], serde_json::json!(["127.0.0.1"]));
    assert!(upstream.seen()[0].all("x-real-ip").is_empty());
}

#[tokio::test]
async fn the_forwarded_audit_id_is_the_recorded_one() {
    let upstream = upstream(Protocols::Http2).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let lines = ["Audit-ID: first", "Audit-ID: second"];
    let answer = http1::get(proxy.addr, Some("alice"), TARGET, &lines).await.unwrap();
    assert_eq!(answer.head.all("audit-id"), ["first"]);
    assert_eq!(upstream.seen()[0].all("audit-id"), ["first"]);
    assert_eq!(proxy.audit_log().wait_end("first").await.len(), 2);
}

/// Text from a client cannot break out of its line in the log.
#[tokio::test]
async fn hostile_text_stays_text() {
    let upstream = upstream(Protocols::Http2).await;
    let mut proxy = Builder::new(upstream.addr).start().await;
    let mut request = b"GET /api/v1/pods/a%22%0a%7b?x='}|& HTTP/1.1\r\nHost: k\r\n".to_vec();
    request.extend_from_slice(
        b"Audit-ID: \"},{\"x\":\"\\\r\nUser-Agent: \xff\xe2\x80\xa8<\t>&\"\r\n\r\n",
    );
    let answer = http1::exchange(proxy.addr, Some("alice"), &request).await.unwrap();
    assert_eq!(answer.head.status, 200);
    assert_eq!(proxy.stop().await.code(), Some(0));
    let mut log = proxy.audit_log();
    let events = log.events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].audit_id(), "\"},{\"x\":\"\\");
    assert!(events[0].line.contains(r#""userAgent":"\ufffd\u2028\u003c\t\u003e\u0026\"""#));
    assert_eq!(events[0].text("/requestURI"), "/api/v1/pods/a%22%0a%7b?x='}|&");
}

#[tokio::test]
async fn connect_by_http2_reaches_nothing() {
    let upstream = upstream(Protocols::Http2).await;
    let proxy = Builder::new(upstream.addr).start().await;
    let mut sender = client::http2::<Short>(proxy.addr, Some("alice")).await.unwrap();
    let request = http::Request::connect("smuggled:443").body(Short::default()).unwrap();
    let answer = sender.send_request(request).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status().is_client_error()));
    assert!(upstream.seen().is_empty());
}
