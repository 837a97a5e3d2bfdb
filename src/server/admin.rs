//! The admin port: health and metrics, over plain HTTP and on loopback by default.
//!
//! `/healthz`, `/livez` and `/readyz` respond like kube-apiserver's: `ok`, or with `?verbose` one
//! line per check; 500 and these lines if a check fails. `/metrics` has the Prometheus text format,
//! or OpenMetrics for clients that prefer it. `/policy` shows the active audit policies with
//! counts, as text, or as JSON with `?output=json` or if the client accepts it.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::listener::accept;
use super::policy_page;
use super::shutdown::{Phase, Running};
use crate::metrics::{Exposition, Metrics};
use crate::policy::PolicyHandle;

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A health check of `/readyz`: while it fails, no requests should be sent to this process.
pub(crate) struct Check {
    name: String,
    /// Why a failure is only informational; `None` if it makes the process unready.
    informational: Option<&'static str>,
    check: Box<dyn Fn() -> Checked + Send + Sync>,
}

/// The future result of a check.
pub(crate) type Checked = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl Check {
    /// Creates a check that `/readyz` shows as `name`. Its error is visible to all clients of the
    /// port.
    pub(crate) fn new<F>(
        name: impl Into<String>,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Check
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check = Box::new(move || -> Checked { Box::pin(check()) });
        Check { name: name.into(), informational: None, check }
    }

    /// Creates a check that is shown but may fail: `/readyz` then still responds 200. `reason`
    /// states why.
    pub(crate) fn informational<F>(
        name: impl Into<String>,
        reason: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Check
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Check { informational: Some(reason), ..Check::new(name, check) }
    }
}

/// The contents of the admin port.
pub(crate) struct Admin {
    metrics: Arc<Metrics>,
    checks: Vec<Check>,
    policies: Vec<PolicyHandle>,
}

impl Admin {
    /// Serves `metrics` and `checks`, the latter in the given order.
    pub(crate) fn new(metrics: Arc<Metrics>, checks: Vec<Check>) -> Admin {
        Admin { metrics, checks, policies: Vec::new() }
    }

    /// Also serves these policies.
    #[must_use]
    pub(crate) fn with_policies(self, policies: Vec<PolicyHandle>) -> Admin {
        Admin { policies, ..self }
    }

    async fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Response<Full<Bytes>> {
        let checks: &[Check] = match uri.path() {
            "/readyz" => &self.checks,
            // A restart would not fix what `/readyz` checks, so these endpoints run none.
            "/healthz" | "/livez" | "/metrics" | "/policy" => &[],
            _ => return plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let text = "405 method not allowed\n".to_owned();
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if uri.path() == "/metrics" {
            return self.metrics(headers);
        }
        if uri.path() == "/policy" {
            return self.policy_page(uri.query(), headers.get(ACCEPT));
        }
        health(&uri.path()[1..], checks, is_verbose(uri.query())).await
    }

    /// Returns all metrics, in the format that the client prefers.
    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let exposition = Exposition::preferred(accept);
        let Ok(text) = self.metrics.render(exposition) else {
            let text = "500 metrics cannot be encoded\n".to_owned();
            return plain(StatusCode::INTERNAL_SERVER_ERROR, text);
        };
        let mut response = plain(StatusCode::OK, text);
        let content_type = HeaderValue::from_static(exposition.content_type());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        response
    }
}

impl Admin {
    fn policy_page(
        &self,
        query: Option<&str>,
        accept: Option<&HeaderValue>,
    ) -> Response<Full<Bytes>> {
        if !wants_json(query, accept) {
            return plain(StatusCode::OK, policy_page::text(&self.policies));
        }
        let mut response = plain(StatusCode::OK, policy_page::json(&self.policies));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        response
    }
}

/// Returns whether the client asks for JSON: by the query, or by the first accepted media range.
fn wants_json(query: Option<&str>, accept: Option<&HeaderValue>) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    if let Some(output) = pairs.find_map(|pair| pair.strip_prefix("output=")) {
        return output == "json";
    }
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.trim_start().starts_with(JSON))
}

const JSON: &str = "application/json";

