//! The recordings in `tests/corpus`: responses and events of a real kube-apiserver.

use std::path::{Path, PathBuf};

use base64::Engine;
use serde::Deserialize;

use super::jwt::{Signer, now};

/// Returns a file of the corpus.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

/// Returns a certificate or key of the corpus, by its file name.
pub fn pki(name: &str) -> PathBuf {
    path("pki").join(name)
}

/// A request, kube-apiserver's response, and the lines that it logged.
#[derive(Clone, Deserialize)]
pub struct Exchange {
    pub name: String,
    pub user: Option<String>,
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub response: Recorded,
    pub events: Vec<String>,
    pub policy: String,
}

/// A recorded response.
#[derive(Clone, Deserialize)]
pub struct Recorded {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

/// A request and kube-apiserver's decision about it.
#[derive(Deserialize)]
pub struct Verdict {
    pub policy: String,
    pub name: String,
    pub user: Option<String>,
    pub method: String,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub status: u16,
    pub events: Vec<StageAtLevel>,
}

/// A logged stage.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct StageAtLevel {
    pub level: String,
    pub stage: String,
}

/// Returns all exchanges of one file, in the order in which they were recorded.
pub fn exchanges(file: &str) -> Vec<Exchange> {
    lines(&path("exchanges").join(file))
}

/// Returns all of `decisions.jsonl`. It lacks the headers of front proxies, which are taken from
/// the exchange with the same name.
pub fn verdicts() -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = lines(&path("decisions.jsonl"));
    let exchanges = exchanges("all-metadata.jsonl");
    for verdict in &mut verdicts {
        if verdict.user.as_deref() == Some("front-proxy-client") && verdict.headers.is_empty() {
            let exchange = exchanges.iter().find(|exchange| exchange.name == verdict.name);
            let names_user = |header: &&(String, String)| header.0.starts_with("X-Remote-");
            let headers = exchange.unwrap().headers.iter().filter(names_user);
            verdict.headers = headers.cloned().collect();
        }
    }
    verdicts
}

/// Decodes base64 of a corpus file.
pub fn decode(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
}

/// Returns the client certificate for a `user` of the corpus; none for token users and anonymous.
pub fn certificate(user: Option<&str>) -> Option<&str> {
    user.filter(|user| !user.starts_with("token:") && *user != "sa-token")
}

/// Returns whether kube-apiserver writes no line for this request or loses the last one; the proxy
/// must not.
pub fn is_lost_upstream(name: &str) -> bool {
    matches!(
        name,
        "path /api/v1/watch"
            | "path /api/v1/watch/"
            | "path /api/v1/proxy"
            | "path DELETE /api/v1/proxy"
            | "path /api/v1/namespaces/team-a/configmaps/%zz"
            | "patch bad"
    )
}

/// Returns the bytes of the request, with `headers` verbatim and in order.
pub fn wire(method: &str, uri: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {uri} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Renews the recorded ServiceAccount token in header lines: the same claims, signed with the same
/// key, but still valid. Other lines are unchanged.
pub fn with_valid_token(user: Option<&str>, headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut headers = headers.to_vec();
    if user != Some("sa-token") {
        return headers;
    }
    for (_, value) in headers.iter_mut().filter(|(n, _)| n.eq_ignore_ascii_case("authorization")) {
        let mut parts = value.strip_prefix("Bearer ").unwrap().split('.').map(|part| {
            let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_or_default()
        });
        let (header, mut claims) = (parts.next().unwrap(), parts.next().unwrap());
        claims["exp"] = (now() + 3600).into();
        *value = format!("Bearer {}", Signer::corpus().token(&header, &claims));
    }
    headers
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
