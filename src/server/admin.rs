//! The admin port: health and metrics, over plain HTTP and on loopback by default.
//!
//! `/healthz`, `/livez` and `/readyz` answer as kube-apiserver's do: `ok`, or with `?verbose` a line
//! for each check; 500 and the lines where a check fails. `/metrics` is Prometheus text.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::listener::accept;
use super::shutdown::{Phase, Running};
use crate::metrics::Metrics;

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A part of the process that can be in order or not.
pub struct Check {
    name: &'static str,
    /// Whether the process is no use without it even after waiting, and had better be restarted.
    vital: bool,
    check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Check {
    /// A check of `/readyz`: where it fails, no requests should be sent here.
    pub fn ready(
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Check {
        Check { name, vital: false, check: Box::new(check) }
    }

    /// A check of `/healthz`, `/livez` and `/readyz`: where it fails, a restart is called for.
    pub fn vital(
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Check {
        Check { name, vital: true, check: Box::new(check) }
    }
}

/// What the admin port tells of.
pub struct Admin {
    metrics: Arc<Metrics>,
    checks: Vec<Check>,
}

impl Admin {
    /// Tells of `metrics` and `checks`, the latter in the order given.
    pub fn new(metrics: Arc<Metrics>, checks: Vec<Check>) -> Admin {
        Admin { metrics, checks }
    }

    fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
        let health = |ready| self.health(path, ready, is_verbose(query));
        let (status, content_type, body) = match path {
            "/healthz" | "/livez" | "/readyz" if !is_read(method) => return not_allowed(),
            "/metrics" if !is_read(method) => return not_allowed(),
            "/healthz" | "/livez" => health(false),
            "/readyz" => health(true),
            "/metrics" => {
                (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
            }
            _ => (StatusCode::NOT_FOUND, PLAIN, "404 page not found\n".to_owned()),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        response
    }

    fn health(&self, path: &str, ready: bool, verbose: bool) -> (StatusCode, &'static str, String) {
        let name = &path[1..];
        let mut lines = "[+]ping ok\n".to_owned();
        let mut failed = false;
        for check in self.checks.iter().filter(|check| ready || check.vital) {
            let name = check.name;
            let _ = match (check.check)() {
                Ok(()) => writeln!(lines, "[+]{name} ok"),
                Err(reason) => {
                    failed = true;
                    writeln!(lines, "[-]{name} failed: {reason}")
                }
            };
        }
        if failed {
            (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{lines}{name} check failed\n"))
        } else if verbose {
            (StatusCode::OK, PLAIN, format!("{lines}{name} check passed\n"))
        } else {
            (StatusCode::OK, PLAIN, "ok".to_owned())
        }
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("405 method not allowed\n"));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn is_verbose(query: Option<&str>) -> bool {
    query
        .is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")))
}

/// Answers on `listener` until the process ends: while it drains, it still tells that it does.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, mut ended: Running) {
    loop {
        let tcp = tokio::select! {
            (tcp, _) = accept(&listener) => tcp,
            () = ended.reached(Phase::Ending) => return,
        };
        tokio::spawn(connection(tcp, admin.clone(), ended.clone()));
    }
}

async fn connection(tcp: TcpStream, admin: Arc<Admin>, mut ended: Running) {
    let service = service_fn(move |request: Request<_>| {
        let uri = request.uri();
        let response = admin.answer(request.method(), uri.path(), uri.query());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .half_close(false)
            .serve_connection(TokioIo::new(tcp), service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ended.reached(Phase::Ending) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::server::shutdown::Shutdown;

    async fn ask(admin: &Admin, method: Method, target: &str) -> (u16, String) {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let response = admin.answer(&method, path, query);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn admin() -> (Admin, Arc<AtomicBool>) {
        let broken = Arc::new(AtomicBool::new(false));
        let seen = broken.clone();
        let upstream = move || {
            if seen.load(Ordering::Relaxed) { Err("refused".to_owned()) } else { Ok(()) }
        };
        let checks = vec![Check::vital("sink", || Ok(())), Check::ready("upstream", upstream)];
        (Admin::new(Arc::default(), checks), broken)
    }

    #[tokio::test]
    async fn health_is_written_as_kube_apiserver_writes_it() {
        let (admin, broken) = admin();
        let get = |target| ask(&admin, Method::GET, target);
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(get(path).await, (200, "ok".into()));
        }
        let verbose = "[+]ping ok\n[+]sink ok\n[+]upstream ok\nreadyz check passed\n";
        assert_eq!(get("/readyz?verbose").await, (200, verbose.into()));
        broken.store(true, Ordering::Relaxed);
        let failed = "[+]ping ok\n[+]sink ok\n[-]upstream failed: refused\nreadyz check failed\n";
        assert_eq!(get("/readyz").await, (500, failed.into()));
        let live = "[+]ping ok\n[+]sink ok\nlivez check passed\n";
        assert_eq!(get("/livez?verbose=1").await, (200, live.into()));
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        let (admin, _) = admin();
        assert_eq!(ask(&admin, Method::GET, "/debug").await.0, 404);
        assert_eq!(ask(&admin, Method::POST, "/metrics").await.0, 405);
        assert_eq!(ask(&admin, Method::DELETE, "/readyz").await.0, 405);
        let (status, text) = ask(&admin, Method::GET, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("apiserver_audit_event_total 0"));
    }

    #[tokio::test]
    async fn answers_while_draining_and_ends_with_the_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (shutdown, running) = Shutdown::new();
        tokio::spawn(serve(listener, Arc::new(admin().0), running));
        shutdown.drain();
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"HEAD /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 15];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200 OK");
        shutdown.end();
        shutdown.all_ended().await;
        assert!(TcpStream::connect(addr).await.is_err());
    }
}
