//! Replays and condenses an hour of audit events of a cluster with 100 nodes.
//!
//! Run with `cargo bench -p audit-query --bench policy`.
//!
//! `-- SECONDS FILE` only writes an audit log of that many seconds to a file; a day has 86400.

mod cluster_day;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use audit_query::filter::Filter;
use audit_query::input::Input;
use audit_query::policy::replay::{Policies, Tally};
use audit_query::policy::suggest::Frequencies;
use audit_query::scan::{Progress, Scan, Stages, Visitor};
use k8s_audit::policy::{Policy, parse};

const NODES: usize = 100;
const RECOMMENDED: &str = include_str!("../../../../config/policy-recommended.yaml");

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [seconds, file] = &arguments[..] {
        let seconds = seconds.parse().expect("a number of seconds");
        let events = write(Path::new(file), seconds);
        println!("{events} events");
        return;
    }
    let path = std::env::temp_dir().join(format!("cluster-day-{}.log", std::process::id()));
    let events = write(&path, 3600);
    let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    println!("{events} events, {bytes} bytes, level Metadata; one thread");
    let seconds = |from: Instant| from.elapsed().as_secs_f64();
    for rules in [1, 12, 200] {
        let policy = match rules {
            12 => parse(RECOMMENDED.as_bytes(), "recommended").expect("a policy").policy,
            rules => of_rules(rules),
        };
        let policies = Arc::new(Policies { policy, against: None });
        let start = Instant::now();
        let tallies = scan(&path, || Tally::new(policies.clone()));
        let (requests, took) =
            (tallies.iter().map(|tally| tally.requests).sum::<u64>(), seconds(start));
        println!("replay, {rules:3} rules   {:6.2} million events/s", requests as f64 / took / 1e6);
    }
    let start = Instant::now();
    let mut all = Frequencies::default();
    scan(&path, Frequencies::default).into_iter().for_each(|frequencies| all.add(frequencies));
    let suggestion = all.suggest(0.01);
    println!("suggest             {:6.2} million events/s", events as f64 / seconds(start) / 1e6);
    let (requests, bytes) = (suggestion.requests, suggestion.bytes);
    println!(
        "{} rules leave out {:.1} % of the requests and {:.1} % of the bytes",
        suggestion.rules,
        100.0 * requests.1 as f64 / requests.0 as f64,
        100.0 * bytes.1 as f64 / bytes.0 as f64
    );
    let _ = std::fs::remove_file(path);
}

/// A policy in which most rules are about resources that no request is for.
fn of_rules(rules: usize) -> Policy {
    let mut text = String::from("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n");
    for number in 1..rules {
        text.push_str(&format!(
            "- {{level: Request, verbs: [get, list, patch], users: ['system:user-{number}'], \
             resources: [{{group: g{number}.io, resources: [kinds{number}, '*/status']}}]}}\n"
        ));
    }
    text.push_str("- level: Metadata\n");
    parse(text.as_bytes(), "bench").expect("the policy is valid").policy
}

fn write(path: &Path, seconds: usize) -> u64 {
    let mut out = BufWriter::new(File::create(path).expect("a file"));
    let mut events = 0;
    cluster_day::events(NODES, seconds, |line| {
        out.write_all(line.as_bytes()).expect("space for the log");
        events += 1;
    });
    out.flush().expect("space for the log");
    events
}

fn scan<V: Visitor>(path: &Path, make: impl Fn() -> V + Sync) -> Vec<V> {
    let scan = Scan {
        inputs: vec![Input::file(path)],
        filter: Filter::default(),
        stages: Stages::Last,
        reverse: false,
        threads: 1,
        index: false,
    };
    scan.run(&Progress::default(), make, |_| ControlFlow::Continue(())).expect("a log").0
}
