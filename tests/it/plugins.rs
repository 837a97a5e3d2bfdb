//! Credential plugins (`users[].user.exec`): the API server receives their tokens and certificates,
//! which are renewed in time, without failures for clients.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{DEADLINE, TempDir, client, corpus, in_time};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";
const REVIEW: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Creates a plugin in `dir` that runs `script`, and records each run in the file `runs`.
fn plugin(dir: &TempDir, script: &str) {
    let folder = dir.path("").display().to_string();
    let text = format!("#!/bin/sh\ncd '{folder}'\necho run >> runs\n{script}\n");
    // The file is replaced instead of written, because a running script must not change.
    let new = dir.write("plugin.new", &text);
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, dir.path("plugin")).unwrap();
}

fn runs(dir: &TempDir) -> usize {
    std::fs::read_to_string(dir.path("runs")).unwrap_or_default().lines().count()
}

/// Returns a shell command that prints a credential; `status` is JSON in which `$…` is replaced.
fn print(status: &str) -> String {
    format!(
        "cat <<END\n{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\
         \"kind\":\"ExecCredential\",\"status\":{status}}}\nEND"
    )
}

/// Returns a kubeconfig whose user has the plugin in the same directory.
fn kubeconfig(server: std::net::SocketAddr) -> String {
    format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"https://{server}\", \
         certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, \
         command: ./plugin, interactiveMode: IfAvailable}}}}}}]\n",
        corpus::pki("ca.crt").display()
    )
}

