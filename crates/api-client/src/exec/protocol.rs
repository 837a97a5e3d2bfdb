//! `ExecCredential`: the input and output of a credential plugin.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::plugin::{ApiVersion, ExecPlugin};
use crate::credentials::bearer;

/// The content of `KUBERNETES_EXEC_INFO`.
///
/// client-go writes the members in this order.
#[derive(Serialize)]
struct ExecInfo<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'a Value>,
    interactive: bool,
}

/// Returns the value of `KUBERNETES_EXEC_INFO`. The proxy never has a terminal to offer.
pub(super) fn exec_info(plugin: &ExecPlugin) -> String {
    let spec = Spec { cluster: plugin.cluster.as_ref(), interactive: false };
    let info = ExecInfo { kind: "ExecCredential", api_version: plugin.api_version.as_str(), spec };
    serde_json::to_string(&info).expect("strings and JSON values can be written")
}

/// A credential that a plugin returned.
pub(super) struct ReturnedCredential {
    /// `Authorization`, marked as sensitive.
    pub(super) header: Option<HeaderValue>,
    /// The client certificate and its key, PEM.
    pub(super) certificate: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// When it expires.
    pub(super) expires: Option<SystemTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Reads the standard output of a plugin. Errors have client-go's words and quote nothing of it.
pub(super) fn parse(stdout: &[u8], configured: ApiVersion) -> Result<ReturnedCredential, String> {
    let credential: ExecCredential = serde_json::from_slice(stdout).map_err(|error| {
        let at = format!("line {} column {}", error.line(), error.column());
        match error.is_data() {
            true => format!("decoding stdout: a member has the wrong type at {at}"),
            false if stdout.iter().all(u8::is_ascii_whitespace) => {
                "decoding stdout: the plugin printed nothing".to_owned()
            }
            false => format!("decoding stdout: not JSON at {at}"),
        }
    })?;
    if credential.kind != "ExecCredential" {
        return Err("decoding stdout: the kind is not ExecCredential".to_owned());
    }
    if credential.api_version != configured.as_str() {
        let returned: String = credential.api_version.chars().take(100).collect();
        return Err(format!(
            "exec plugin is configured to use API version {}, plugin returned version {returned}",
            configured.as_str()
        ));
    }
    let status = credential.status.ok_or("exec plugin didn't return a status field")?;
    let token = status.token.filter(|token| !token.is_empty()).map(Zeroizing::new);
    let certificate = status.client_certificate_data.filter(|pem| !pem.is_empty());
    let key = status.client_key_data.filter(|pem| !pem.is_empty());
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Some((certificate.into_bytes(), Zeroizing::new(key.into_bytes())))
        }
        (None, None) if token.is_none() => {
            return Err("exec plugin didn't return a token or cert/key pair".to_owned());
        }
        (None, None) => None,
        _ => return Err("exec plugin returned only certificate or key, not both".to_owned()),
    };
    let header = match token {
        Some(token) => Some(bearer(&token, "status.token").map_err(|error| error.to_string())?),
        None => None,
    };
    let expires = match status.expiration_timestamp.filter(|text| !text.is_empty()) {
        Some(text) => {
            let time: Timestamp = text.parse().map_err(
                |_| "status.expirationTimestamp is not an RFC 3339 time, such as 2030-01-02T03:04:05Z",
            )?;
            let since = Duration::try_from(time.as_duration()).unwrap_or_default();
            Some(UNIX_EPOCH + since)
        }
        None => None,
    };
    Ok(ReturnedCredential { header, certificate, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(status: &str) -> String {
        format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}"#
        )
    }

    fn error(text: &str) -> String {
        parse(text.as_bytes(), ApiVersion::V1).map(|_| ()).unwrap_err()
    }

    #[test]
    fn tokens_certificates_and_expiry() {
        let text = credential(
            r#"{"token":"t","expirationTimestamp":"1970-01-01T01:00:10+01:00","clientCertificateData":"C","clientKeyData":"K"}"#,
        );
        let returned = parse(text.as_bytes(), ApiVersion::V1).unwrap();
        assert_eq!(returned.header.unwrap(), "Bearer t");
        assert_eq!(returned.expires, Some(UNIX_EPOCH + Duration::from_secs(10)));
        let (certificate, key) = returned.certificate.unwrap();
        assert_eq!((certificate.as_slice(), key.as_slice()), (&b"C"[..], &b"K"[..]));
        let text = credential(r#"{"token":"t","expirationTimestamp":null,"clientKeyData":""}"#);
        let returned = parse(text.as_bytes(), ApiVersion::V1).unwrap();
        assert!(returned.expires.is_none() && returned.certificate.is_none());
    }

    #[test]
    fn errors_have_the_words_of_client_go_and_no_secret() {
        for (text, wanted) in [
            ("", "decoding stdout: the plugin printed nothing"),
            ("s3cret", "decoding stdout: not JSON at line 1 column 1"),
            (r#"{"kind":7}"#, "decoding stdout: a member has the wrong type at line 1 column 9"),
            (r#"{"kind":"Pod"}"#, "decoding stdout: the kind is not ExecCredential"),
            (
                r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1"}"#,
                "exec plugin is configured to use API version client.authentication.k8s.io/v1, \
                 plugin returned version client.authentication.k8s.io/v1beta1",
            ),
            (&credential("null"), "exec plugin didn't return a status field"),
            (&credential("{}"), "exec plugin didn't return a token or cert/key pair"),
            (
                &credential(r#"{"clientKeyData":"s3cret"}"#),
                "exec plugin returned only certificate or key, not both",
            ),
            (
                &credential(r#"{"token":"s3c\nret"}"#),
                "status.token: the token has characters that a header cannot have",
            ),
            (
                &credential(r#"{"token":"s3cret","expirationTimestamp":"tomorrow"}"#),
                "status.expirationTimestamp is not an RFC 3339 time, such as 2030-01-02T03:04:05Z",
            ),
        ] {
            assert_eq!(error(text), wanted);
        }
    }
}
