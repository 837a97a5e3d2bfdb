//! The search order and merging of kubeconfigs, and the connection settings of a cluster: proxies,
//! other names, no verification.

use std::net::SocketAddr;

use crate::support::http1;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{FakeUpstream, Protocols, json};
use crate::support::{TempDir, corpus, in_time};
use crate::webhook_client::{connect_proxy, socks_proxy};

const LIST: &str = "/api/v1/namespaces/team-a/configmaps";

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

async fn get(proxy: &Proxy) -> u16 {
    let answer = in_time("an answer", http1::get(proxy.addr, Some("alice"), LIST, &[])).await;
    answer.unwrap().head.status
}

/// Returns a kubeconfig with `more` in its cluster.
fn kubeconfig(server: &str, more: &str) -> String {
    let ca = match more.contains("insecure") {
        true => String::new(),
        false => format!(", certificate-authority: \"{}\"", corpus::pki("ca.crt").display()),
    };
    format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"https://{server}\"{ca}{more}}}}}]\n\
         users: [{{name: u, user: {{token: mine}}}}]\n"
    )
}

#[tokio::test]
async fn files_of_the_environment_are_merged_and_followed() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    std::fs::create_dir_all(dir.path("a")).unwrap();
    let first = dir.write("a/config", "contexts: [{name: c, context: {cluster: k, user: u}}]\nusers: [{name: u, user: {tokenFile: token}}]\n");
    dir.write("a/token", "first-wins");
    let second = dir.write("second", &kubeconfig(&upstream.addr.to_string(), ""));
    let missing = dir.path("missing");
    let list = format!("{}:{}:{}", missing.display(), first.display(), second.display());
    let mut builder = Builder::new(upstream.addr).identity("impersonate").no_upstream();
    builder = builder.env("KUBECONFIG", &list).env("HOME", "/nowhere");
    let proxy = builder.start().await;
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(upstream.take_seen()[0].all("authorization"), ["Bearer first-wins"]);

    // A rotated token is used before anyone notices.
    dir.write("a/token", "rotated");
    until_token(&proxy, &upstream, "rotated").await;
    // A file that is created later takes precedence.
    std::fs::write(&missing, "users: [{name: u, user: {token: appeared}}]").unwrap();
    until_token(&proxy, &upstream, "appeared").await;
}

async fn until_token(proxy: &Proxy, upstream: &FakeUpstream, token: &str) {
    let started = std::time::Instant::now();
    loop {
        upstream.take_seen();
        assert_eq!(get(proxy).await, 200);
        let wanted = format!("Bearer {token}");
        if upstream.take_seen()[0].all("authorization") == [wanted.as_str()] {
            return;
        }
        assert!(started.elapsed() < crate::support::DEADLINE, "{token} is never used");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_kubeconfig_of_the_home_directory_is_the_default() {
    let (upstream, home) = (upstream().await, TempDir::new());
    std::fs::create_dir_all(home.path(".kube")).unwrap();
    home.write(".kube/config", &kubeconfig(&upstream.addr.to_string(), ""));
    let home_path = home.path("").display().to_string();
    let builder = || {
        let builder = Builder::new(upstream.addr).identity("impersonate");
        builder.no_upstream().env("KUBECONFIG", "").env("HOME", &home_path)
    };
    let proxy = builder().start().await;
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(upstream.take_seen()[0].all("authorization"), ["Bearer mine"]);
    proxy.process.logs("using the kubeconfig").await;

    let (code, log) = builder().flag("--context=other").run_to_end().await;
    assert_eq!(code, Some(1));
    let file = home.path(".kube/config");
    let wanted =
        format!("{}: contexts: has no \"other\"; choose with --context one of c", file.display());
    assert!(log.contains(&wanted), "{log}");

    // Flags alone do not cause the default kubeconfig to be loaded.
    let server = format!("--upstream-server=https://{}", upstream.addr);
    let ca = format!("--upstream-ca-file={}", corpus::pki("ca.crt").display());
    let proxy = builder().flag(&server).flag(&ca).start().await;
    assert_eq!(get(&proxy).await, 200);
    assert!(upstream.take_seen()[0].all("authorization").is_empty());

    std::fs::remove_file(file).unwrap();
    let (code, log) = builder().run_to_end().await;
    assert_eq!(code, Some(1));
    assert!(
        log.contains("no API server is configured: give --kubeconfig or --upstream-server"),
        "{log}"
    );
}

#[tokio::test]
async fn an_api_server_behind_a_proxy_is_reached() {
    let upstream = upstream().await;
    let (plain, plain_heard) = connect_proxy(false).await;
    let (tls, tls_heard) = connect_proxy(true).await;
    let (socks, socks_heard) = socks_proxy().await;
    for (url, heard) in [
        (format!("http://user:p%40ss@{plain}"), Some(plain_heard)),
        (format!("https://user:p%40ss@localhost:{}", tls.port()), Some(tls_heard)),
        (format!("socks5://{socks}"), Some(socks_heard)),
        (format!("http://user:wrong-one@{plain}"), None),
    ] {
        let text = kubeconfig(&upstream.addr.to_string(), &format!(", proxy-url: \"{url}\""));
        let builder = Builder::new(upstream.addr).identity("impersonate").kubeconfig(&text);
        let proxy = builder.flag("--authentication-token-review").start().await;
        upstream.take_seen();
        match heard {
            Some(heard) => {
                assert_eq!(get(&proxy).await, 200, "{url}");
                assert!(!heard.lock().unwrap().is_empty(), "{url}");
                let seen = upstream.take_seen();
                assert_eq!(seen[0].version, http::Version::HTTP_2);
                // The proxy's own requests use the same proxy.
                let before = heard.lock().unwrap().len();
                let request = http1::request("GET", LIST, &["Authorization: Bearer x"], b"");
                http1::exchange(proxy.addr, None, &request).await.unwrap();
                assert!(upstream.take_seen()[0].target.ends_with("/tokenreviews"));
                assert!(heard.lock().unwrap().len() >= before);
            }
            None => {
                assert_eq!(get(&proxy).await, 503);
                let log = proxy.process.logs("407 Proxy Authentication Required").await;
                assert!(!log.contains("wrong-one"), "{log}");
            }
        }
    }
}

#[tokio::test]
async fn certificates_for_another_name_and_unverified_ones() {
    let upstream = upstream().await;
    // The certificate is for localhost and 127.0.0.1, not for this address.
    let other = SocketAddr::from(([127, 0, 0, 2], upstream.addr.port()));
    let relay = tokio::net::TcpListener::bind(other).await.unwrap();
    let target = upstream.addr;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = relay.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    for (more, expected) in [
        ("", 503),
        (", tls-server-name: localhost", 200),
        (", insecure-skip-tls-verify: true", 200),
    ] {
        let text = kubeconfig(&other.to_string(), more);
        let builder = Builder::new(upstream.addr).identity("impersonate").kubeconfig(&text);
        let proxy = builder.start().await;
        assert_eq!(get(&proxy).await, expected, "{more:?}");
        let is_warned = proxy
            .process
            .stderr()
            .contains("TLS certificate verification is disabled for the API server");
        assert_eq!(is_warned, more.contains("insecure"), "{more:?}");
    }
}
