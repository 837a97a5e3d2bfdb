//! Kubeconfigs whose credentials change: used without a restart, and on SIGHUP.

use bytes::Bytes;
use http::Response;
use hyper::body::Frame;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::http1::{self, Connection};
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json, streamed};
use crate::support::{TempDir, corpus, in_time, wait_for};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const WATCH: &str = "/api/v1/namespaces/team-a/configmaps?watch=true";

fn base64(file: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(std::fs::read(corpus::pki(file)).unwrap())
}

/// Returns a kubeconfig for `server` with a client certificate of the corpus inside it.
fn kubeconfig(server: std::net::SocketAddr, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"https://{server}\", \
         insecure-skip-tls-verify: null, certificate-authority-data: {}}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        base64("ca.crt"),
        base64(&format!("{user}.crt")),
        base64(&format!("{user}.key")),
    )
}

fn certificate(user: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(corpus::pki(&format!("{user}.crt"))).unwrap().to_vec()
}

/// Returns an API server whose watches send one event and then stay open.
async fn upstream(protocols: Protocols) -> FakeUpstream {
    FakeUpstream::start(protocols, |request| async move {
        if request.uri().query().is_none() {
            return json(200, "{}");
        }
        let (sender, body) = streamed();
        tokio::spawn(async move {
            let piece = Bytes::from_static(b"{\"type\":\"ADDED\"}\n");
            let _ = sender.send(Ok(Frame::data(piece))).await;
            sender.closed().await;
        });
        Ok(Response::new(body))
    })
    .await
}

async fn get(proxy: &Proxy) {
    let answer = in_time("an answer", http1::get(proxy.addr, Some("alice"), TARGET, &[])).await;
    assert_eq!(answer.unwrap().head.status, 200);
}

/// Sends requests until one arrives at `upstream` with this certificate.
async fn until_used(proxy: &Proxy, upstream: &FakeUpstream, user: &str) {
    let (wanted, start) = (certificate(user), std::time::Instant::now());
    loop {
        upstream.take_seen();
        get(proxy).await;
        if upstream.take_seen().iter().any(|seen| seen.certificate.as_ref() == Some(&wanted)) {
            return;
        }
        assert!(start.elapsed() < crate::support::DEADLINE, "{user} is never used");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn renewed_credentials_are_used_and_requests_in_flight_continue() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = upstream(protocols).await;
        let text = kubeconfig(upstream.addr, "proxy-client");
        let proxy = Builder::new(upstream.addr).kubeconfig(&text).start().await;
        until_used(&proxy, &upstream, "proxy-client").await;
        let mut watch = Connection::open(proxy.addr, Some("alice")).await.unwrap();
        watch.send(&http1::request("GET", WATCH, &[], b"")).await.unwrap();
        assert_eq!(watch.head().await.unwrap().status, 200);
        watch.chunk().await.unwrap();

        proxy.dir.write("kubeconfig", &kubeconfig(upstream.addr, "front-proxy-client"));
        until_used(&proxy, &upstream, "front-proxy-client").await;
        let reloads = "kube_audit_proxy_reloads_total{file=\"kubeconfig\",result=\"success\"}";
        assert_eq!(proxy.metric(reloads).await, 1);
        let more = tokio::time::timeout(std::time::Duration::from_millis(200), watch.chunk());
        assert!(more.await.is_err(), "the watch was broken off");
    }
}

#[tokio::test]
async fn an_invalid_kubeconfig_is_rejected_and_a_new_server_is_used() {
    let (first, second) = (upstream(Protocols::Http2).await, upstream(Protocols::Http2).await);
    let text = kubeconfig(first.addr, "proxy-client");
    let proxy = Builder::new(first.addr).kubeconfig(&text).start().await;
    proxy.dir.write("kubeconfig", &text[..text.len() / 2]);
    wait_for("the complaint", || {
        proxy.process.stderr().contains("kubeconfig not reloaded").then_some(())
    })
    .await;
    get(&proxy).await;
    let failures = "kube_audit_proxy_reloads_total{file=\"kubeconfig\",result=\"failure\"}";
    assert_eq!(proxy.metric(failures).await, 1);
    assert!(!proxy.process.stderr().contains(&base64("proxy-client.key")[..40]));

    proxy.dir.write("kubeconfig", &kubeconfig(second.addr, "proxy-client"));
    proxy.process.signal("HUP");
    until_used(&proxy, &second, "proxy-client").await;
    first.take_seen();
    get(&proxy).await;
    assert!(first.seen().is_empty(), "the old address is still in use");
}

#[tokio::test]
async fn files_and_tokens_of_a_kubeconfig_are_reloaded() {
    let upstream = upstream(Protocols::Http2).await;
    let dir = TempDir::new();
    let copy = |user: &str| {
        for end in ["crt", "key"] {
            std::fs::copy(corpus::pki(&format!("{user}.{end}")), dir.path(&format!("c.{end}")))
                .unwrap();
        }
    };
    copy("proxy-client");
    let text = |token: &str| {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: \"https://{}\", \
             certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: u, user: {{client-certificate: \"{}\", client-key: \"{}\", \
             token: {token}}}}}]\n",
            upstream.addr,
            corpus::pki("ca.crt").display(),
            dir.path("c.crt").display(),
            dir.path("c.key").display(),
        )
    };
    let proxy = Builder::new(upstream.addr)
        .identity("impersonate")
        .kubeconfig(&text("first"))
        .start()
        .await;
    until_used(&proxy, &upstream, "proxy-client").await;
    copy("front-proxy-client");
    until_used(&proxy, &upstream, "front-proxy-client").await;
    proxy.dir.write("kubeconfig", &text("second"));
    let start = std::time::Instant::now();
    loop {
        upstream.take_seen();
        get(&proxy).await;
        if upstream.take_seen().iter().any(|seen| seen.all("authorization") == ["Bearer second"]) {
            break;
        }
        assert!(start.elapsed() < crate::support::DEADLINE, "the new token is never used");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_audit_webhook_follows_its_kubeconfig() {
    let upstream = upstream(Protocols::Http2).await;
    let (first, second) = (
        FakeUpstream::start(Protocols::Http1, |_| async { json(200, "") }).await,
        FakeUpstream::start(Protocols::Http1, |_| async { json(200, "") }).await,
    );
    let text = |server: std::net::SocketAddr, path: &str, token: &str| {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: \"https://{server}{path}\", \
             certificate-authority-data: {}}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n",
            base64("ca.crt")
        )
    };
    let builder = Builder::new(upstream.addr);
    let file = builder.dir().write("webhook.conf", &text(first.addr, "/a", "one"));
    let proxy = builder
        .flag(&format!("--audit-webhook-config-file={}", file.display()))
        .flag("--audit-webhook-mode=blocking")
        .start()
        .await;
    get(&proxy).await;
    assert_eq!(first.take_seen()[0].target, "/a?timeout=30s");
    proxy.dir.write("webhook.conf", &text(second.addr, "/b", "two"));
    let reloads =
        "kube_audit_proxy_reloads_total{file=\"audit_webhook_config\",result=\"success\"}";
    while proxy.metric(reloads).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    first.take_seen();
    get(&proxy).await;
    let seen = second.take_seen();
    assert_eq!(seen[0].target, "/b?timeout=30s");
    assert_eq!(seen[0].all("authorization"), ["Bearer two"]);
    assert!(first.seen().is_empty());
}
