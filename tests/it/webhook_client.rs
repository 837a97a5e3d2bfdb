//! Connections to the webhook endpoint, and the effects of its responses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::proxy::{Builder, Proxy, resident};
use crate::support::upstream::{FakeUpstream, Protocols, json, streamed};
use crate::support::{DEADLINE, TempDir, client, corpus, http1, wait_for};
use crate::webhook::{Taken, arrived, kubeconfig, receiver_of, taker};

const WEBHOOK: &str = "apiserver_audit_error_total{plugin=\"webhook\"}";

async fn upstream() -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, |_| async { json(200, "{}") }).await
}

async fn get(proxy: &Proxy, id: &str) -> u16 {
    let line = format!("Audit-ID: {id}");
    let answer = http1::get(proxy.addr, Some("alice"), "/api/v1/pods", &[&line]).await;
    answer.unwrap().head.status
}

fn quick(upstream: &FakeUpstream, config: &str) -> Builder {
    Builder::new(upstream.addr)
        .flag(config)
        .flag("--audit-webhook-initial-backoff=1ms")
        .flag("--audit-webhook-batch-max-wait=10ms")
        .flag("--audit-webhook-batch-throttle-enable=false")
}

#[tokio::test]
async fn http2_is_used_if_offered() {
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http2, taker(&taken)).await;
    let mut proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr)).start().await;
    assert_eq!(get(&proxy, "h2-0").await, 200);
    assert!(proxy.stop().await.success());
    assert_eq!(arrived(&taken, "h2-", 1), [2]);
    assert!(receiver.seen().iter().all(|seen| seen.version == http::Version::HTTP_2));
}

/// Certificates are reloaded every ten seconds.
#[tokio::test]
async fn a_client_certificate_that_is_replaced_is_presented() {
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http2, taker(&taken)).await;
    let put = |name: &str| {
        for extension in ["crt", "key"] {
            let from = corpus::pki(&format!("{name}.{extension}"));
            std::fs::copy(from, dir.path(&format!("client.{extension}"))).unwrap();
        }
    };
    put("front-proxy-client");
    let mut config = receiver_of(receiver.addr);
    for extension in ["crt", "key"] {
        let old = corpus::pki(&format!("front-proxy-client.{extension}")).display().to_string();
        config = config.replace(&old, &format!("client.{extension}"));
    }
    let flag = format!("--audit-webhook-config-file={}", dir.write("w.conf", &config).display());
    let proxy = quick(&upstream, &flag).start().await;
    assert_eq!(get(&proxy, "rotated-0").await, 200);
    wait_for("the first", || (!receiver.seen().is_empty()).then_some(())).await;
    let first = receiver.take_seen().remove(0).certificate;
    put("proxy-client");
    let started = Instant::now();
    let mut number = 1;
    loop {
        assert_eq!(get(&proxy, &format!("rotated-{number}")).await, 200);
        number += 1;
        if receiver.seen().iter().any(|seen| seen.certificate != first) {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "the old one is still presented");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(proxy.metric(WEBHOOK).await, 0);
}

/// What an HTTP or SOCKS proxy has received on each connection, before it relays bytes.
pub type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// Returns a proxy for `CONNECT`, optionally over TLS, that requires a password.
pub async fn connect_proxy(tls: bool) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, heard) = (listener.local_addr().unwrap(), Heard::default());
    let seen = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                if tls {
                    connected(corpus_tls().accept(stream).await.unwrap(), seen).await;
                } else {
                    connected(stream, seen).await;
                }
            });
        }
    });
    (addr, heard)
}

fn corpus_tls() -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(corpus::pki("apiserver.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(corpus::pki("apiserver.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap()).into()
}

async fn connected(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    heard: Heard,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head.clone()).unwrap();
    heard.lock().unwrap().push(head);
    // "user:p@ss"
    if !text.contains("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n") {
        let _ = stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        return;
    }
    let target = text.split(' ').nth(1).unwrap();
    let mut target = TcpStream::connect(target).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut target).await;
}

/// Returns a SOCKS5 proxy without authentication.
pub async fn socks_proxy() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, heard) = (listener.local_addr().unwrap(), Heard::default());
    let seen = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 10];
            stream.read_exact(&mut request).await.unwrap();
            seen.lock().unwrap().push([greeting.to_vec(), request.to_vec()].concat());
            assert_eq!(request[3], 1, "an address");
            let ip: [u8; 4] = request[4..8].try_into().unwrap();
            let port = u16::from_be_bytes([request[8], request[9]]);
            let mut target = TcpStream::connect(SocketAddr::from((ip, port))).await.unwrap();
            stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 1]).await.unwrap();
            tokio::spawn(async move {
                let _ = copy_bidirectional(&mut stream, &mut target).await;
            });
        }
    });
    (addr, heard)
}

