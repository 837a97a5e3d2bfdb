//! Measures the cost of audit events: evaluating a request, and encoding one event.
//!
//! Run with `cargo bench --bench event`.

#![allow(unreachable_pub, reason = "a program has no public interface")]

#[path = "setup/sample.rs"]
mod sample;
#[path = "setup/sinks.rs"]
mod sinks;
#[path = "setup/user.rs"]
mod user;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use k8s_audit::request::RequestInfo;
use kube_audit_proxy::audit::record::{AuditPipeline, Format};
use kube_audit_proxy::request::source::TrustedProxies;

use crate::sample::Sample;
use crate::sinks::{policy, sink};

const ROUNDS: u32 = 200_000;

fn main() {
    let sample = Sample::new();
    let event = sample.event();
    let mut line = Vec::with_capacity(2048);
    measure("event to JSON", || {
        line.clear();
        event.push_json(black_box(&mut line));
    });
    measure("event to a legacy line", || {
        line.clear();
        event.push_legacy(black_box("2026-05-04T10:11:12.345678Z"), black_box(&mut line));
    });
    for uri in [
        "/api/v1/namespaces/shop/pods/web-0",
        "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1&resourceVersion=7",
        "/api/v1/namespaces/shop/pods/web%2D0/log",
    ] {
        let target = PathAndQuery::from_static(uri);
        measure(&format!("request info of {uri}"), || {
            black_box(RequestInfo::new(&Method::GET, black_box(&target)).ok());
        });
    }
    records(&sample);
    let headers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-forwarded-for"),
        HeaderValue::from_static("203.0.113.7, 198.51.100.2"),
    )]);
    let peer = ([10, 0, 0, 1], 443).into();
    measure("source addresses", || {
        black_box(TrustedProxies::Everyone.source_ips(black_box(&headers), peer));
    });
}

/// The complete record of a request at level Metadata, with both events, for sinks that discard
/// them.
fn records(sample: &Sample) {
    let all = policy("rules: [{level: Metadata}]");
    let late = policy("omitStages: [RequestReceived]\nrules: [{level: Metadata}]");
    for (what, sinks) in [
        ("one sink", vec![sink(&all, Format::Json)]),
        ("three sinks, one policy", (0..3).map(|_| sink(&all, Format::Json)).collect()),
        (
            "three sinks, two policies of the same level",
            vec![sink(&all, Format::Json), sink(&late, Format::Json), sink(&late, Format::Json)],
        ),
        ("two sinks, two formats", vec![sink(&all, Format::Json), sink(&all, Format::Legacy)]),
    ] {
        let recorder = Arc::new(AuditPipeline::new(sinks, Arc::default(), None));
        measure(&format!("record at Metadata, {what}"), || sample.record(&recorder));
    }
}

/// The best of five rounds, since disturbances only make a run slower.
fn measure(what: &str, mut work: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(|_| work());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:<80} {best:>8.0} ns");
}
