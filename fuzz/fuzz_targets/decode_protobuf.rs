//! Any bytes as the protobuf of an object, in an envelope and as one: no panic, and valid JSON
//! comes out.

#![no_main]

use audit_body::RequestBodyKind;
use audit_body::decode::{Format, Request, Resource, decode};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|input: &[u8]| {
    for resource in [&b"configmaps"[..], b"pods", b"events"] {
        let resource = Resource { group: b"", version: b"v1", resource, subresource: b"" };
        let kind = RequestBodyKind::Object;
        let request = Request { format: Format::Protobuf, kind, resource };
        if let Ok(decoded) = decode(&request, &[b"k8s\0", input].concat()) {
            serde_json::from_slice::<IgnoredAny>(&decoded.json).expect("valid JSON");
        }
    }
});
