//! Measures the cost of a policy evaluation: `cargo bench --bench policy`.
//!
//! Prints nanoseconds per operation; each number is the best of several rounds, over a mix of
//! requests of which most are matched by late rules or by none.

#![allow(unreachable_pub, reason = "a program has no public interface")]

#[path = "setup/rules.rs"]
mod rules;
#[path = "setup/user.rs"]
mod user;

use std::hint::black_box;
use std::time::Instant;

use http::Method;
use http::uri::PathAndQuery;
use k8s_audit::request::RequestInfo;

use crate::rules::policy_of;
use crate::user::user;

const REQUESTS: [(&str, &str); 8] = [
    ("GET", "/api/v1/namespaces/default/pods/web-7d4b9c6f5-x2x8q"),
    ("GET", "/api/v1/namespaces/default/pods/web-7d4b9c6f5-x2x8q/log?follow=true"),
    ("GET", "/api/v1/pods?watch=true&resourceVersion=12345"),
    ("PATCH", "/apis/apps/v1/namespaces/team-a/deployments/web/status"),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1?timeout=10s"),
    ("GET", "/healthz"),
    ("DELETE", "/apis/example.com/v1/widgets/w%2D1"),
];

/// Nanoseconds per operation in the best round.
fn best(operations: usize, mut batch: impl FnMut()) -> f64 {
    const ROUNDS: usize = 50;
    const BATCHES: usize = 200;
    let round = |_| {
        let start = Instant::now();
        (0..BATCHES).for_each(|_| batch());
        start.elapsed().as_nanos() as f64 / (BATCHES * operations) as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn main() {
    let requests: Vec<(Method, PathAndQuery)> = REQUESTS
        .iter()
        .map(|(method, uri)| {
            (method.parse().expect("a method"), uri.parse().expect("a request target"))
        })
        .collect();
    let resolve = |(method, target): &(Method, PathAndQuery)| {
        RequestInfo::new(black_box(method), black_box(target)).expect("a request")
    };
    let infos: Vec<RequestInfo> = requests.iter().map(resolve).collect();
    let user = user();

    let resolution = best(requests.len(), || {
        for request in &requests {
            black_box(resolve(request));
        }
    });
    println!("RequestInfo resolution  {resolution:7.1} ns");
    for rules in [1, 10, 200] {
        let policy = policy_of(rules);
        let evaluation = best(infos.len(), || {
            for info in &infos {
                black_box(policy.evaluate(Some(black_box(&user)), black_box(info)));
            }
        });
        println!("evaluation, {rules:3} rules   {evaluation:7.1} ns");
    }
}
