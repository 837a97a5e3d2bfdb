//! Compares decoding with Go's decoders, with kube-apiserver's options, for inputs of each format.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{Ambiguities, Ambiguity, cbor, protobuf, yaml};

/// Members of the table that the Kubernetes version of the corpus does not have.
const NEWER: [&[u8]; 2] = [b"\"evictionResponders\"", b"\"volumeHealth\""];

/// Decodes every input of a corpus, and compares the result with Go's. `decode` returns the JSON
/// and what is ambiguous in the input.
fn compare(name: &str, decode: impl Fn(&[u8]) -> Result<(Vec<u8>, Ambiguities), String>) {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/decoders");
    let folder = std::env::var("DECODER_CORPUS").unwrap_or_else(|_| default.to_owned());
    let path = format!("{folder}/{name}.tsv.zst");
    let rows = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    // Go leaves bytes that are not UTF-8 in JSON that it does not decode.
    let rows = String::from_utf8(super::valid_utf8(&rows).into_owned()).unwrap();
    let (mut accepted, mut failures) = (0, BTreeMap::<&str, Vec<String>>::new());
    for row in rows.lines() {
        let (input, expected) = row.split_once('\t').unwrap();
        let input = BASE64_STANDARD.decode(input).unwrap();
        let found = decode(&input);
        let agrees = match (&found, expected.strip_prefix('!')) {
            // kube-apiserver loses the event; the proxy keeps the text.
            (Ok(_), Some(error)) => {
                // Quantities are kept as they were sent as well.
                error.starts_with("json: error calling MarshalJSON")
                    || error.starts_with("quantities must match")
            }
            (Ok((json, _)), None)
                if NEWER.iter().any(|name| memchr::memmem::find(json, name).is_some()) =>
            {
                true
            }
            (Err(_), refused) => refused.is_some(),
            // Go keeps a random one of two such keys. Times that overflow are not reproduced.
            (Ok((_, ambiguities)), None)
                if ambiguities.contains(Ambiguity::CollidingKeys)
                    || ambiguities.contains(Ambiguity::TruncatedInteger) =>
            {
                true
            }
            (Ok((json, _)), None) => {
                accepted += 1;
                let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
                json == expected.as_bytes() || parse(json) == parse(expected.as_bytes())
            }
        };
        if !agrees {
            let kind = match (&found, expected.starts_with('!')) {
                (Ok(_), true) => "accepted, but not by Go",
                (Err(_), _) => "rejected, but not by Go",
                _ => "another value than in Go",
            };
            let found = found.map(|(json, _)| String::from_utf8(json).unwrap());
            let text = format!("{}\n  {found:?}\n  {expected}", input.escape_ascii());
            failures.entry(kind).or_default().push(text);
        }
    }
    println!("{name}: {} rows, {accepted} decoded alike", rows.lines().count());
    for (kind, failures) in &failures {
        let shown = failures.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        println!("{} {kind}:\n{shown}", failures.len());
    }
    assert!(failures.is_empty(), "see above");
    assert!(accepted > 500, "{accepted}");
}

#[test]
fn cbor_is_decoded_like_in_go() {
    compare("cbor", |input| cbor::to_json(input).map_err(|error| error.to_string()));
}

#[test]
fn yaml_is_decoded_like_in_go() {
    compare("yaml", |input| yaml::to_json(input).map_err(|error| error.to_string()));
}

#[test]
fn protobuf_is_decoded_like_in_go() {
    compare("protobuf", |input| {
        let mut json = Vec::new();
        let transcoded = protobuf::transcode(input, &mut json, 1 << 20);
        transcoded.map(|done| (json, done.ambiguities)).map_err(|error| error.to_string())
    });
}
