//! Replays the recorded impersonations in `impersonate` mode, where the proxy authorizes them, and
//! compares its events with kube-apiserver's, including the mode that allowed each.

use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::audit_log;
use crate::support::compare::{self, Report, Sent};
use crate::support::corpus::{self, Exchange};
use crate::support::http1;
use crate::support::proxy::Builder;
use crate::support::upstream::{self, FakeUpstream, Protocols};

const FILES: [&str; 5] =
    ["all-metadata", "all-requestresponse", "all-request-managed-omitted", "mixed", "narrow"];

#[tokio::test]
async fn impersonations_are_authorized_as_recorded() {
    let mut report = Report::default();
    let mut constrained = 0;
    for file in FILES {
        let mut exchanges = corpus::exchanges(&format!("{file}.jsonl"));
        exchanges.retain(impersonates);
        assert_eq!(exchanges.len(), 10, "{file}");
        constrained += replay(&mut report, exchanges).await;
    }
    report.finish("replay impersonations");
    assert_eq!(constrained, FILES.len(), "one in each file was allowed in a constrained mode");
}

fn impersonates(exchange: &Exchange) -> bool {
    exchange.headers.iter().any(|(name, _)| name.starts_with("Impersonate-"))
}

/// Sends them one by one, as they were recorded, because kube-apiserver caches which mode a caller
/// used.
async fn replay(report: &mut Report, exchanges: Vec<Exchange>) -> usize {
    let policy = corpus::path("policies").join(&exchanges[0].policy);
    let exchanges = Arc::new(exchanges);
    let upstream = recorded(Arc::clone(&exchanges)).await;
    let mut proxy = Builder::new(upstream.addr)
        .identity("impersonate")
        .policy_file(policy)
        .flag("--audit-redact=none")
        .start()
        .await;
    for exchange in exchanges.iter() {
        let certificate = corpus::certificate(exchange.user.as_deref());
        let request = crate::replay::request(exchange);
        let answer = http1::exchange(proxy.addr, certificate, &request).await;
        let status = answer.unwrap().head.status;
        assert_eq!(status, exchange.response.status, "{}", exchange.name);
    }
    proxy.stop().await;
    let lines = audit_log::lines(&proxy.log);
    for exchange in exchanges.iter() {
        let id = format!("\"auditID\":\"{}\"", audit_id(exchange));
        let written: Vec<_> = lines.iter().filter(|line| line.contains(&id)).collect();
        assert_eq!(written.len(), exchange.events.len(), "{}", exchange.name);
        for (recorded, written) in exchange.events.iter().zip(written) {
            let request = crate::replay::request(exchange);
            let body = exchange.body.as_deref().map(corpus::decode).unwrap_or_default();
            let sent = Sent {
                request: &request,
                body: &body,
                response_unknown: exchange.response.body.is_none(),
                managed_fields_omitted: exchange.policy.contains("managed-omitted"),
                authorized_by_proxy: true,
                ..Sent::default()
            };
            compare::event(report, &exchange.name, &sent, (recorded, written));
        }
    }
    lines.iter().filter(|line| line.contains("\"impersonationConstraint\"")).count()
}

/// Returns the API server of the recording. It responds to the proxy's reviews like its authorizer
/// must have done: the administrator is allowed everything except becoming a ServiceAccount in the
/// mode of that name. The recording does not contain the reason. It follows from the second
/// request, which only the verb `impersonate` allowed, and from the following ones, for which that
/// mode was tried first.
async fn recorded(exchanges: Arc<Vec<Exchange>>) -> FakeUpstream {
    FakeUpstream::start(Protocols::Http2, move |request| {
        let exchanges = Arc::clone(&exchanges);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            match head.uri.path() {
                "/version" => return upstream::json(200, r#"{"major":"1","minor":"36"}"#),
                "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                    let review: Value = serde_json::from_slice(&body)?;
                    let verb = review["spec"]["resourceAttributes"]["verb"].as_str().unwrap_or("");
                    let is_admin = review["spec"]["user"] == "kubernetes-admin";
                    let is_account = verb.starts_with("impersonate-on:serviceaccount:");
                    let status = json!({"allowed": is_admin && !is_account});
                    return upstream::json(201, json!({"status": status}).to_string());
                }
                _ => {}
            }
            let id = head.headers["audit-id"].to_str()?;
            let exchange = exchanges.iter().find(|exchange| audit_id(exchange) == id).unwrap();
            let body = exchange.response.body.as_deref().map(corpus::decode).unwrap_or_default();
            let mut answer = upstream::json(exchange.response.status, body)?;
            for (name, value) in &exchange.response.headers {
                if name.eq_ignore_ascii_case("content-type") {
                    answer.headers_mut().insert(http::header::CONTENT_TYPE, value.parse()?);
                }
            }
            Ok(answer)
        }
    })
    .await
}

fn audit_id(exchange: &Exchange) -> &str {
    let mut headers = exchange.headers.iter();
    headers.find(|(name, _)| name == "Audit-ID").map_or("", |(_, id)| id)
}
