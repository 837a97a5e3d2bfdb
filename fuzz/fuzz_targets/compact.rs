//! Any bytes, cut anywhere: taken if and only if serde_json takes them, with the same meaning, and
//! valid JSON when cut.
//!
//! The first byte says where to cut the rest.

#![no_main]

use audit_body::{Compactor, Options, Problem, Text};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some((cut, body)) = input.split_first() else { return };
    let cut = usize::from(*cut) + 1;
    let compact = |limit| {
        let mut compactor = Compactor::new(Options { limit, ..Options::default() });
        body.chunks(cut).for_each(|piece| compactor.push(piece));
        compactor.finish().text
    };
    match compact(None) {
        Ok(Text { json, truncated }) => {
            assert!(!truncated);
            assert!(serde_json::from_slice::<IgnoredAny>(body).is_ok());
            // Not all that is JSON is UTF-8, and numbers may be too large for a tree.
            if let Ok(expected) = serde_json::from_slice::<Value>(body) {
                assert_eq!(serde_json::from_slice::<Value>(&json).expect("valid JSON"), expected);
            }
        }
        Err(error) if error.problem == Problem::TooDeep => {}
        Err(_) => assert!(serde_json::from_slice::<IgnoredAny>(body).is_err()),
    }
    if let Ok(Text { json, .. }) = compact(Some(cut + 3)) {
        assert!(json.len() <= cut + 3);
        assert!(serde_json::from_slice::<IgnoredAny>(&json).is_ok());
    }
});
