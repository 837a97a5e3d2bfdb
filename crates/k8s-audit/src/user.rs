//! The user a request is made by, as Kubernetes knows it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::OnceLock;

use http::{HeaderName, HeaderValue};

/// Group of everyone who presented valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of requests without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of the user without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// Kubernetes' `user.Info` (authentication.k8s.io/v1 `UserInfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    /// Unique name among active users.
    pub username: String,
    /// Unique across time; empty where the credentials carry none.
    pub uid: String,
    /// Groups, in the order in which they were learnt; duplicates are kept.
    pub groups: Vec<String>,
    /// Further facts: key to values, values in order.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The user of requests without credentials.
    pub fn anonymous() -> UserInfo {
        UserInfo {
            username: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..UserInfo::default()
        }
    }

    /// Whether this is the anonymous user, or one in its group.
    pub fn is_anonymous(&self) -> bool {
        self.username == ANONYMOUS || self.groups.iter().any(|g| g == UNAUTHENTICATED)
    }

    /// Adds `system:authenticated` as kube-apiserver's group adder does: last, and only where
    /// neither it, nor `system:unauthenticated`, nor the anonymous name is there already.
    #[must_use]
    pub fn into_authenticated(mut self) -> UserInfo {
        if !self.is_anonymous() && !self.groups.iter().any(|g| g == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}

/// A user whose requests come again and again. What is made of it for each of them is kept with it.
#[derive(Debug, Default)]
pub struct User {
    info: UserInfo,
    json: OnceLock<Box<[u8]>>,
    headers: [OnceLock<IdentityHeaders>; 2],
}

/// The headers that say who a user is; or what of it cannot be said in headers.
pub type IdentityHeaders = Result<Box<[(HeaderName, HeaderValue)]>, &'static str>;

impl User {
    /// The user in events, which `make` encodes the first time.
    pub fn json(&self, make: impl FnOnce(&UserInfo) -> Vec<u8>) -> &[u8] {
        self.json.get_or_init(|| make(&self.info).into())
    }

    /// The headers that say who it is, which `make` makes the first time; `way` tells the two ways of
    /// that apart.
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
