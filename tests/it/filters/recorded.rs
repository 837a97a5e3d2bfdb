//! Recorded responses and events of a kube-apiserver 1.36.2. It was started with `CORS` and `HSTS`
//! of [`super`], `--enable-priority-and-fairness=false`, both limits of requests in flight at 1,
//! and `--request-timeout=5s`. A validating webhook that did not respond delayed the requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use serde_json::Value;

use crate::support::audit_log::{AuditLog, Event};
use crate::support::http1::{self, Answer};
use crate::support::in_time;

const FILE: &str = include_str!("recorded.json");

/// One request, its response, and its events.
#[derive(Debug, Deserialize)]
pub struct Recorded {
    pub name: String,
    /// A bearer token of the corpus, if there is one.
    user: Option<String>,
    pub method: String,
    pub target: String,
    origin: Option<String>,
    pub status: u16,
    /// All but `Date`, `Audit-Id` and `Content-Length`.
    headers: BTreeMap<String, String>,
    body: String,
    events: Vec<Value>,
    #[serde(skip, default = "new_id")]
    id: String,
}

fn new_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("recorded-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Recorded {
    pub fn all() -> Vec<Recorded> {
        serde_json::from_str(FILE).unwrap()
    }

    /// Sends the request on a new connection, which may be closed.
    pub async fn try_send(&self, addr: SocketAddr) -> std::io::Result<Answer> {
        let mut headers = vec![format!("Audit-ID: {}", self.id)];
        headers.extend(self.user.iter().map(|token| format!("Authorization: Bearer {token}")));
        headers.extend(self.origin.iter().map(|origin| format!("Origin: {origin}")));
        let mut body = String::new();
        if self.method == "POST" && self.target.contains("/configmaps") {
            headers.push("Content-Type: application/json".to_owned());
            let name = &self.id;
            body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#
            );
        }
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let request = http1::request(&self.method, &self.target, &headers, body.as_bytes());
        in_time(&self.name, http1::exchange(addr, None, &request)).await
    }

    /// Sends the request on a new connection.
    pub async fn send(&self, addr: SocketAddr) -> Answer {
        self.try_send(addr).await.unwrap()
    }

    /// Waits until the event of the request is logged.
    pub async fn received(&self, log: &mut AuditLog) {
        log.wait(&self.id, 1).await;
    }

    /// Compares a response with the recorded one; of successful ones, only the headers.
    pub fn check_response(&self, response: &Answer) {
        let head = &response.head;
        assert_eq!(head.status, self.status, "{}: {head:?}", self.name);
        assert_eq!(head.get("audit-id"), self.id, "{}", self.name);
        let mut headers = BTreeMap::new();
        for (name, value) in &head.headers {
            let name = name.to_ascii_lowercase();
            if !matches!(name.as_str(), "date" | "audit-id" | "content-length") {
                assert_eq!(headers.insert(name, value.clone()), None, "{}: twice", self.name);
            }
        }
        assert_eq!(headers, self.headers, "{}", self.name);
        if self.status != 200 {
            assert_eq!(String::from_utf8_lossy(&response.body), self.body, "{}", self.name);
        }
    }

    /// Compares the events of the request with the recorded ones, and returns them. kube-apiserver
    /// logs no event for a URL that it cannot resolve; the proxy does.
    pub async fn check_events(&self, log: &mut AuditLog) -> Vec<Event> {
        if self.status == 500 {
            return Vec::new();
        }
        let events = match self.events.len() {
            0 => log.of(&self.id),
            count => log.wait(&self.id, count).await,
        };
        let stages: Vec<_> = events.iter().map(Event::stage).collect();
        let expected: Vec<_> = self.events.iter().map(|event| &event["stage"]).collect();
        assert_eq!(stages, expected, "{}", self.name);
        for (event, expected) in events.iter().zip(&self.events) {
            let status = event.at("/responseStatus");
            assert_eq!(status, expected.get("responseStatus"), "{}: {}", self.name, event.line);
            if self.status != 200 {
                let object = event.at("/responseObject");
                assert_eq!(object, expected.get("responseObject"), "{}", self.name);
            }
        }
        events
    }
}
