//! Any bytes as the YAML of an object or an apply patch: no panic, and valid JSON comes out.

#![no_main]

use audit_body::RequestBodyKind;
use audit_body::decode::{Format, Request, Resource, decode};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|input: &[u8]| {
    let resource =
        Resource { group: b"", version: b"v1", resource: b"configmaps", subresource: b"" };
    for kind in [RequestBodyKind::Object, RequestBodyKind::Patch] {
        let request = Request { format: Format::Yaml, kind, resource };
        if let Ok(decoded) = decode(&request, input) {
            serde_json::from_slice::<IgnoredAny>(&decoded.json).expect("valid JSON");
        }
    }
});
