//! The modes in which kube-apiserver authorizes impersonation (KEP-5284), in its order.

use std::borrow::Cow;

use super::service_account;
use k8s_audit::request::label_selector::is_dns_subdomain;
use kube_authn::UserInfo;

/// The key in a ServiceAccount token's `extra` that names the node of its pod.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The key that replaces the whole `extra` of a caller that impersonates its own node.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";

/// A mode of authorizing impersonation. All except the last are constrained: they allow it only for
/// certain requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A pod's ServiceAccount impersonates the node that the pod runs on.
    AssociatedNode,
    /// Any node.
    ArbitraryNode,
    /// A ServiceAccount, by its name alone.
    ServiceAccount,
    /// A user that is neither node nor ServiceAccount, with UID, groups and extra.
    UserInfo,
    /// The verb `impersonate`, for all requests.
    Legacy,
}

impl Mode {
    /// All modes in the order in which they are tried.
    pub(super) const ALL: [Mode; 5] = [
        Mode::AssociatedNode,
        Mode::ArbitraryNode,
        Mode::ServiceAccount,
        Mode::UserInfo,
        Mode::Legacy,
    ];

    /// Returns the verb for authorizing the identity.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "impersonate:associated-node",
            Mode::ArbitraryNode => "impersonate:arbitrary-node",
            Mode::ServiceAccount => "impersonate:serviceaccount",
            Mode::UserInfo => "impersonate:user-info",
            Mode::Legacy => "impersonate",
        }
    }

    /// Returns the value of `impersonationConstraint` in the event.
    pub(super) fn constraint(self) -> Option<&'static str> {
        (self != Mode::Legacy).then(|| self.verb())
    }

    /// Returns the verb for authorizing a request with `verb`.
    pub(super) fn verb_on(self, verb: &str) -> String {
        self.verb().replacen("impersonate:", "impersonate-on:", 1) + ":" + verb
    }

    /// Returns whether the mode allows `caller` to impersonate `requested`. This is part of the
    /// authorization: a pod is associated with its own node only.
    pub(super) fn applies(self, caller: &UserInfo, requested: &UserInfo) -> bool {
        let name_only =
            requested.uid.is_empty() && requested.groups.is_empty() && requested.extra.is_empty();
        let node = node(&requested.username);
        match self {
            Mode::AssociatedNode => {
                let own = caller.extra.get(NODE_NAME).map(Vec::as_slice);
                let is_own = |node: &str| matches!(own, Some([own]) if own == node);
                name_only && service_account(&caller.username).is_some() && node.is_some_and(is_own)
            }
            Mode::ArbitraryNode => name_only && node.is_some(),
            Mode::ServiceAccount => name_only && service_account(&requested.username).is_some(),
            Mode::UserInfo => node.is_none() && service_account(&requested.username).is_none(),
            Mode::Legacy => true,
        }
    }

    /// Returns the caller as passed to authorizers. For its own node, only the keys of its `extra`
    /// are kept, so that one result applies to its pods on all nodes.
    pub(super) fn requester(self, caller: &UserInfo) -> Cow<'_, UserInfo> {
        if self != Mode::AssociatedNode {
            return Cow::Borrowed(caller);
        }
        let keys = caller.extra.keys().cloned().collect();
        Cow::Owned(UserInfo { extra: [(NODE_KEYS.into(), keys)].into(), ..caller.clone() })
    }
}

/// Returns the node's name if `username` is that of a node.
pub(super) fn node(username: &str) -> Option<&str> {
    username.strip_prefix("system:node:").filter(|name| is_dns_subdomain(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(username: &str) -> UserInfo {
        UserInfo { username: username.into(), ..UserInfo::default() }
    }

    fn pod_on(nodes: &[&str]) -> UserInfo {
        let nodes = nodes.iter().map(ToString::to_string).collect();
        let extra = [(NODE_NAME.to_owned(), nodes), ("a".to_owned(), vec!["1".to_owned()])];
        UserInfo { extra: extra.into(), ..user("system:serviceaccount:ns:agent") }
    }

    fn applicable(caller: &UserInfo, requested: &UserInfo) -> Vec<Mode> {
        Mode::ALL.into_iter().filter(|mode| mode.applies(caller, requested)).collect()
    }

    #[test]
    fn each_mode_is_for_certain_users() {
        use Mode::*;
        let admin = user("admin");
        assert_eq!(applicable(&admin, &user("jane")), [UserInfo, Legacy]);
        let account = user("system:serviceaccount:ns:app");
        assert_eq!(applicable(&admin, &account), [ServiceAccount, Legacy]);
        let node = user("system:node:n1");
        assert_eq!(applicable(&admin, &node), [ArbitraryNode, Legacy]);
        assert_eq!(applicable(&pod_on(&["n1"]), &node), [AssociatedNode, ArbitraryNode, Legacy]);
        for elsewhere in [&["n2"][..], &["n1", "n1"], &[]] {
            assert_eq!(applicable(&pod_on(elsewhere), &node), [ArbitraryNode, Legacy]);
        }
        let node_by_user = super::UserInfo { username: "jane".into(), ..pod_on(&["n1"]) };
        assert_eq!(applicable(&node_by_user, &node), [ArbitraryNode, Legacy]);
        for name in ["system:node:", "system:node:N1", "system:serviceaccount:ns:a:b"] {
            assert_eq!(applicable(&admin, &user(name)), [UserInfo, Legacy], "{name}");
        }
        for requested in [&node, &account] {
            let more = super::UserInfo { groups: vec!["g".into()], ..requested.clone() };
            assert_eq!(applicable(&pod_on(&["n1"]), &more), [Legacy]);
            let more = super::UserInfo { uid: "u".into(), ..requested.clone() };
            assert_eq!(applicable(&pod_on(&["n1"]), &more), [Legacy]);
            let more =
                super::UserInfo { extra: [("a/b".into(), vec![])].into(), ..requested.clone() };
            assert_eq!(applicable(&pod_on(&["n1"]), &more), [Legacy]);
        }
    }

    #[test]
    fn only_the_keys_of_a_pods_extra_are_shown_when_it_is_to_be_its_node() {
        let pod = pod_on(&["n1"]);
        let shown = Mode::AssociatedNode.requester(&pod).into_owned();
        let keys = vec!["a".to_owned(), NODE_NAME.to_owned()];
        assert_eq!(shown.extra, [(NODE_KEYS.to_owned(), keys)].into());
        assert_eq!(shown.username, pod.username);
        assert_eq!(*Mode::ArbitraryNode.requester(&pod), pod);
        assert_eq!(Mode::AssociatedNode.verb_on("get"), "impersonate-on:associated-node:get");
    }
}
