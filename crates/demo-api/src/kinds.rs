//! The kinds that the demo API serves: built-in ones, and those of CustomResourceDefinitions.

use std::sync::LazyLock;

use serde_json::Value;

use super::object;

/// One kind in one version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Resource, in the plural.
    pub plural: String,
    /// Resource, in the singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Whether its objects are namespaced.
    pub namespaced: bool,
    /// Short names, such as `cm`.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Served subresources.
    pub subresources: Vec<String>,
    /// How the API handles the kind.
    pub category: KindCategory,
}

/// How the API handles a kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum KindCategory {
    /// Stored objects of a built-in kind.
    BuiltIn,
    /// Stored objects of a custom kind, with its `additionalPrinterColumns`.
    Custom(Vec<Value>),
    /// A review that is evaluated and not stored, such as `SelfSubjectAccessReview`.
    Review,
}

impl Kind {
    /// `configmaps`, `deployments.apps`.
    pub(crate) fn resource(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// `v1`, `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether the kind has this subresource.
    pub(crate) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|name| name == subresource)
    }

    /// Verbs for discovery.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match self.category {
            KindCategory::Review => &["create"],
            _ => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
        }
    }

    /// Whether this is a built-in kind of that group and plural.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group
            && self.plural == plural
            && !matches!(self.category, KindCategory::Custom(_))
    }
}

/// `plural`, or `plural.group` outside the core group.
pub(crate) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Group of CustomResourceDefinitions.
pub(crate) const CRD_GROUP: &str = "apiextensions.k8s.io";

/// The built-in kinds.
pub(crate) static BUILT_IN: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let stored = STORED.iter().map(|line| built_in(line, KindCategory::BuiltIn));
    let reviews = REVIEWS.iter().map(|line| built_in(line, KindCategory::Review));
    stored.chain(reviews).collect()
});

/// Group and version, plural, kind, scope, short names, subresources.
type Line = (&'static str, &'static str, &'static str, Scope, &'static str, &'static str);

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Cluster,
    Namespaced,
    /// Namespaced and in the category `all`.
    InAll,
}
use Scope::{Cluster, InAll, Namespaced};

const RBAC: &str = "rbac.authorization.k8s.io/v1";

#[rustfmt::skip]
const STORED: &[Line] = &[
    ("v1", "configmaps", "ConfigMap", Namespaced, "cm", ""),
    ("v1", "endpoints", "Endpoints", Namespaced, "ep", ""),
    ("v1", "events", "Event", Namespaced, "ev", ""),
    ("v1", "namespaces", "Namespace", Cluster, "ns", "status"),
    ("v1", "nodes", "Node", Cluster, "no", "status"),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", Namespaced, "pvc", "status"),
    ("v1", "persistentvolumes", "PersistentVolume", Cluster, "pv", "status"),
    ("v1", "pods", "Pod", InAll, "po", "attach exec log portforward status"),
    ("v1", "secrets", "Secret", Namespaced, "", ""),
    ("v1", "serviceaccounts", "ServiceAccount", Namespaced, "sa", ""),
    ("v1", "services", "Service", InAll, "svc", "status"),
    ("apps/v1", "daemonsets", "DaemonSet", InAll, "ds", "status"),
    ("apps/v1", "deployments", "Deployment", InAll, "deploy", "scale status"),
    ("apps/v1", "replicasets", "ReplicaSet", InAll, "rs", "scale status"),
    ("apps/v1", "statefulsets", "StatefulSet", InAll, "sts", "scale status"),
    ("batch/v1", "cronjobs", "CronJob", InAll, "cj", "status"),
    ("batch/v1", "jobs", "Job", InAll, "", "status"),
    ("coordination.k8s.io/v1", "leases", "Lease", Namespaced, "", ""),
    ("networking.k8s.io/v1", "ingresses", "Ingress", Namespaced, "ing", "status"),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", Namespaced, "netpol", ""),
    (RBAC, "clusterrolebindings", "ClusterRoleBinding", Cluster, "", ""),
    (RBAC, "clusterroles", "ClusterRole", Cluster, "", ""),
    (RBAC, "rolebindings", "RoleBinding", Namespaced, "", ""),
    (RBAC, "roles", "Role", Namespaced, "", ""),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", Cluster, "crd", "status"),
];

const AUTHORIZATION: &str = "authorization.k8s.io/v1";

#[rustfmt::skip]
const REVIEWS: &[Line] = &[
    ("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", Cluster, "", ""),
    (AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", Namespaced, "", ""),
    (AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview", Cluster, "", ""),
    (AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview", Cluster, "", ""),
    (AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", Cluster, "", ""),
];

fn built_in(line: &Line, category: KindCategory) -> Kind {
    let &(group_version, plural, kind, scope, short_names, subresources) = line;
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let words = |text: &str| text.split_whitespace().map(String::from).collect();
    Kind {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_ascii_lowercase(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        namespaced: scope != Cluster,
        short_names: words(short_names),
        categories: words(if scope == InAll { "all" } else { "" }),
        subresources: words(subresources),
        category,
    }
}

/// The kinds that a CustomResourceDefinition defines: one for each served version.
pub(crate) fn custom(definition: &Value) -> Vec<Kind> {
    let spec = &definition["spec"];
    let text = |path: &str| object::text(spec, path).to_owned();
    let list = |path: &str| {
        let items = spec.pointer(path).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(String::from).collect::<Vec<_>>()
    };
    let kind = text("/names/kind");
    let or = |value: String, default: String| if value.is_empty() { default } else { value };
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions
        .filter(|version| version["served"] != Value::Bool(false))
        .map(|version| Kind {
            group: text("/group"),
            version: object::text(version, "/name").into(),
            plural: text("/names/plural"),
            singular: or(text("/names/singular"), kind.to_lowercase()),
            list_kind: or(text("/names/listKind"), format!("{kind}List")),
            kind: kind.clone(),
            namespaced: spec["scope"] == "Namespaced",
            short_names: list("/names/shortNames"),
            categories: list("/names/categories"),
            subresources: ["scale", "status"]
                .iter()
                .filter(|name| version["subresources"].get(**name).is_some())
                .map(ToString::to_string)
                .collect(),
            category: KindCategory::Custom(
                version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
            ),
        })
        .collect()
}
