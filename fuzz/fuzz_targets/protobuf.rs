//! Any bytes as they are, and as the message of a kind: no panic, valid JSON, about within the
//! limit.
//!
//! The first byte says which kind, the second the limit.

#![no_main]

use audit_body::protobuf::transcode;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

const KINDS: [(&str, &str); 8] = [
    ("v1", "Pod"),
    ("v1", "List"),
    ("v1", "Event"),
    ("v1", "Secret"),
    ("v1", "Status"),
    ("apps/v1", "StatefulSetList"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
];

fuzz_target!(|input: &[u8]| {
    let [kind, limit, message @ ..] = input else { return };
    let limit = usize::from(*limit) * 64;
    check(input, limit);
    let (api_version, kind) = KINDS[usize::from(*kind) % KINDS.len()];
    let (version, name) = (field(1, api_version.as_bytes()), field(2, kind.as_bytes()));
    let type_meta = field(1, &[version, name].concat());
    check(&[&b"k8s\0"[..], &type_meta, &field(2, message)].concat(), limit);
});

fn check(body: &[u8], limit: usize) {
    let mut out = b"before".to_vec();
    if transcode(body, &mut out, limit).is_err() {
        assert_eq!(out, b"before");
        return;
    }
    let json = &out[6..];
    serde_json::from_slice::<IgnoredAny>(json).expect("valid JSON");
    // Over it go the kind, and the names and brackets of the nesting, 200 levels at most.
    assert!(json.len() <= limit + 32 * 1024);
}

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(bytes);
    field
}
