//! Compares recorded responses of a real kube-apiserver with its own audit log.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Compactor, Options};

#[derive(Deserialize)]
struct Exchange {
    name: String,
    response: Response,
    events: Vec<String>,
}

#[derive(Deserialize)]
struct Response {
    headers: Vec<(String, String)>,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'e> {
    verb: String,
    #[serde(borrow)]
    response_object: Option<&'e RawValue>,
}

/// The number of responses by outcome.
type Counts = BTreeMap<&'static str, usize>;

/// Compares each recorded `responseObject` with the response. `omits` returns for which verbs the
/// policy omits managed fields.
fn replay(policy: &str, omits: fn(&str) -> bool) -> Counts {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../tests/corpus/exchanges/{policy}.jsonl"));
    let mut counts = Counts::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let exchange: Exchange = serde_json::from_str(line).unwrap();
        *counts.entry(outcome(&exchange, omits)).or_default() += 1;
    }
    counts
}

fn outcome(exchange: &Exchange, omits: fn(&str) -> bool) -> &'static str {
    let Response { headers, body } = &exchange.response;
    let is_json = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("content-type") && value == "application/json"
    };
    let recorded = exchange.events.iter().rev().find_map(|line| {
        let event: Event<'_> = serde_json::from_str(line).unwrap();
        Some((event.verb, event.response_object?.get()))
    });
    let Some((verb, recorded)) = recorded else { return "no responseObject" };
    if !headers.iter().any(is_json) {
        return "not JSON";
    }
    let body = STANDARD.decode(body.as_ref().unwrap()).unwrap();
    let omit_managed_fields = omits(&verb);
    for length in [1, 7, 1000, usize::MAX] {
        let mut compactor = Compactor::new(Options { omit_managed_fields, ..Options::default() });
        body.chunks(length).for_each(|piece| compactor.push(piece));
        let text = String::from_utf8(compactor.finish().text.unwrap().json).unwrap();
        assert_eq!(text, recorded, "{} in pieces of {length}", exchange.name);
    }
    if String::from_utf8_lossy(&body).contains("managedFields") && omit_managed_fields {
        "equal, with managedFields left out"
    } else {
        "equal"
    }
}

#[test]
fn responses_are_recorded_like_in_kube_apiserver() {
    let counts = replay("all-requestresponse", |_| false);
    println!("{counts:?}");
    assert_eq!(counts["equal"], 234);
}

#[test]
fn managed_fields_are_omitted_as_kube_apiserver_omits_them() {
    let counts = replay("all-request-managed-omitted", |verb| verb != "delete");
    println!("{counts:?}");
    assert_eq!(counts["equal"] + counts["equal, with managedFields left out"], 153);
    assert!(counts["equal, with managedFields left out"] > 20);
}
