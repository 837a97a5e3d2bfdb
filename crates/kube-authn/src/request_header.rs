//! Authenticates front proxies: a client with one of their certificates names the user in headers
//! (kube-apiserver's `requestheader` authenticator).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{CertificateError, ClientCa, ClientCertificates, User, UserInfo};
use k8s_audit::request::query::{self, Plus};

/// The trusted front proxies.
pub struct RequestHeader {
    ca: Arc<ClientCa>,
    /// Accepted common names; empty for any.
    allowed_names: Vec<String>,
    names: RequestHeaderNames,
}

/// The headers in which front proxies name the user, in order of precedence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeaderNames {
    /// `--requestheader-username-headers`
    pub username: Vec<HeaderName>,
    /// `--requestheader-uid-headers`
    pub uid: Vec<HeaderName>,
    /// `--requestheader-group-headers`
    pub group: Vec<HeaderName>,
    /// `--requestheader-extra-headers-prefix`
    pub extra_prefix: Vec<HeaderName>,
}

/// Why the identity headers of a front proxy are rejected, for the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestHeaderError {
    /// The client has no certificate of a front proxy.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The common name is not in `--requestheader-allowed-names`.
    #[error("x509: subject with cn={0:?} is not in the allowed list")]
    Name(Arc<str>),
    /// A header is not UTF-8.
    #[error("header {0} is not valid UTF-8")]
    Encoding(HeaderName),
}

impl RequestHeader {
    /// Trusts certificates of `ca` with one of `allowed_names`; any name if the list is empty.
    pub fn new(
        ca: Arc<ClientCa>,
        allowed_names: Vec<String>,
        names: RequestHeaderNames,
    ) -> RequestHeader {
        RequestHeader { ca, allowed_names, names }
    }

    /// Returns the user named in the headers of the front proxy, if any.
    ///
    /// # Errors
    /// Returns an error if the client is not a trusted front proxy.
    pub fn user(
        &self,
        certificates: &ClientCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<User>>, RequestHeaderError> {
        let name = certificates.proxy(&self.ca)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|n| **n == *name) {
            return Err(RequestHeaderError::Name(name));
        }
        Ok(self.names.user(headers)?.map(|user| Arc::new(user.into_authenticated().into())))
    }

    /// Removes all headers in which a front proxy can name a user.
    pub fn remove_headers(&self, headers: &mut HeaderMap) {
        let names = &self.names;
        for name in names.username.iter().chain(&names.uid).chain(&names.group) {
            headers.remove(name);
        }
        let extra: Vec<HeaderName> =
            headers.keys().filter(|name| names.extra_key(name).is_some()).cloned().collect();
        for name in extra {
            headers.remove(name);
        }
    }
}

impl RequestHeaderNames {
    fn user(&self, headers: &HeaderMap) -> Result<Option<UserInfo>, RequestHeaderError> {
        let username = first(headers, &self.username)?;
        if username.is_empty() {
            return Ok(None);
        }
        let mut groups = Vec::new();
        for name in &self.group {
            for value in headers.get_all(name).iter().filter(|value| !value.is_empty()) {
                groups.push(text(name, value)?);
            }
        }
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            if let Some(key) = self.extra_key(name) {
                extra.entry(decoded(key)).or_default().push(text(name, value)?);
            }
        }
        Ok(Some(UserInfo { username, uid: first(headers, &self.uid)?, groups, extra }))
    }

    /// Returns the part of the header name after the prefix, if it has the prefix.
    fn extra_key<'a>(&self, name: &'a HeaderName) -> Option<&'a str> {
        self.extra_prefix.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()))
    }
}

/// Returns the first line of the first header that is not empty.
fn first(headers: &HeaderMap, names: &[HeaderName]) -> Result<String, RequestHeaderError> {
    let found = names.iter().find_map(|name| {
        headers.get(name).filter(|value| !value.is_empty()).map(|value| (name, value))
    });
    found.map_or(Ok(String::new()), |(name, value)| text(name, value))
}

