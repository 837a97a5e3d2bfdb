//! Measures the cost of recording JSON bodies: throughput in MB/s, and the time for a small object.
//!
//! Run with `cargo bench --bench body`.

#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use audit_body::{Compactor, CompiledPaths, Options, Redaction};

/// The size of the pieces in which a body arrives: a TLS record.
const PIECE: usize = 16 << 10;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-7d4b9c6f5d-x2x7k","generateName":"web-7d4b9c6f5d-","namespace":"shop","uid":"3761b3bc-93b9-41fd-9783-0dc0459d48d2","resourceVersion":"123456789","creationTimestamp":"2026-05-04T10:11:12Z","labels":{"app.kubernetes.io/name":"web","pod-template-hash":"7d4b9c6f5d"},"managedFields":[{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-05-04T10:11:12Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:pod-template-hash":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:resources":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{}}}}]},"spec":{"containers":[{"name":"web","image":"registry.example.org/shop/web:1.2.3","args":["--listen=:8080","--log-level=info"],"env":[{"name":"DATABASE_URL","value":"postgres://db.shop.svc:5432/shop"}],"resources":{"limits":{"cpu":"500m","memory":"256Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","nodeName":"node-1","securityContext":{},"schedulerName":"default-scheduler","priority":0,"enableServiceLinks":true},"status":{"phase":"Running","hostIP":"10.0.0.5","podIP":"10.244.1.17","startTime":"2026-05-04T10:11:12Z","qosClass":"Burstable"}}"#;

fn main() {
    let indented = serde_json::from_str::<serde_json::Value>(POD).expect("JSON");
    let indented = serde_json::to_string_pretty(&indented).expect("JSON");
    let list = |item: &str| {
        format!(
            r#"{{"kind":"PodList","apiVersion":"v1","items":[{}]}}"#,
            vec![item; 1000].join(",")
        )
    };
    let secret = format!(
        r#"{{"metadata":{{"name":"tls","namespace":"shop"}},"data":{{"ca.crt":"{0}","tls.crt":"{0}","tls.key":"{0}"}},"type":"kubernetes.io/tls"}}"#,
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t".repeat(40),
    );
    let config =
        format!(r#"{{"kind":"ConfigMap","data":{{"a":"{}"}}}}"#, "0123456789".repeat(200_000));
    let pods = list(POD);
    let secrets = Redaction::default().for_request(b"", b"secrets", b"").cloned();

    let plain = Options::default;
    let digest = || Options { digest: true, ..plain() };
    let omit = || Options { omit_managed_fields: true, ..plain() };
    let redact = |paths: &Option<Arc<CompiledPaths>>| Options { redact: paths.clone(), ..plain() };
    let limit = || Options { limit: Some(64 << 10), ..plain() };

    measure("one pod", POD, plain);
    measure("one pod, with digest", POD, digest);
    measure("one pod, managed fields omitted", POD, omit);
    measure("one pod, redaction on", POD, || redact(&secrets));
    measure("pods", &pods, plain);
    measure("pods, with digest", &pods, digest);
    measure("pods, managed fields omitted", &pods, omit);
    measure("pods, indented", &list(&indented), plain);
    measure("pods, cut at 64 KiB", &pods, limit);
    measure("pods, cut at 64 KiB, with digest", &pods, || Options { digest: true, ..limit() });
    measure("secrets, redacted", &list(&secret), || redact(&secrets));
    measure("one long string", &config, plain);
}

/// The best of five rounds, since disturbances only make a run slower.
fn measure(what: &str, body: &str, options: impl Fn() -> Options) {
    let rounds = (20_000_000 / body.len()).max(1);
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..rounds {
                let mut compactor = Compactor::new(options());
                black_box(body).as_bytes().chunks(PIECE).for_each(|piece| compactor.push(piece));
                black_box(compactor.finish().text.expect("JSON"));
            }
            start.elapsed().as_secs_f64() / rounds as f64
        })
        .fold(f64::INFINITY, f64::min);
    let speed = body.len() as f64 / best / 1e6;
    println!("{what:<40} {:>9} bytes {:>10.2} µs {speed:>7.0} MB/s", body.len(), best * 1e6);
}
