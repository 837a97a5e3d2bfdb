//! The user that makes a request.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::OnceLock;

use http::{HeaderName, HeaderValue};

/// Group of all users with valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of the anonymous user.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of the anonymous user: requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// Kubernetes' `user.Info` (authentication.k8s.io/v1 `UserInfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    /// Name, unique among active users.
    pub username: String,
    /// Identifier that is never reused; empty if the authenticator provides none.
    pub uid: String,
    /// Groups in the order in which the authenticator returned them, with duplicates.
    pub groups: Vec<String>,
    /// Additional attributes: keys, and for each its values in order.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Returns the anonymous user.
    pub fn anonymous() -> UserInfo {
        UserInfo {
            username: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..UserInfo::default()
        }
    }

    /// Returns whether this is the anonymous user or one in the group `system:unauthenticated`.
    pub fn is_anonymous(&self) -> bool {
        self.username == ANONYMOUS || self.groups.iter().any(|g| g == UNAUTHENTICATED)
    }

    /// Appends the group `system:authenticated` like kube-apiserver's `AuthenticatedGroupAdder`:
    /// unless the user is anonymous or already in that group.
    #[must_use]
    pub fn into_authenticated(mut self) -> UserInfo {
        if !self.is_anonymous() && !self.groups.iter().any(|g| g == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}

/// A [`UserInfo`] with caches of its encodings, for users that make many requests.
#[derive(Debug, Default)]
pub struct User {
    info: UserInfo,
    json: OnceLock<Box<[u8]>>,
    headers: [OnceLock<IdentityHeaders>; 2],
}

/// Headers that carry a user's identity, or the reason why it does not fit into headers.
pub type IdentityHeaders = Result<Box<[(HeaderName, HeaderValue)]>, &'static str>;

impl User {
    /// Returns the user's JSON for events. The first call computes it with `make`.
    pub fn json(&self, make: impl FnOnce(&UserInfo) -> Vec<u8>) -> &[u8] {
        self.json.get_or_init(|| make(&self.info).into())
    }

    /// Returns the headers that carry the user's identity. The first call computes them with
    /// `make`.
    ///
    /// There are two caches, for two kinds of headers; `way` selects one (0 or 1).
    pub fn headers(
        &self,
        way: usize,
        make: impl FnOnce(&UserInfo) -> IdentityHeaders,
    ) -> &IdentityHeaders {
        self.headers[way].get_or_init(|| make(&self.info))
    }
}

impl From<UserInfo> for User {
    fn from(info: UserInfo) -> User {
        User { info, ..User::default() }
    }
}

impl Deref for User {
    type Target = UserInfo;

    fn deref(&self) -> &UserInfo {
        &self.info
    }
}

impl PartialEq for User {
    fn eq(&self, other: &User) -> bool {
        self.info == other.info
    }
}

impl Eq for User {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_adder_appends_once_and_never_to_anonymous() {
        let cases: [(&str, &[&str], &[&str]); 5] = [
            ("u", &[], &[AUTHENTICATED]),
            ("u", &["g"], &["g", AUTHENTICATED]),
            (ANONYMOUS, &[UNAUTHENTICATED], &[UNAUTHENTICATED]),
            ("u", &[UNAUTHENTICATED], &[UNAUTHENTICATED]),
            ("u", &[AUTHENTICATED, "g"], &[AUTHENTICATED, "g"]),
        ];
        for (name, given, expected) in cases {
            let user = UserInfo {
                username: name.into(),
                groups: given.iter().map(ToString::to_string).collect(),
                ..UserInfo::default()
            };
            assert_eq!(user.into_authenticated().groups, expected, "{name} {given:?}");
        }
    }
}
