//! Replays recorded requests through the proxy, and compares its audit log with kube-apiserver's.

use std::collections::HashMap;
use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, Incoming};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::audit_log;
use crate::support::compare::{self, Report};
use crate::support::corpus::{self, Exchange, Recorded};
use crate::support::http1::{self, Answer};
use crate::support::in_time;
use crate::support::proxy::{Builder, Proxy};
use crate::support::upstream::{Answered, FakeUpstream, Protocols, full, streamed};

/// Requests in flight at a time.
const PARALLEL: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_metadata() {
    replay("all-metadata", Protocols::Http2).await.finish("replay all-metadata");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_metadata_over_http1_upstream() {
    replay("all-metadata", Protocols::Http1).await.finish("replay all-metadata http1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_requestresponse() {
    replay("all-requestresponse", Protocols::Http2).await.finish("replay all-requestresponse");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_request_managed_omitted() {
    let report = replay("all-request-managed-omitted", Protocols::Http2).await;
    report.finish("replay all-request-managed-omitted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed() {
    replay("mixed", Protocols::Http2).await.finish("replay mixed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrow() {
    replay("narrow", Protocols::Http2).await.finish("replay narrow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy() {
    replay("legacy", Protocols::Http2).await.finish("replay legacy");
}

async fn replay(file: &str, protocols: Protocols) -> Report {
    let exchanges = Arc::new(corpus::exchanges(&format!("{file}.jsonl")));
    let upstream = recorded_upstream(&exchanges, protocols).await;
    let policy = corpus::path("policies").join(&exchanges[0].policy);
    let is_legacy = file == "legacy";
    // Redacted fields would differ from kube-apiserver's record.
    let builder = Builder::new(upstream.addr).policy_file(policy).front_proxies();
    let mut builder = builder.service_accounts().flag("--audit-redact=none");
    if is_legacy {
        builder = builder.flag("--audit-log-format=legacy");
    }
    let mut proxy = builder.start().await;
    let answers = send_all(&exchanges, &proxy).await;
    let status = proxy.stop().await;

    let mut report = Report::default();
    if status.code() != Some(0) {
        report.fail("exit", format!("ended with {status}"));
    }
    let mut lines = by_audit_id(&proxy, is_legacy, &mut report);
    for (exchange, answer) in exchanges.iter().zip(&answers) {
        let written = audit_id(exchange, answer).and_then(|id| lines.remove(&id));
        let written = written.unwrap_or_default();
        check_answer(&mut report, exchange, answer);
        if let Some(written) = check_stages(&mut report, exchange, written, is_legacy) {
            compare_lines(&mut report, exchange, &written, is_legacy);
        }
    }
    for (id, lines) in lines {
        report.fail("lines of nobody's request", format!("{id}: {lines:?}"));
    }
    report
}

/// Responds to each request with the response recorded for its audit ID.
pub async fn recorded_upstream(exchanges: &[Exchange], protocols: Protocols) -> FakeUpstream {
    // Long responses were recorded in one file only; requests with the same name had the same
    // response.
    let mut bodies = HashMap::new();
    for exchange in corpus::exchanges("all-requestresponse.jsonl") {
        bodies.insert(exchange.name, exchange.response.body);
    }
    let mut answers = HashMap::new();
    for exchange in exchanges {
        let mut answer = exchange.response.clone();
        answer.body = answer.body.or_else(|| bodies.get(&exchange.name).cloned().flatten());
        answers.insert(sent_audit_id(exchange).to_owned(), answer);
    }
    let answers = Arc::new(answers);
    FakeUpstream::start(protocols, move |request| answer(Arc::clone(&answers), request)).await
}

async fn answer(
    answers: Arc<HashMap<String, Recorded>>,
    request: http::Request<Incoming>,
) -> Answered {
    let (head, body) = request.into_parts();
    // Like kube-apiserver, responds after reading the request.
    body.collect().await?;
    let id = head.headers.get("audit-id").and_then(|id| id.to_str().ok()).unwrap_or("");
    // The one request without an audit ID got one from the proxy.
    let recorded = answers.get(id).or_else(|| answers.get("")).ok_or("nothing recorded")?;
    let mut response = Response::builder().status(recorded.status);
    let mut is_stream = false;
    for (name, value) in &recorded.headers {
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => is_stream = true,
            "connection" | "content-length" => {}
            // Like kube-apiserver, returns the ID that it received.
            "audit-id" => response = response.header(name, id),
            _ => response = response.header(name, value),
        }
    }
    let bytes = Bytes::from(recorded.body.as_deref().map(corpus::decode).unwrap_or_default());
    if !is_stream {
        return Ok(response.body(full(bytes))?);
    }
    let (sender, body) = streamed();
    tokio::spawn(async move {
        for half in [bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..)] {
            let _ = sender.send(Ok(Frame::data(half))).await;
        }
    });
    Ok(response.body(body)?)
}

async fn send_all(
    exchanges: &Arc<Vec<Exchange>>,
    proxy: &Proxy,
) -> Vec<Result<Answer, std::io::Error>> {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let mut sending = JoinSet::new();
    for index in 0..exchanges.len() {
        let (exchanges, permits, addr) = (Arc::clone(exchanges), Arc::clone(&permits), proxy.addr);
        sending.spawn(async move {
            let _permit = permits.acquire().await.unwrap();
            let exchange = &exchanges[index];
            let certificate = corpus::certificate(exchange.user.as_deref());
            let request = request(exchange);
            let answer = http1::exchange(addr, certificate, &request);
            (index, in_time(&format!("an answer to {:?}", exchange.name), answer).await)
        });
    }
    let mut answers: Vec<_> = sending.join_all().await;
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// Returns the request as it was sent, except for an expired ServiceAccount token, which is
/// renewed.
pub fn request(exchange: &Exchange) -> Vec<u8> {
    let body = exchange.body.as_deref().map(corpus::decode).unwrap_or_default();
    let headers = corpus::with_valid_token(exchange.user.as_deref(), &exchange.headers);
    corpus::wire(&exchange.method, &exchange.uri, &headers, &body)
}

fn sent_audit_id(exchange: &Exchange) -> &str {
    let header = exchange.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("audit-id"));
    header.map_or("", |(_, value)| value)
}

/// Returns the audit ID: the client's, otherwise the one in the proxy's response.
fn audit_id(exchange: &Exchange, answer: &Result<Answer, std::io::Error>) -> Option<String> {
    match sent_audit_id(exchange) {
        "" => answer.as_ref().ok().map(|answer| answer.head.get("audit-id").to_owned()),
        id => Some(id.to_owned()),
    }
}

fn by_audit_id(
    proxy: &Proxy,
    is_legacy: bool,
    report: &mut Report,
) -> HashMap<String, Vec<String>> {
    let mut lines = HashMap::<String, Vec<String>>::new();
    for line in audit_log::lines(&proxy.log) {
        let id = if is_legacy {
            line.split("AUDIT: id=\"").nth(1).and_then(|rest| rest.split('"').next())
        } else {
            line.split("\"auditID\":\"").nth(1).and_then(|rest| rest.split('"').next())
        };
        match id {
            Some(id) => lines.entry(id.to_owned()).or_default().push(line),
            None => report.fail("line without an audit ID", line),
        }
    }
    lines
}

/// Checks that the client receives the same response as without the proxy, and the audit ID once.
fn check_answer(report: &mut Report, exchange: &Exchange, answer: &std::io::Result<Answer>) {
    let name = &exchange.name;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return report.fail("no answer", format!("{name}: {error}")),
    };
    let (got, recorded) = (answer.head.status, exchange.response.status);
    if got != recorded {
        let body = String::from_utf8_lossy(&answer.body);
        report.fail("answer's status", format!("{name}: {got}, recorded {recorded}; {body}"));
    } else if let Some(body) = &exchange.response.body
        && !corpus::is_lost_upstream(&exchange.name)
        && corpus::decode(body) != answer.body
    {
        let (body, ours) = (corpus::decode(body), &answer.body);
        let (body, ours) = (String::from_utf8_lossy(&body), String::from_utf8_lossy(ours));
        report.fail("answer's body", format!("{name}\n   recorded {body}\n   got      {ours}"));
    }
    let ids = answer.head.all("audit-id");
    let sent = sent_audit_id(exchange);
    let is_known = exchange.response.headers.iter().any(|(name, _)| name == "Audit-Id");
    if is_known && (ids.len() != 1 || (!sent.is_empty() && ids != [sent])) {
        report.fail("answer's Audit-Id", format!("{name}: {ids:?}, sent {sent:?}"));
    }
}

/// Checks that the stages are the same, in the same order; additional ones are allowed only where
/// kube-apiserver is known to lose them.
fn check_stages(
    report: &mut Report,
    exchange: &Exchange,
    mut written: Vec<String>,
    is_legacy: bool,
) -> Option<Vec<String>> {
    let stage = |line: &String| {
        let (start, end) = if is_legacy { ("stage=\"", "\"") } else { ("\"stage\":\"", "\"") };
        let rest = line.split(start).nth(1).unwrap_or("");
        rest.split(end).next().unwrap_or("").to_owned()
    };
    let recorded: Vec<_> = exchange.events.iter().map(stage).collect();
    let mut ours: Vec<_> = written.iter().map(stage).collect();
    if corpus::is_lost_upstream(&exchange.name) && ours.len() > recorded.len() {
        let ends = ours.last().is_some_and(|stage| stage == "ResponseComplete" || stage == "Panic");
        if !ends && ours != ["ResponseStarted"] {
            report.fail("record without an end", format!("{}: {ours:?}", exchange.name));
        }
        let extra = ours.len() - recorded.len();
        (0..extra).for_each(|_| report.forgive("line that kube-apiserver loses"));
        written.retain(|line| recorded.contains(&stage(line)));
        ours.retain(|stage| recorded.contains(stage));
    } else if corpus::is_lost_upstream(&exchange.name) && exchange.events.is_empty() {
        report.fail("record without an end", format!("{}: nothing written", exchange.name));
    }
    if recorded == ours {
        return Some(written);
    }
    report.fail("stages", format!("{}: recorded {recorded:?}, written {ours:?}", exchange.name));
    None
}

fn compare_lines(report: &mut Report, exchange: &Exchange, written: &[String], is_legacy: bool) {
    let own_id = sent_audit_id(exchange).is_empty();
    let request = request(exchange);
    let body = exchange.body.as_deref().map(corpus::decode).unwrap_or_default();
    for (index, (recorded, written)) in exchange.events.iter().zip(written).enumerate() {
        let what = format!("{:?}, event {}", exchange.name, index + 1);
        if !is_legacy {
            let sent = compare::Sent {
                request: &request,
                body: &body,
                own_id,
                response_in_yaml: exchange
                    .response
                    .headers
                    .iter()
                    .any(|(name, value)| name == "Content-Type" && value == "application/yaml"),
                response_unknown: exchange.response.body.is_none(),
                managed_fields_omitted: exchange.policy.contains("managed-omitted"),
                authorized_by_proxy: false,
            };
            compare::event(report, &what, &sent, (recorded, written));
            continue;
        }
        report.compared += 1;
        let (recorded, written) = (masked(recorded, own_id), masked(written, own_id));
        if recorded == written {
            report.equal += 1;
        } else {
            report.fail("line", format!("{what}\n   recorded {recorded}\n   written  {written}"));
        }
    }
}

/// Returns a legacy line without its time, and without its audit ID if the server has generated it.
fn masked(line: &str, own_id: bool) -> String {
    let line = line.split_once(' ').map_or("", |(_, rest)| rest);
    match (own_id, line.split_once("\" ")) {
        (true, Some((_, rest))) => rest.to_owned(),
        _ => line.to_owned(),
    }
}
