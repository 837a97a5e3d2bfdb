use api_client::ApiRequest;

use super::super::credentials::Credentials;
use super::*;

#[tokio::test]
async fn json_is_posted_with_own_credentials() {
    let listener = Listener::new(&["h2"]).await;
    let mut config = config(&format!("https://{}", listener.address()), &listener.ca);
    config.credentials = Some(Credentials::token("secret", "token").unwrap());
    let (upstream, _) = client(config);
    tokio::spawn(async move {
        let service = service_fn(|request: Request<Incoming>| async {
            let answer = match request.uri().path() {
                "/long" => full(vec![b'x'; (1 << 20) + 1]),
                _ => {
                    assert_eq!(request.headers()["authorization"], "Bearer secret");
                    assert_eq!(request.headers()["content-type"], "application/json");
                    let mut answer = echo(request).await;
                    *answer.status_mut() = http::StatusCode::CREATED;
                    answer
                }
            };
            Ok::<_, Infallible>(answer)
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(listener.accept().await), service)
            .await
    });
    let bearer = upstream.credential().unwrap().header.unwrap();
    assert!(bearer.is_sensitive() && bearer == "Bearer secret");
    assert!(!format!("{upstream:?}").contains("secret"));
    let post = |path| ApiRequest::post(path, Bytes::from_static(b"{}"));
    let response = upstream.api().request(&post("/x")).await.unwrap();
    assert_eq!(response.status(), 201);
    let body = response.into_body();
    assert!(body.ends_with(b"] {}"), "{body:?}");
    let error = upstream.api().request(&post("/long")).await.unwrap_err();
    assert!(error.to_string().ends_with("is longer than 1048576 bytes"), "{error}");
}
