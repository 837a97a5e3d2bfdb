//! The identity that the API server receives with a request.

use std::str::FromStr;

use clap::ValueEnum;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use k8s_audit::request::extra_key::domain_prefixed_path;
use k8s_audit::user::{IdentityHeaders, User, UserInfo};

use crate::request::headers::{
    IMPERSONATE_EXTRA_PREFIX, IMPERSONATE_GROUP, IMPERSONATE_PREFIX, IMPERSONATE_UID,
    IMPERSONATE_USER, REMOTE_PREFIX, remove_prefixed,
};
use k8s_audit::request::uri::push_escaped;

const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const REMOTE_EXTRA_PREFIX: &str = "x-remote-extra-";

/// How the API server identifies the user (`--upstream-identity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Identity {
    /// By X-Remote-* headers; the API server trusts the proxy's front-proxy client certificate
    // The API server authorizes the client's own impersonation headers.
    RequestHeader,
    /// By Impersonate-* headers; the proxy's own credentials must be allowed to impersonate
    // The proxy authorizes the client's impersonation, and sends only the resulting user.
    Impersonate,
    /// By the client's own bearer token, which is forwarded
    PassThrough,
}

/// The key in an impersonated user's `extra` that holds the original user
/// (`--upstream-original-user-extra`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalUserExtra {
    key: String,
    header: HeaderName,
}

impl FromStr for OriginalUserExtra {
    type Err = String;

    fn from_str(key: &str) -> Result<OriginalUserExtra, String> {
        domain_prefixed_path(key).map_err(|_| {
            format!("{key:?} is not prefixed with a domain; write it like example.com/called-by")
        })?;
        // Header names are case-insensitive, so upper case would be lost.
        if key.bytes().any(|b| b.is_ascii_uppercase() || b == b'%') {
            return Err(format!("{key:?} contains capital letters or %, which are not accepted"));
        }
        let domain = key.split('/').next().unwrap_or_default();
        let reserved = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
        if reserved("kubernetes.io") || reserved("k8s.io") {
            return Err(format!(
                "{key:?} uses a domain that is reserved for Kubernetes; use your own"
            ));
        }
        let header = escaped_name(IMPERSONATE_EXTRA_PREFIX, key)
            .ok_or_else(|| format!("{key:?} cannot be sent in a header"))?;
        Ok(OriginalUserExtra { key: key.to_owned(), header })
    }
}

impl OriginalUserExtra {
    /// Returns the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Sets the extra to the name of `user`, and replaces any value that `headers`, made by
    /// [`Identity::stamp`], have for it.
    ///
    /// # Errors
    /// See [`Identity::stamp`].
    pub fn stamp(&self, headers: &mut HeaderMap, user: &UserInfo) -> Result<(), StampError> {
        let name = value(&user.username).ok_or(StampError("original user name"))?;
        headers.insert(&self.header, name);
        Ok(())
    }
}

