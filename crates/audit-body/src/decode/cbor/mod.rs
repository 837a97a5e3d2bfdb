//! CBOR as kube-apiserver decodes it: `fxamacker/cbor` with the options of
//! `k8s.io/apimachinery/pkg/runtime/serializer/cbor`.
//!
//! No general CBOR crate decodes with these options: duplicate keys, NaN, infinities, bignums and
//! integers beyond 64 bits are errors; byte strings are text, encoded as base64 or base16 according
//! to tags 21 to 23; indefinite lengths are accepted; other tags are dropped. The result is JSON
//! with sorted keys. Nothing recurses, so nesting needs no stack.

mod head;
mod tape;
mod time;
mod write;

use super::ambiguity::Ambiguities;

/// Why a CBOR data item is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cbor: {0}")]
pub(super) struct Error(pub(super) &'static str);

/// Converts `input`, which must be a single data item, to JSON.
///
/// # Errors
/// kube-apiserver also rejects the item, if it decodes it without a schema.
pub(super) fn to_json(input: &[u8]) -> Result<(Vec<u8>, Ambiguities), Error> {
    let tape = tape::parse(input)?;
    let json = write::to_json(&tape)?;
    Ok((json, tape.ambiguities))
}

#[cfg(test)]
mod tests;