fn text(name: &HeaderName, value: &HeaderValue) -> Result<String, RequestHeaderError> {
    String::from_utf8(value.as_bytes().to_vec())
        .map_err(|_| RequestHeaderError::Encoding(name.clone()))
}

/// Percent-decodes the key of an extra; returns it unchanged if that fails.
fn decoded(key: &str) -> String {
    query::decode(key, Plus::IsPlus)
        .and_then(|key| String::from_utf8(key.into_owned()).ok())
        .unwrap_or_else(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> RequestHeaderNames {
        let names = |all: &[&'static str]| all.iter().map(|n| HeaderName::from_static(n)).collect();
        RequestHeaderNames {
            username: names(&["x-remote-user", "x-remote-user-2"]),
            uid: names(&["x-remote-uid", "x-remote-uid-2"]),
            group: names(&["x-remote-group", "x-remote-group-2"]),
            extra_prefix: names(&["x-remote-extra-"]),
        }
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(format!("X-Remote-{name}").as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn users_uids_and_groups_are_read_as_kube_apiserver_reads_them() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, &'a str, &'a [&'a str])>);
        let cases: &[Case] = &[
            (&[], None),
            (&[("User", "Bob")], Some(("Bob", "", &[]))),
            (&[("User", "")], None),
            (&[("Group", "g"), ("Uid", "1")], None),
            (&[("User-2", "second")], Some(("second", "", &[]))),
            (&[("User", ""), ("User-2", "second")], Some(("second", "", &[]))),
            (&[("User-2", "second"), ("User", "first")], Some(("first", "", &[]))),
            (&[("User", "a"), ("User", "b")], Some(("a", "", &[]))),
            (
                &[
                    ("User", "Bob"),
                    ("Group-2", "two-1"),
                    ("Group", "one-1"),
                    ("Group", ""),
                    ("Group", "one-2, x"),
                    ("Group-2", "two-2"),
                ],
                Some(("Bob", "", &["one-1", "one-2, x", "two-1", "two-2"])),
            ),
            (&[("User", "Bob"), ("Uid-2", "2"), ("Uid", "1")], Some(("Bob", "1", &[]))),
        ];
        for (lines, expected) in cases {
            let user = names().user(&headers(lines)).unwrap();
            let user = user.as_ref().map(|u| (u.username.as_str(), u.uid.as_str(), &u.groups[..]));
            let groups: Vec<String> = expected
                .iter()
                .flat_map(|(_, _, groups)| groups.iter().map(ToString::to_string))
                .collect();
            assert_eq!(user, expected.map(|(name, uid, _)| (name, uid, &groups[..])), "{lines:?}");
        }
    }

    #[test]
    fn extra_keys_are_lower_case_and_decoded_where_possible() {
        let lines = [
            ("User", "Bob"),
            ("Extra-Scopes", "s1"),
            ("Extra-Scopes", "s2"),
            ("Extra-Key1", "a"),
            ("Extra-KEY1", ""),
            ("Extra-", "v"),
            ("Extra-Example.com%2fpercent%2520encoded", "1"),
            ("Extra-Percent%20encoded", "2"),
            ("Extra-Almost%zzpercent%xxencoded", "3"),
        ];
        let user = names().user(&headers(&lines)).unwrap().unwrap();
        let expected: [(&str, &[&str]); 6] = [
            ("", &["v"]),
            ("almost%zzpercent%xxencoded", &["3"]),
            ("example.com/percent%20encoded", &["1"]),
            ("key1", &["a", ""]),
            ("percent encoded", &["2"]),
            ("scopes", &["s1", "s2"]),
        ];
        let extra: Vec<(&str, Vec<&str>)> = user
            .extra
            .iter()
            .map(|(key, values)| (key.as_str(), values.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(extra, expected.map(|(key, values)| (key, values.to_vec())));
    }

    #[test]
    fn what_is_no_text_is_no_identity() {
        let mut headers = headers(&[("User", "Bob")]);
        headers.append("x-remote-group", HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(matches!(names().user(&headers), Err(RequestHeaderError::Encoding(_))));
    }
}