/// Returns an API server that accepts requests whose `Authorization` satisfies `accepts`.
async fn upstream(
    protocols: Protocols,
    accepts: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> FakeUpstream {
    FakeUpstream::start(protocols, move |request| {
        let header = request.headers().get("authorization");
        let header = header.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let is_accepted = accepts(header.strip_prefix("Bearer ").unwrap_or_default());
        let is_review = request.uri().path() == REVIEW;
        async move {
            use http_body_util::BodyExt;
            let _ = request.into_body().collect().await;
            match (is_accepted, is_review) {
                (false, _) => json(401, r#"{"kind":"Status","reason":"Unauthorized","code":401}"#),
                (true, true) => {
                    json(201, r#"{"status":{"authenticated":true,"user":{"username":"reviewed"}}}"#)
                }
                (true, false) => json(200, "{}"),
            }
        }
    })
    .await
}

/// Returns an API server that accepts one token, which can be replaced.
async fn revocable(protocols: Protocols) -> (FakeUpstream, Arc<Mutex<String>>) {
    let token = Arc::new(Mutex::new("one".to_owned()));
    let accepted = Arc::clone(&token);
    (upstream(protocols, move |seen| seen == *accepted.lock().unwrap()).await, token)
}

fn builder(upstream: &FakeUpstream, script: &str) -> Builder {
    let builder = Builder::new(upstream.addr).identity("impersonate");
    plugin(builder.dir(), script);
    builder.kubeconfig(&kubeconfig(upstream.addr))
}

async fn get(proxy: &Proxy) -> u16 {
    let answer = in_time("an answer", http1::get(proxy.addr, Some("alice"), LIST, &[])).await;
    answer.unwrap().head.status
}

async fn ready(proxy: &Proxy) -> (u16, String) {
    client::admin(proxy.admin, "/readyz").await.unwrap()
}

/// Returns whether a token is current: each token is its own time of expiry.
fn is_current(token: &str) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    token.strip_prefix("t-").and_then(|time| time.parse().ok()).is_some_and(|time: u128| now < time)
}

/// Returns a token that is valid for a second.
const ONE_SECOND: &str = "e=$(( $(date +%s%N) + 1000000000 ))
t=$(date -u -d \"@$(( e / 1000000000 )).$(printf %09d $(( e % 1000000000 )))\" +%Y-%m-%dT%H:%M:%S.%NZ)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_expire_every_second_are_never_noticed_by_clients() {
    let tokens = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&tokens);
    let upstream = upstream(Protocols::Http2, move |token| {
        seen.lock().unwrap().insert(token.to_owned());
        is_current(token)
    })
    .await;
    let status = r#"{"token":"t-$e","expirationTimestamp":"$t"}"#;
    let proxy = builder(&upstream, &format!("{ONE_SECOND}{}", print(status))).start().await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (stop, sent, addr) = (Arc::clone(&stop), Arc::clone(&sent), proxy.addr);
            tokio::spawn(async move {
                let body = vec![b'x'; if number % 2 == 0 { 0 } else { 4000 }];
                let method = if body.is_empty() { "GET" } else { "POST" };
                let request = http1::request(method, LIST, &[], &body);
                let mut connection = Connection::open(addr, Some("alice")).await.unwrap();
                while !stop.load(Ordering::Relaxed) {
                    connection.send(&request).await.unwrap();
                    let answer = connection.answer(method).await.unwrap();
                    assert_eq!(answer.head.status, 200, "{method}");
                    sent.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) || tokens.lock().unwrap().len() < 4 {
        assert!(started.elapsed() < DEADLINE, "no new tokens: {:?}", tokens.lock().unwrap());
        // A client's invalid token still results in a 401 for the client.
        let request = http1::request("GET", LIST, &["Authorization: Bearer nonsense"], b"");
        let answer = http1::exchange(proxy.addr, None, &request).await.unwrap();
        assert_eq!(answer.head.status, 401);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(sent.load(Ordering::Relaxed) > 100, "{sent:?} requests");
    assert_eq!(ready(&proxy).await.0, 200);
    let denied = "kube_audit_proxy_upstream_access_denied_total{access=\"forward\"}";
    assert_eq!(proxy.metric(denied).await, 0);
}

#[tokio::test]
async fn a_rejected_token_is_renewed_and_the_request_repeated() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (upstream, accepted) = revocable(protocols).await;
        let script = print(r#"{"token":"$(cat token)"}"#);
        let builder = builder(&upstream, &script).flag("--authentication-token-review");
        builder.dir().write("token", "one");
        let proxy = builder.start().await;
        assert_eq!(get(&proxy).await, 200);
        assert_eq!(runs(&proxy.dir), 1);
        let renew = |token: &str| {
            proxy.dir.write("token", token);
            token.clone_into(&mut accepted.lock().unwrap());
        };

        renew("two");
        let body = vec![b'x'; 10_000];
        let request = http1::request("POST", LIST, &["Audit-ID: repeated"], &body);
        let answer = http1::exchange(proxy.addr, Some("alice"), &request).await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(runs(&proxy.dir), 2);
        assert_eq!(proxy.audit_log().wait_end("repeated").await.pop().unwrap().code(), 200);

        // The body of this request has been sent when the 401 arrives.
        renew("three");
        let request = http1::request("POST", LIST, &[], &vec![b'x'; 200_000]);
        let answer = http1::exchange(proxy.addr, Some("alice"), &request).await.unwrap();
        assert_eq!(answer.head.status, 503);
        assert_eq!(answer.head.get("retry-after"), "1");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("expired while this request was in flight"), "{message}");
        assert_eq!(get(&proxy).await, 200);
        assert_eq!(runs(&proxy.dir), 3);

        // The proxy's own requests renew it, too.
        renew("four");
        let request = http1::request("GET", LIST, &["Authorization: Bearer someones"], b"");
        let answer = http1::exchange(proxy.addr, None, &request).await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(runs(&proxy.dir), 4);

        // Upgrades renew the credential, too.
        renew("five");
        let lines = ["Connection: Upgrade", "Upgrade: SPDY/3.1"];
        let target = "/api/v1/namespaces/team-a/pods/p/exec?command=ls";
        let answer = http1::get(proxy.addr, Some("alice"), target, &lines).await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(runs(&proxy.dir), 5);
        assert_eq!(ready(&proxy).await.0, 200);
        // No token is ever logged.
        let log = proxy.process.stderr();
        assert!(!log.contains("four") && log.contains("returned a credential"), "{log}");
    }
}

#[tokio::test]
async fn a_401_from_an_aggregated_server_does_not_run_the_plugin() {
    let upstream = FakeUpstream::start(Protocols::Http2, |request| async move {
        let is_kubelet = request.uri().path().ends_with("/log");
        json(if is_kubelet { 401 } else { 200 }, "{}")
    })
    .await;
    let proxy = builder(&upstream, &print(r#"{"token":"one"}"#)).start().await;
    let target = "/api/v1/namespaces/team-a/pods/p/log";
    for _ in 0..3 {
        let answer = http1::get(proxy.addr, Some("alice"), target, &[]).await.unwrap();
        assert_eq!(answer.head.status, 401);
    }
    assert_eq!(runs(&proxy.dir), 1);
}

#[tokio::test]
async fn certificates_from_a_plugin_are_presented_and_replaced() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let certificate = |user: &str| {
            CertificateDer::from_pem_file(corpus::pki(&format!("{user}.crt"))).unwrap().to_vec()
        };
        let upstream = FakeUpstream::start(protocols, |_| async { json(200, "{}") }).await;
        let status = |user: &str| {
            let pem = |end: &str| {
                let text = std::fs::read_to_string(corpus::pki(&format!("{user}.{end}"))).unwrap();
                serde_json::to_string(&text).unwrap()
            };
            let (crt, key) = (pem("crt"), pem("key"));
            let ttl = "\"expirationTimestamp\":\"$t\"";
            format!("{{\"clientCertificateData\":{crt},\"clientKeyData\":{key},{ttl}}}")
        };
        // A here-document would interpret the `\n` in JSON.
        let script =
            |user: &str| format!("{ONE_SECOND}{}", print(&status(user)).replace("\\n", "\\\\n"));
        let proxy = builder(&upstream, &script("proxy-client")).start().await;
        assert_eq!(get(&proxy).await, 200);
        assert_eq!(upstream.take_seen()[0].certificate, Some(certificate("proxy-client")));
        plugin(&proxy.dir, &script("front-proxy-client"));
        let started = Instant::now();
        loop {
            assert_eq!(get(&proxy).await, 200);
            let seen = upstream.take_seen();
            assert!(seen[0].all("authorization").is_empty());
            if seen[0].certificate == Some(certificate("front-proxy-client")) {
                break;
            }
            assert!(started.elapsed() < DEADLINE, "the new certificate is never presented");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_failing_plugin_is_a_503_until_it_recovers() {
    let upstream = upstream(Protocols::Http2, |token| token == "good-token").await;
    let proxy = builder(&upstream, "echo 'login required' >&2; exit 7").start().await;
    let answer = http1::get(proxy.addr, Some("alice"), LIST, &["Audit-ID: none"]).await.unwrap();
    assert_eq!(answer.head.status, 503);
    assert_eq!(answer.head.get("retry-after"), "1");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("its credential plugin failed"), "{message}");
    assert!(!message.contains("login required"), "{message}");
    let event = proxy.audit_log().wait_end("none").await.pop().unwrap();
    assert_eq!((event.code(), event.text("/responseStatus/message")), (503, message.as_str()));
    let (status, text) = ready(&proxy).await;
    assert_eq!(status, 500);
    assert!(text.contains("[-]upstream-access failed: "), "{text}");
    assert!(text.contains("failed with exit code 7 (login required)"), "{text}");
    proxy.process.logs("credential plugin: login required").await;
    assert!(upstream.seen().is_empty(), "a request was sent without a credential");

    // The plugin returns another version than requested, and then a valid credential that it also
    // writes to standard error.
    let version = print(r#"{"token":"good-token"}"#).replace("k8s.io/v1", "k8s.io/v1beta1");
    plugin(&proxy.dir, &version);
    let mismatch = "exec plugin is configured to use API version client.authentication.k8s.io/v1, \
                    plugin returned version client.authentication.k8s.io/v1beta1";
    proxy.process.logs(mismatch).await;
    plugin(
        &proxy.dir,
        &format!("echo using good-token >&2\n{}", print(r#"{"token":"good-token"}"#)),
    );
    let started = Instant::now();
    while get(&proxy).await != 200 {
        assert!(started.elapsed() < DEADLINE, "it does not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ready(&proxy).await.0, 200);
    let log = proxy.process.logs("credential plugin: using [redacted]").await;
    assert!(!log.contains("good-token"), "{log}");
}

#[tokio::test]
async fn a_hanging_plugin_is_killed() {
    let upstream = upstream(Protocols::Http2, |_| true).await;
    let builder = builder(&upstream, "exec sleep 100").flag("--credential-plugin-timeout=300ms");
    let proxy = builder.start().await;
    assert_eq!(get(&proxy).await, 503);
    proxy.process.logs("did not finish within 300ms").await;
}

#[tokio::test]
async fn a_missing_plugin_is_reported_at_startup() {
    let upstream = upstream(Protocols::Http2, |_| true).await;
    let text = kubeconfig(upstream.addr)
        .replace("command: ./plugin", "command: no-such-plugin, installHint: run apt install it");
    let (code, log) = Builder::new(upstream.addr).kubeconfig(&text).run_to_end().await;
    assert_eq!(code, Some(1), "{log}");
    let wanted = "users[u].user.exec.command: exec: executable no-such-plugin not found";
    assert!(log.contains(wanted) && log.contains("install it: run apt install it"), "{log}");
}