/// The identity cannot be represented in headers; the request must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} cannot be sent in a header without changing it")]
pub struct StampError(&'static str);

impl Identity {
    /// Replaces all identity headers in `headers` with those of `user`.
    ///
    /// `own` are the proxy's credentials, used by [`Identity::Impersonate`].
    ///
    /// # Errors
    /// Returns an error if a part of the identity would not arrive unchanged. `headers` must then
    /// be discarded.
    pub fn stamp(
        self,
        headers: &mut HeaderMap,
        user: &User,
        own: Option<HeaderValue>,
    ) -> Result<(), StampError> {
        let names = match self {
            Identity::RequestHeader => {
                remove_prefixed(headers, REMOTE_PREFIX);
                headers.remove(header::AUTHORIZATION);
                Names {
                    user: REMOTE_USER,
                    uid: REMOTE_UID,
                    group: REMOTE_GROUP,
                    extra_prefix: REMOTE_EXTRA_PREFIX,
                }
            }
            Identity::Impersonate => {
                remove_prefixed(headers, IMPERSONATE_PREFIX);
                match own {
                    Some(own) => headers.insert(header::AUTHORIZATION, own),
                    None => headers.remove(header::AUTHORIZATION),
                };
                Names {
                    user: IMPERSONATE_USER,
                    uid: IMPERSONATE_UID,
                    group: IMPERSONATE_GROUP,
                    extra_prefix: IMPERSONATE_EXTRA_PREFIX,
                }
            }
            Identity::PassThrough => return Ok(()),
        };
        let lines = user.headers(self as usize, |user| names.lines(user));
        for (name, value) in lines.as_ref().map_err(|what| StampError(what))? {
            headers.append(name, value.clone());
        }
        Ok(())
    }
}

/// The names of the headers that identify a user.
struct Names {
    user: HeaderName,
    uid: HeaderName,
    group: HeaderName,
    extra_prefix: &'static str,
}

impl Names {
    fn lines(self, user: &UserInfo) -> IdentityHeaders {
        if user.username.is_empty() {
            return Err("user name");
        }
        let mut lines = vec![(self.user, value(&user.username).ok_or("user name")?)];
        if !user.uid.is_empty() {
            lines.push((self.uid, value(&user.uid).ok_or("UID")?));
        }
        for group in &user.groups {
            lines.push((self.group.clone(), value(group).ok_or("group")?));
        }
        for (key, values) in &user.extra {
            let name = escaped_name(self.extra_prefix, key).ok_or("extra key")?;
            for text in values {
                lines.push((name.clone(), value(text).ok_or("extra value")?));
            }
        }
        Ok(lines.into())
    }
}

/// Returns a header value that the recipient reads as exactly `text`, or `None`: recipients trim
/// blanks at both ends.
fn value(text: &str) -> Option<HeaderValue> {
    let trimmed = text.trim_matches([' ', '\t']);
    (trimmed.len() == text.len()).then(|| HeaderValue::from_bytes(text.as_bytes()).ok())?
}

/// Returns the header name for an extra key: `%`, and bytes that no header name can contain, become
/// `%XX`. Recipients lower-case the name before they decode it, so capital letters are encoded,
/// too.
fn escaped_name(prefix: &str, key: &str) -> Option<HeaderName> {
    let mut name = String::with_capacity(prefix.len() + key.len() + 8);
    name.push_str(prefix);
    for byte in key.bytes() {
        let kept =
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&'*+-.^_`|~".contains(&byte);
        if kept {
            name.push(byte as char);
        } else {
            push_escaped(&mut name, byte);
        }
    }
    HeaderName::from_bytes(name.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> UserInfo {
        UserInfo {
            username: "bob@example.com".into(),
            uid: "7".into(),
            groups: vec!["dev".into(), "a,b".into()],
            extra: [
                ("Example.com/x%y".into(), vec!["1".into(), String::new()]),
                ("scopes".into(), vec!["é".into()]),
            ]
            .into(),
        }
    }

    fn user() -> User {
        info().into()
    }

    fn inbound() -> HeaderMap {
        HeaderMap::from_iter([
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer clients")),
            (IMPERSONATE_USER, HeaderValue::from_static("admin")),
        ])
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn each_mode_sends_one_identity() {
        let own = HeaderValue::from_static("Bearer proxys");
        let mut headers = inbound();
        Identity::RequestHeader.stamp(&mut headers, &user(), Some(own.clone())).unwrap();
        assert_eq!(
            text(&headers),
            [
                "impersonate-user: admin",
                "x-remote-extra-%45xample.com%2fx%25y: ",
                "x-remote-extra-%45xample.com%2fx%25y: 1",
                "x-remote-extra-scopes: é",
                "x-remote-group: a,b",
                "x-remote-group: dev",
                "x-remote-uid: 7",
                "x-remote-user: bob@example.com",
            ]
        );
        let mut headers = inbound();
        Identity::Impersonate.stamp(&mut headers, &user(), Some(own)).unwrap();
        let lines = text(&headers);
        assert_eq!(lines[0], "authorization: Bearer proxys");
        assert!(lines.contains(&"impersonate-user: bob@example.com".to_owned()), "{lines:?}");
        assert_eq!(headers.get_all(IMPERSONATE_USER).iter().count(), 1);
        let mut headers = inbound();
        Identity::PassThrough.stamp(&mut headers, &user(), None).unwrap();
        assert_eq!(text(&headers), text(&inbound()));
    }

    #[test]
    fn the_original_user_is_sent_once_and_by_the_proxy() {
        let called_by: OriginalUserExtra = "acme.io/called_by".parse().unwrap();
        let forged = vec!["root".to_owned(), "x".to_owned()];
        let user = UserInfo { extra: [("acme.io/called_by".into(), forged)].into(), ..info() };
        let mut headers = inbound();
        Identity::Impersonate.stamp(&mut headers, &user.into(), None).unwrap();
        let alice = UserInfo { username: "alice".into(), ..UserInfo::default() };
        called_by.stamp(&mut headers, &alice).unwrap();
        let name = "impersonate-extra-acme.io%2fcalled_by";
        let said: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(said, ["alice"]);
        let padded = UserInfo { username: "alice ".into(), ..UserInfo::default() };
        assert!(called_by.stamp(&mut headers, &padded).is_err());
        for bad in [
            "",
            "called-by",
            "acme.io/",
            "Acme.io/x",
            "acme.io/X",
            "acme.io/a b",
            "acme.io/%41",
            "k8s.io/x",
            "authentication.kubernetes.io/node-name",
        ] {
            assert!(bad.parse::<OriginalUserExtra>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_arrive_changed_is_not_sent() {
        for name in ["", "admin ", "\tadmin", "ad\nmin", "ad\0min", "x\r\nImpersonate-User: y"] {
            let user = UserInfo { username: name.into(), ..UserInfo::default() };
            for mode in [Identity::RequestHeader, Identity::Impersonate] {
                assert!(
                    mode.stamp(&mut HeaderMap::new(), &user.clone().into(), None).is_err(),
                    "{name:?}"
                );
            }
        }
        let group = UserInfo { groups: vec!["g ".into()], ..info() };
        let stamped = Identity::RequestHeader.stamp(&mut HeaderMap::new(), &group.into(), None);
        assert_eq!(stamped, Err(StampError("group")));
    }
}