#[tokio::test]
async fn a_proxy_that_the_kubeconfig_names_is_used() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let (plain, plain_heard) = connect_proxy(false).await;
    let (tls, tls_heard) = connect_proxy(true).await;
    let (socks, socks_heard) = socks_proxy().await;
    let cases = [
        (format!("http://user:p%40ss@{plain}"), Some(plain_heard)),
        (format!("https://user:p%40ss@localhost:{}", tls.port()), Some(tls_heard)),
        (format!("socks5://{socks}"), Some(socks_heard)),
        (format!("http://user:wrong@{plain}"), None),
    ];
    for (url, heard) in cases {
        let taken = Taken::default();
        let receiver = FakeUpstream::start(Protocols::Http2, taker(&taken)).await;
        let config = receiver_of(receiver.addr)
            .replace("cluster: {server:", &format!("cluster: {{proxy-url: \"{url}\", server:"));
        let flag = format!("--audit-webhook-config-file={}", dir.write("w", &config).display());
        let mut proxy = quick(&upstream, &flag).start().await;
        assert_eq!(get(&proxy, "via-0").await, 200);
        assert!(proxy.stop().await.success());
        let said = proxy.process.stderr();
        let Some(heard) = heard else {
            assert_eq!(arrived(&taken, "via-", 1), [0]);
            assert!(said.contains("407 Proxy Authentication Required"), "{said}");
            assert!(!said.contains("wrong"), "{said}");
            continue;
        };
        assert_eq!(arrived(&taken, "via-", 1), [2], "{url}: {said}");
        assert!(receiver.seen().iter().all(|seen| seen.version == http::Version::HTTP_2));
        let heard = heard.lock().unwrap();
        let (first, addr) = (heard[0].clone(), receiver.addr);
        if url.starts_with("socks5") {
            let [high, low] = addr.port().to_be_bytes();
            assert_eq!(first, [5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, high, low]);
        } else {
            let text = String::from_utf8(first).unwrap();
            let expected = format!("CONNECT {addr} HTTP/1.1\r\nHost: {addr}\r\n");
            assert!(text.starts_with(&expected), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_without_end_is_not_read() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (upstream, dir) = (upstream().await, TempDir::new());
        let sent = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (count, end) = (sent.clone(), ended.clone());
        let receiver = FakeUpstream::start(protocols, move |_| {
            let (count, end) = (count.clone(), end.clone());
            async move {
                let (sender, body) = streamed();
                tokio::spawn(async move {
                    let piece = Bytes::from(vec![b'x'; 64 << 10]);
                    while sender.send(Ok(Frame::data(piece.clone()))).await.is_ok() {
                        count.fetch_add(piece.len(), Ordering::Relaxed);
                    }
                    end.store(true, Ordering::Relaxed);
                });
                Ok(Response::new(body))
            }
        })
        .await;
        let mut proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr)).start().await;
        let before = resident(proxy.process.id());
        assert_eq!(get(&proxy, "endless-0").await, 200);
        wait_for("the end of the connection or stream", || {
            ended.load(Ordering::Relaxed).then_some(())
        })
        .await;
        let grown = resident(proxy.process.id()).saturating_sub(before);
        assert!(grown < 32 << 20, "grown by {grown}");
        assert!(sent.load(Ordering::Relaxed) < 64 << 20, "{sent:?}");
        assert!(proxy.stop().await.success());
        let events = "kube_audit_proxy_delivery_events_total";
        assert!(!proxy.process.stderr().contains("Error in audit plugin"), "{events}");
    }
}

#[tokio::test]
async fn a_permanent_redirect_is_reported_as_an_error() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, |_| async {
        let mut response = json(308, "")?;
        let to = "https://new.example/events?secret=1".parse()?;
        response.headers_mut().insert("location", to);
        Ok(response)
    })
    .await;
    let mut proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr)).start().await;
    assert_eq!(get(&proxy, "moved-0").await, 200);
    wait_for("the loss", || {
        proxy.process.stderr().contains("Error in audit plugin 'webhook'").then_some(())
    })
    .await;
    assert!(proxy.stop().await.success());
    let said = proxy.process.stderr();
    let expected = "it redirects permanently (308 Permanent Redirect) to https://new.example/events; \
                    redirects are not followed, so set `server`";
    assert!(said.contains(expected) && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_list_that_is_too_large_is_halved_without_a_spool_too() {
    const COUNT: usize = 8;
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let kept = taken.clone();
    let receiver = FakeUpstream::start(Protocols::Http1, move |request| {
        let kept = kept.clone();
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let list: serde_json::Value = serde_json::from_slice(&body)?;
            let items = list["items"].as_array().ok_or("no items")?;
            if items.len() > 3 || items.iter().any(|item| item["auditID"] == "halved-5") {
                return json(413, "");
            }
            kept.lock().unwrap().push(list);
            json(200, "")
        }
    })
    .await;
    let mut proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-max-wait=1h")
        .start()
        .await;
    for number in 0..COUNT {
        assert_eq!(get(&proxy, &format!("halved-{number}")).await, 200);
    }
    assert!(proxy.stop().await.success());
    assert_eq!(arrived(&taken, "halved-", COUNT), [2, 2, 2, 2, 2, 0, 2, 2]);
    let said = proxy.process.stderr();
    let expected =
        "Error in audit plugin 'webhook' affecting 2 audit events: it responded with 413";
    assert!(said.contains(expected), "{said}");
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
    let (take, until) = (taker(&taken), Arc::new(Mutex::new(None::<SystemTime>)));
    let date = until.clone();
    let receiver = FakeUpstream::start(Protocols::Http1, move |request| {
        let first = date.lock().unwrap().is_none();
        let taking = (!first).then(|| take(request));
        let date = date.clone();
        async move {
            let Some(taking) = taking else {
                let until = SystemTime::now() + Duration::from_secs(3);
                let text = httpdate::fmt_http_date(until);
                *date.lock().unwrap() = Some(httpdate::parse_http_date(&text)?);
                let mut response = json(503, "")?;
                response.headers_mut().insert("retry-after", text.parse()?);
                return Ok(response);
            };
            taking.await
        }
    })
    .await;
    // One batch, so that the second request is the second attempt.
    let mut proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-max-wait=1h")
        .flag("--audit-webhook-batch-max-size=2")
        .start()
        .await;
    assert_eq!(get(&proxy, "later-0").await, 200);
    wait_for("the second attempt", || (receiver.seen().len() >= 2).then_some(())).await;
    let late = SystemTime::now().duration_since(until.lock().unwrap().unwrap());
    assert!(late.is_ok(), "it comes before the date: {late:?}");
    assert!(proxy.stop().await.success());
    assert_eq!(arrived(&taken, "later-", 1), [2]);
}

