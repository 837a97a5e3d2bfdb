//! Any bytes as the JSON of an object, a patch or options: no panic, and what comes out is valid
//! JSON that is decoded to itself.

#![no_main]

use audit_body::RequestBodyKind;
use audit_body::decode::{Format, Request, Resource, decode};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

const RESOURCES: [(&[u8], &[u8], &[u8]); 6] = [
    (b"", b"v1", b"configmaps"),
    (b"", b"v1", b"pods"),
    (b"", b"v1", b"secrets"),
    (b"rbac.authorization.k8s.io", b"v1", b"clusterrolebindings"),
    (b"apiextensions.k8s.io", b"v1", b"customresourcedefinitions"),
    (b"example.com", b"v1", b"widgets"),
];

fuzz_target!(|input: &[u8]| {
    let [which, body @ ..] = input else { return };
    let (group, version, resource) = RESOURCES[usize::from(*which) % RESOURCES.len()];
    let kind = match which >> 6 {
        0 => RequestBodyKind::Patch,
        1 => RequestBodyKind::DeleteOptions,
        _ => RequestBodyKind::Object,
    };
    let resource = Resource { group, version, resource, subresource: b"" };
    let request = Request { format: Format::Json, kind, resource };
    let Ok(decoded) = decode(&request, body) else { return };
    serde_json::from_slice::<IgnoredAny>(&decoded.json).expect("valid JSON");
    if kind == RequestBodyKind::Object {
        let again = decode(&request, &decoded.json).expect("it is decoded again");
        assert!(again.ambiguities.is_empty());
    }
});
