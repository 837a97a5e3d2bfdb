//! Request bodies in Protocol Buffers, which kubectl sends for some built-in kinds.

use serde_json::Value;

/// Maximum size of the JSON of an object; larger objects are rejected.
const LIMIT: usize = 24 << 20;

/// Why a body in Protocol Buffers is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not an object of a built-in kind.
    #[error(transparent)]
    Malformed(#[from] audit_body::protobuf::Error),
    /// Its JSON would exceed [`LIMIT`].
    #[error("the object is longer than {LIMIT} bytes in JSON")]
    TooLong,
    /// It has a field that the table of messages does not contain, and which would be lost.
    #[error("the object has fields of a newer Kubernetes version")]
    UnknownFields,
    /// The converted object is not valid JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Converts an object in its envelope (`k8s\0`) to JSON.
///
/// # Errors
/// See [`Error`].
pub(crate) fn object(bytes: &[u8]) -> Result<Value, Error> {
    let mut json = Vec::with_capacity(bytes.len() * 2);
    let transcoded = audit_body::protobuf::transcode(bytes, &mut json, LIMIT)?;
    if transcoded.truncated {
        return Err(Error::TooLong);
    }
    if transcoded.unknown {
        return Err(Error::UnknownFields);
    }
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_body_of_kubectl_create_is_converted() {
        let config_map =
            b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x1b\n\x11\n\x01x\x12\0\x1a\0\"\0*\0\
                           2\x008\0B\0\x12\x06\n\x01a\x12\x011\x1a\0\"\0";
        let expected = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "x"},
            "data": {"a": "1"},
        });
        assert_eq!(object(config_map).unwrap(), expected);
    }

    #[test]
    fn what_would_be_lost_is_rejected() {
        assert!(matches!(object(b"{}"), Err(Error::Malformed(_))));
        let unknown_kind = b"k8s\0\n\x0b\n\x02v1\x12\x05Other\x12\0";
        assert!(matches!(object(unknown_kind), Err(Error::Malformed(_))));
        let unknown_field = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x03\x98\x06\x01";
        assert!(matches!(object(unknown_field), Err(Error::UnknownFields)));
    }
}
