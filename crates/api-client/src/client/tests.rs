use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::config::ClientConfig;
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;

/// Returns a server in plain text that breaks the first `broken` connections after the request's
/// head.
async fn server(broken: usize, body: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prefix", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let number = counted.fetch_add(1, Ordering::SeqCst);
                    async move {
                        if number < broken {
                            return Err("broken".to_owned());
                        }
                        let header = request.headers().get(AUTHORIZATION).cloned();
                        let mut response = Response::new(Full::new(Bytes::from_static(body)));
                        response
                            .headers_mut()
                            .insert("x-path", request.uri().path().parse().unwrap());
                        if let Some(header) = header {
                            response.headers_mut().insert("x-authorization", header);
                        }
                        Ok(response)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tcp), service)
                    .await;
            });
        }
    });
    (url, requests)
}

fn config(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new(Endpoint::parse(url, "url").unwrap());
    config.credentials = Some(Credentials::token("secret", "token").unwrap());
    config
}

fn client(url: &str) -> ApiClient {
    ApiClient::over(Arc::new(Target::new(config(url)).unwrap()), "the server")
}

fn get(path: &str) -> ApiRequest<'_> {
    ApiRequest::get(path)
}

#[tokio::test]
async fn paths_and_credentials() {
    let (url, _) = server(0, b"hello").await;
    let response = client(&url).request(&get("/path?a=b")).await.unwrap();
    assert_eq!(response.body().as_ref(), b"hello");
    assert_eq!(response.headers()["x-path"], "/prefix/path");
    assert_eq!(response.headers()["x-authorization"], "Bearer secret");
    let webhook = ApiClient::new(config(&url), "the webhook").unwrap();
    assert_eq!(&*webhook.path(), "/prefix");
    let response = webhook.request(&get("/prefix?timeout=1s")).await.unwrap();
    assert_eq!(response.headers()["x-path"], "/prefix");
    webhook.check().await.unwrap();
    let (other, _) = server(0, b"other").await;
    webhook.replace(config(&other.replace("prefix", "new"))).unwrap();
    assert_eq!(&*webhook.path(), "/new");
    let response = webhook.request(&get(&format!("{url}/x"))).await.unwrap();
    assert_eq!(response.body().as_ref(), b"hello");
    let error = client(&url).request(&get("no path")).await.unwrap_err();
    assert_eq!(error.to_string(), "no path: is not a path");
}

#[tokio::test]
async fn a_lost_request_is_repeated_once() {
    let (url, requests) = server(1, b"").await;
    client(&url).request(&get("/")).await.unwrap();
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    let (url, requests) = server(10, b"").await;
    let error = client(&url).request(&get("/")).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    assert!(error.to_string().contains("broke before the response"), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    let (url, requests) = server(10, b"").await;
    let error = client(&url).send(Request::new(Bytes::new())).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn errors_name_the_peer_and_not_the_token() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut request = get("/");
    request.timeout = Duration::from_millis(50);
    let error = client(&format!("http://{address}")).request(&request).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no response from {address} in 50ms"));
    assert_eq!(&*error.peer, address.to_string());
    drop(silent);
    let error = client(&format!("http://{address}")).request(&get("/")).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot connect to {address}: ")), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let (url, _) = server(0, &[b'x'; MAX_RESPONSE + 1]).await;
    let error = client(&url).request(&get("/")).await.unwrap_err();
    assert!(error.to_string().ends_with("is longer than 1048576 bytes"), "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}
