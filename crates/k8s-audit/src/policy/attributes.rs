//! The attributes of a request that a policy evaluates.

use crate::RequestInfo;
use crate::UserInfo;

/// The attributes of a request that rules compare. kube-apiserver derives them from the method, the
/// URL, and the credentials, before it reads the body.
pub trait Attributes {
    /// Returns the name of the authenticated user (not of an impersonated one); `None` if
    /// authentication failed.
    fn user(&self) -> Option<&[u8]>;
    /// Returns whether `matches` returns `true` for one of the user's groups.
    fn any_group(&self, matches: impl FnMut(&[u8]) -> bool) -> bool;
    /// Returns the verb; for non-resource requests the method in lower case.
    fn verb(&self) -> &[u8];
    /// Returns whether the URL names an API resource.
    fn is_resource(&self) -> bool;
    /// Namespace; empty for cluster-scoped objects and for requests over all namespaces.
    fn namespace(&self) -> &[u8];
    /// API group; empty for the core group.
    fn group(&self) -> &[u8];
    /// Resource, in the plural.
    fn resource(&self) -> &[u8];
    /// Subresource; empty if there is none.
    fn subresource(&self) -> &[u8];
    /// Object name; empty for collections and for most creates.
    fn name(&self) -> &[u8];
    /// Returns the decoded path without the query.
    fn path(&self) -> &[u8];
}

/// A request to the proxy with its user, which implements [`Attributes`].
#[derive(Debug, Clone, Copy)]
pub struct Authenticated<'a> {
    /// The authenticated user.
    pub user: Option<&'a UserInfo>,
    /// The attributes of method and URL.
    pub info: &'a RequestInfo,
}

impl Attributes for Authenticated<'_> {
    #[inline]
    fn user(&self) -> Option<&[u8]> {
        self.user.map(|user| user.username.as_bytes())
    }

    #[inline]
    fn any_group(&self, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        self.user.is_some_and(|user| user.groups.iter().any(|group| matches(group.as_bytes())))
    }

    #[inline]
    fn verb(&self) -> &[u8] {
        self.info.verb().as_bytes()
    }

    #[inline]
    fn is_resource(&self) -> bool {
        self.info.is_resource()
    }

    #[inline]
    fn namespace(&self) -> &[u8] {
        self.info.namespace()
    }

    #[inline]
    fn group(&self) -> &[u8] {
        self.info.group()
    }

    #[inline]
    fn resource(&self) -> &[u8] {
        self.info.resource()
    }

    #[inline]
    fn subresource(&self) -> &[u8] {
        self.info.subresource()
    }

    #[inline]
    fn name(&self) -> &[u8] {
        self.info.name()
    }

    #[inline]
    fn path(&self) -> &[u8] {
        self.info.path()
    }
}