/// Returns kube-apiserver's response for the health endpoint `name`.
async fn health(name: &str, checks: &[Check], verbose: bool) -> Response<Full<Bytes>> {
    let mut lines = "[+]ping ok\n".to_owned();
    let mut failed = false;
    // Concurrently, so that one timeout bounds the response.
    let results = checks.iter().map(|check| async {
        let result = tokio::time::timeout(CHECK_TIMEOUT, (check.check)()).await;
        result.unwrap_or_else(|_| Err(format!("no result in {CHECK_TIMEOUT:?}")))
    });
    let results = futures_util::future::join_all(results).await;
    for (Check { name, informational, .. }, result) in checks.iter().zip(results) {
        let _ = match (result, informational) {
            (Ok(()), _) => writeln!(lines, "[+]{name} ok"),
            (Err(reason), Some(ignored)) => {
                writeln!(lines, "[-]{name} failed: {reason} (ignored: {ignored})")
            }
            (Err(reason), None) => {
                failed = true;
                writeln!(lines, "[-]{name} failed: {reason}")
            }
        };
    }
    match (failed, verbose) {
        (true, _) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"))
        }
        (false, true) => plain(StatusCode::OK, format!("{lines}{name} check passed\n")),
        (false, false) => plain(StatusCode::OK, "ok".to_owned()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn is_verbose(query: Option<&str>) -> bool {
    query
        .is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")))
}

/// Serves the admin port on `listener` until the process ends: while it drains, the port still
/// responds and reports that.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, mut ended: Running) {
    loop {
        let tcp = tokio::select! {
            (tcp, _) = accept(&listener) => tcp,
            () = ended.reached(Phase::Ending) => return,
        };
        tokio::spawn(connection(tcp, admin.clone(), ended.clone()));
    }
}

async fn connection(tcp: TcpStream, admin: Arc<Admin>, mut ended: Running) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move {
            let (method, uri) = (request.method(), request.uri());
            Ok::<_, Infallible>(admin.answer(method, uri, request.headers()).await)
        }
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
        let response = admin.answer(&method, &target.parse().unwrap(), &HeaderMap::new()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn admin() -> (Admin, Arc<AtomicBool>) {
        let broken = Arc::new(AtomicBool::new(false));
        let seen = broken.clone();
        let upstream = move || {
            let broken = seen.load(Ordering::Relaxed);
            async move { if broken { Err("refused".to_owned()) } else { Ok(()) } }
        };
        let checks = vec![Check::new("log", async || Ok(())), Check::new("upstream", upstream)];
        (Admin::new(Arc::default(), checks), broken)
    }

    #[tokio::test]
    async fn health_is_written_as_kube_apiserver_writes_it() {
        let (admin, broken) = admin();
        let get = |target| ask(&admin, Method::GET, target);
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(get(path).await, (200, "ok".into()));
        }
        let verbose = "[+]ping ok\n[+]log ok\n[+]upstream ok\nreadyz check passed\n";
        assert_eq!(get("/readyz?verbose").await, (200, verbose.into()));
        broken.store(true, Ordering::Relaxed);
        let failed = "[+]ping ok\n[+]log ok\n[-]upstream failed: refused\nreadyz check failed\n";
        assert_eq!(get("/readyz").await, (500, failed.into()));
        let live = "[+]ping ok\nlivez check passed\n";
        assert_eq!(get("/livez?verbose=1").await, (200, live.into()));
    }

    #[tokio::test]
    async fn an_informational_check_is_shown_and_does_not_fail_the_rest() {
        let failing = async || Err("down".to_owned());
        let checks = vec![Check::informational("siem", "batch mode", failing)];
        let admin = Admin::new(Arc::default(), checks);
        assert_eq!(ask(&admin, Method::GET, "/readyz").await, (200, "ok".into()));
        let shown = "[+]ping ok\n[-]siem failed: down (ignored: batch mode)\nreadyz check passed\n";
        assert_eq!(ask(&admin, Method::GET, "/readyz?verbose").await, (200, shown.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_hang_cost_one_timeout() {
        let hanging = |name| Check::new(name, async || std::future::pending().await);
        let admin = Admin::new(Arc::default(), vec![hanging("a"), hanging("b")]);
        let started = tokio::time::Instant::now();
        let (status, text) = ask(&admin, Method::GET, "/readyz").await;
        assert_eq!(started.elapsed(), CHECK_TIMEOUT);
        assert!(status == 500 && text.contains("[-]b failed: no result in 2s"), "{text}");
    }

    #[tokio::test]
    async fn other_paths_are_not_served() {
        let (admin, _) = admin();
        assert_eq!(ask(&admin, Method::GET, "/debug").await.0, 404);
        assert_eq!(ask(&admin, Method::POST, "/metrics").await.0, 405);
        assert_eq!(ask(&admin, Method::DELETE, "/readyz").await.0, 405);
        let (status, text) = ask(&admin, Method::GET, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("apiserver_audit_event_total 0"));
    }

    #[tokio::test]
    async fn the_admin_server_serves_while_draining_and_ends_with_the_process() {
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
