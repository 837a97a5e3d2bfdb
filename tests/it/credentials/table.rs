//! Sends each credential, compares the result with the expected one, and prints the table.

use std::fmt::Write;

use serde_json::Value;

use crate::support::proxy::Proxy;
use crate::support::upstream::FakeUpstream;
use crate::support::{client, corpus, http1, pki};

const TARGET: &str = "/api/v1/namespaces/team-a/configmaps/one";
const EXTRA: &str = "authentication.kubernetes.io/";

/// The certificate that a client presents.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// Unauthenticated.
    None,
    /// A certificate of the corpus.
    Corpus(&'a str),
    /// A generated certificate.
    Made(&'a pki::Identity),
}

/// The rows that were added so far.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    method: &'static str,
    what: String,
    expected: String,
    got: String,
}

impl Table {
    /// Sends a request with this certificate and these header lines. `expected` is the user in the
    /// event in the format of [`user`], or the status code of a rejection.
    pub async fn row(
        &mut self,
        proxy: &Proxy,
        (method, what): (&'static str, &str),
        shown: Shown<'_>,
        headers: &[&str],
        expected: &str,
    ) {
        let id = format!("row-{}", self.rows.len());
        let audit_id = format!("Audit-ID: {id}");
        let lines = [headers, &[&audit_id]].concat();
        let request = http1::request("GET", TARGET, &lines, b"");
        let stream = match shown {
            Shown::None => client::tls(proxy.addr, None, &[b"http/1.1"]).await,
            Shown::Corpus(name) => client::tls(proxy.addr, Some(name), &[b"http/1.1"]).await,
            Shown::Made(identity) => client::tls_as(proxy.addr, identity).await,
        };
        let answer = async {
            let mut connection = http1::Connection::over(stream?);
            connection.send(&request).await?;
            connection.answer("GET").await
        };
        let got = match answer.await {
            Err(error) => format!("no answer: {error}"),
            Ok(answer) => {
                let status = answer.head.status;
                let event = &proxy.audit_log().wait(&id, 1).await[0];
                let of = event.value.get("user").cloned().unwrap_or_default();
                match status {
                    200 => user(&of, &fingerprint(shown)),
                    // If the client is rejected, the event has no user.
                    _ if of == serde_json::json!({}) => status.to_string(),
                    _ => format!("{status}, but as {of}"),
                }
            }
        };
        let (what, expected) = (what.to_owned(), expected.to_owned());
        self.rows.push(Row { method, what, expected, got });
    }

    /// A request with a bearer token and nothing else.
    pub async fn token(
        &mut self,
        proxy: &Proxy,
        name: (&'static str, &str),
        token: &str,
        expected: &str,
    ) {
        let line = format!("Authorization: Bearer {token}");
        self.row(proxy, name, Shown::None, &[&line], expected).await;
    }

    /// Prints the table, stores it in the target directory, and panics if a row is wrong. No
    /// credential may have been forwarded to the API server.
    pub fn finish(self, upstream: &FakeUpstream) {
        let width = |of: fn(&Row) -> &str| {
            self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0)
        };
        let (method, what) = (width(|row| row.method), width(|row| &row.what));
        let mut text = String::new();
        for row in &self.rows {
            let Row { method: of, what: name, expected, got } = row;
            writeln!(text, "{of:method$}  {name:what$}  {got}").unwrap();
            if got != expected {
                writeln!(text, "{:method$}  {:what$}  {expected}", "", "^ WRONG, expected")
                    .unwrap();
            }
        }
        println!("{text}");
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("credentials.txt");
        std::fs::write(path, &text).unwrap();
        let wrong = self.rows.iter().filter(|row| row.got != row.expected).count();
        assert_eq!(wrong, 0, "of {} rows; see the table", self.rows.len());
        for seen in upstream.seen().iter().filter(|seen| seen.target == TARGET) {
            assert!(seen.all("authorization").is_empty(), "{seen:?}");
            assert_eq!(seen.all("x-remote-user").len(), 1, "{seen:?}");
            let protocols = seen.all("sec-websocket-protocol").join(",");
            assert!(!protocols.contains("bearer"), "{seen:?}");
        }
    }
}

/// Formats a user in one line: name, `uid=`, groups in brackets (`+` for `system:authenticated`),
/// and extras (`~` for `authentication.kubernetes.io/`, and `X509SHA256=own` for the presented
/// certificate).
fn user(user: &Value, fingerprint: &str) -> String {
    let mut text = user["username"].as_str().unwrap_or("?").to_owned();
    if let Some(uid) = user["uid"].as_str() {
        write!(text, " uid={uid}").unwrap();
    }
    let list = |values: &Value| {
        let values = values.as_array().cloned().unwrap_or_default();
        values.iter().map(|v| v.as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>()
    };
    let groups = list(&user["groups"]).join(",").replace("system:authenticated", "+");
    write!(text, " [{groups}]").unwrap();
    for (key, values) in user["extra"].as_object().into_iter().flatten() {
        let key = key.replacen(EXTRA, "~", 1);
        let values = list(values).join(",").replace(fingerprint, "own");
        write!(text, " {key}={values}").unwrap();
    }
    text
}

/// Returns the SHA-256 of the presented certificate, in hexadecimal.
fn fingerprint(shown: Shown<'_>) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let der = match shown {
        Shown::None => return "none".to_owned(),
        Shown::Corpus(name) => {
            CertificateDer::from_pem_file(corpus::pki(&format!("{name}.crt"))).unwrap()
        }
        Shown::Made(identity) => identity.chain[0].clone(),
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
