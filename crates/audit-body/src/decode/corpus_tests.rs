//! Compares decoding with what a real kube-apiserver has recorded for the same bodies.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Request, Resource, decode};
use crate::RequestBodyKind;

const CORPUS: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/bodies.jsonl.zst"));

/// A request and its event.
#[derive(Deserialize)]
struct Row {
    n: u32,
    headers: Vec<(String, String)>,
    body: String,
    event: Value,
    created: Option<String>,
}

const CONFIG_MAPS: Resource<'_> =
    Resource { group: b"", version: b"v1", resource: b"configmaps", subresource: b"" };

fn rows() -> Vec<Row> {
    let text = zstd::decode_all(CORPUS).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let row = |line| {
        let mut row: Value = serde_json::from_slice(line).unwrap();
        let headers = row["headers"].as_object().unwrap().clone();
        row["headers"] = headers.into_iter().map(|(k, v)| serde_json::json!([k, v])).collect();
        serde_json::from_value(row).unwrap()
    };
    lines.map(row).collect()
}

/// What is compared: data, binaryData, immutable, type, name and labels.
fn compared(object: &Value) -> Vec<Value> {
    let metadata = &object["metadata"];
    let fields = ["data", "binaryData", "immutable", "kind", "apiVersion"];
    let mut compared: Vec<Value> = fields.iter().map(|field| object[field].clone()).collect();
    compared.extend([metadata["name"].clone(), metadata["labels"].clone()]);
    compared
}

#[test]
fn bodies_are_decoded_like_by_kube_apiserver() {
    let (mut total, mut equal) = (0, 0);
    let mut silent = Vec::new();
    let mut accepted = Vec::new();
    for row in rows() {
        let headers: HeaderMap = row
            .headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let kind = RequestBodyKind::Object;
        let format = Format::of_request(&headers, kind);
        let body = BASE64_STANDARD.decode(&row.body).unwrap();
        let decoded = decode(&Request { format, kind, resource: CONFIG_MAPS }, &body);
        let expected = &row.event["requestObject"];
        if expected.is_null() {
            let message = row.event["responseStatus"]["message"].as_str().unwrap_or_default();
            let mut read_and_refused = vec!["strict decoding error", "is registered for version"];
            if format == Format::Yaml {
                read_and_refused.extend(["json: cannot unmarshal", "parsing time", "base64 data"]);
            }
            // What has nothing odd in it is not checked against its type.
            if decoded.as_ref().is_ok_and(|decoded| matches!(decoded.json, Cow::Owned(_)))
                && !read_and_refused.iter().any(|text| message.contains(text))
                && !message.contains("Secret in version")
            {
                accepted.push((row.n, message.to_owned()));
            }
            continue;
        }
        total += 1;
        let (is_equal, marked, found) = match &decoded {
            Ok(decoded) => {
                let found: Value = serde_json::from_slice(&decoded.json).unwrap();
                let given = decoded.metadata.as_ref().map_or("", |metadata| &metadata.name);
                let name = expected["metadata"]["name"].as_str().unwrap_or_default();
                let created = row.created.as_deref().unwrap_or(name);
                let same_name = given == name && (name.is_empty() || created == name);
                // What kube-apiserver has not recorded is not compared.
                let pairs = compared(expected).into_iter().zip(compared(&found));
                let same = pairs
                    .into_iter()
                    .all(|(expected, found)| expected.is_null() || expected == found);
                (same && same_name, !decoded.ambiguities.is_empty(), found.to_string())
            }
            Err(error) => (false, true, error.message.clone()),
        };
        equal += usize::from(is_equal);
        if !is_equal {
            println!("{} marked: {marked}: {found}, not {expected}", row.n);
            if !marked {
                silent.push(row.n);
            }
        }
    }
    println!("{equal} of {total} are equal; accepted against kube-apiserver: {accepted:?}");
    assert!(silent.is_empty(), "{silent:?}");
    assert!(total > 1500 && equal * 1000 >= total * 995, "{equal} of {total}");
    assert!(accepted.len() < 10, "{accepted:?}");
}