#[tokio::test]
async fn the_losses_of_a_burst_are_logged_completely_while_it_runs() {
    let (upstream, dir) = (upstream().await, TempDir::new());
    let receiver = FakeUpstream::start(Protocols::Http1, |_| async { json(500, "") }).await;
    let proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr))
        .flag("--audit-webhook-batch-max-size=1")
        .start()
        .await;
    for number in 0..50 {
        assert_eq!(get(&proxy, &format!("burst-{number}")).await, 200);
    }
    let told = || -> usize {
        let said = proxy.process.stderr();
        let lines = said.lines().filter_map(|line| {
            let (_, rest) = line.split_once("Error in audit plugin 'webhook' affecting ")?;
            assert!(line.contains("sink=\"webhook\""), "{line}");
            rest.split(' ').next()?.parse::<usize>().ok()
        });
        lines.sum()
    };
    wait_for("all losses in the log", || (told() == 100).then_some(())).await;
    assert_eq!(proxy.metric(WEBHOOK).await, 100);
    let healthy = "kube_audit_proxy_backend_healthy{backend=\"webhook\"}";
    assert_eq!(proxy.metric(healthy).await, 0);
    // No request waits for it: it is a condition, and the proxy stays ready.
    let (code, text) = client::admin(proxy.admin, "/readyz?verbose").await.unwrap();
    let line = "[-]audit-webhook failed: the webhook does not accept events: it responded with 500";
    assert!(code == 200 && text.contains(line) && text.contains("(ignored: batch mode"), "{text}");
}

#[tokio::test]
async fn readyz_reports_a_hanging_blocking_webhook_within_its_timeout() {
    for mode in ["blocking", "blocking-strict"] {
        let (upstream, taken, dir) = (upstream().await, Taken::default(), TempDir::new());
        let hangs = Arc::new(AtomicBool::new(false));
        let (take, hanging) = (taker(&taken), hangs.clone());
        let receiver = FakeUpstream::start(Protocols::Http2, move |request| {
            let (taking, hanging) = (take(request), hanging.clone());
            async move {
                while hanging.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                taking.await
            }
        })
        .await;
        let proxy = quick(&upstream, &kubeconfig(&dir, receiver.addr))
            .flag(&format!("--audit-webhook-mode={mode}"))
            .start()
            .await;
        assert_eq!(get(&proxy, "before").await, 200);
        assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap(), (200, "ok".into()));
        hangs.store(true, Ordering::Relaxed);
        let addr = proxy.addr;
        let waiting = tokio::spawn(async move {
            let lines = ["Audit-ID: waits"];
            http1::get(addr, Some("alice"), "/api/v1/pods", &lines).await.unwrap().head.status
        });
        let sent = receiver.seen().len();
        wait_for("the event", || (receiver.seen().len() > sent).then_some(())).await;
        let asked = Instant::now();
        let (code, text) = client::admin(proxy.admin, "/readyz").await.unwrap();
        assert_eq!(code, 500, "{mode}: {text}");
        assert!(text.contains("audit-webhook failed: the webhook has not responded for"), "{text}");
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        hangs.store(false, Ordering::Relaxed);
        assert_eq!(waiting.await.unwrap(), 200);
        assert_eq!(client::admin(proxy.admin, "/readyz").await.unwrap(), (200, "ok".into()));
        drop(receiver);
        let started = Instant::now();
        loop {
            let (code, text) = client::admin(proxy.admin, "/readyz").await.unwrap();
            if code == 500 && text.contains("audit-webhook failed: the webhook cannot be reached") {
                break;
            }
            assert!(started.elapsed() < DEADLINE, "{mode}: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
