//! Checks the types of an audit.k8s.io/v1 `Policy`, like kube-apiserver's decoder does before it
//! validates rules.

use crate::document::diagnostic::{Diagnostics, did_you_mean};
use crate::document::schema::{self, STRING, STRINGS, Struct, Type};
use crate::document::tree::Node;
use crate::go::quote;

/// audit.k8s.io/v1 `Policy`.
pub(super) static POLICY: Struct = Struct {
    name: "Policy",
    members: &[
        ("apiVersion", STRING),
        ("kind", STRING),
        ("metadata", Type::Struct(&OBJECT_META)),
        ("rules", Type::List(&Type::Struct(&POLICY_RULE))),
        ("omitStages", Type::List(&STAGE)),
        ("omitManagedFields", Type::Bool),
    ],
};

const STAGE: Type = Type::String("v1.Stage");

static POLICY_RULE: Struct = Struct {
    name: "PolicyRule",
    members: &[
        ("level", Type::String("v1.Level")),
        ("users", STRINGS),
        ("userGroups", STRINGS),
        ("verbs", STRINGS),
        ("resources", Type::List(&Type::Struct(&GROUP_RESOURCES))),
        ("namespaces", STRINGS),
        ("nonResourceURLs", STRINGS),
        ("omitStages", Type::List(&STAGE)),
        ("omitManagedFields", Type::Bool),
    ],
};

static GROUP_RESOURCES: Struct = Struct {
    name: "GroupResources",
    members: &[("group", STRING), ("resources", STRINGS), ("resourceNames", STRINGS)],
};

const OBJECT_META_MEMBERS: [(&str, Type); 15] = [
    ("name", STRING),
    ("generateName", STRING),
    ("namespace", STRING),
    ("selfLink", STRING),
    ("uid", Type::String("types.UID")),
    ("resourceVersion", STRING),
    ("generation", Type::Integer),
    ("creationTimestamp", Type::Time),
    ("deletionTimestamp", Type::Time),
    ("deletionGracePeriodSeconds", Type::Integer),
    ("labels", Type::Map(&STRING)),
    ("annotations", Type::Map(&STRING)),
    ("ownerReferences", Type::List(&Type::Struct(&OWNER_REFERENCE))),
    ("finalizers", STRINGS),
    ("managedFields", Type::List(&Type::Struct(&MANAGED_FIELDS_ENTRY))),
];

static OBJECT_META: Struct = Struct { name: "ObjectMeta", members: &OBJECT_META_MEMBERS };

static OWNER_REFERENCE: Struct = Struct {
    name: "OwnerReference",
    members: &[
        ("apiVersion", STRING),
        ("kind", STRING),
        ("name", STRING),
        ("uid", Type::String("types.UID")),
        ("controller", Type::Bool),
        ("blockOwnerDeletion", Type::Bool),
    ],
};

static MANAGED_FIELDS_ENTRY: Struct = Struct {
    name: "ManagedFieldsEntry",
    members: &[
        ("manager", STRING),
        ("operation", Type::String("v1.ManagedFieldsOperationType")),
        ("apiVersion", STRING),
        ("time", Type::Time),
        ("fieldsType", STRING),
        ("fieldsV1", Type::Anything),
        ("subresource", STRING),
    ],
};

/// Checks the types of a whole policy. Wrong types are added to `errors`, unknown members to
/// `warnings`, because kube-apiserver ignores them.
pub(super) fn check(root: &Node, errors: &mut Diagnostics, warnings: &mut Diagnostics) {
    schema::check(root, &POLICY, errors, warnings, about_unknown);
}

/// Adds the warnings for a document without `apiVersion`: kube-apiserver then decodes the internal
/// version of `Policy`, which has no JSON names.
pub(super) fn check_internal(root: &Node, warnings: &mut Diagnostics) {
    const INTERNAL: [&str; 5] = ["apiVersion", "kind", "Rules", "OmitStages", "OmitManagedFields"];
    for entry in root.entries() {
        let known = INTERNAL.contains(&&*entry.key)
            || OBJECT_META_MEMBERS.iter().any(|(name, _)| *name == &*entry.key);
        if !known {
            let message = format!("unknown field {}", quote(entry.key.as_bytes()));
            warnings.add(entry.key_at, message, None);
        }
    }
}

fn about_unknown(written: &str, within: &Struct) -> String {
    let named = |s: &Struct| s.members.iter().any(|(name, _)| *name == written);
    let names = within.members.iter().map(|(name, _)| *name);
    let advice = if within.name == GROUP_RESOURCES.name && named(&POLICY_RULE) {
        Some("it belongs to the rule: indent it as far as \"resources:\"".to_owned())
    } else if within.name == POLICY.name && named(&POLICY_RULE) {
        Some("it belongs to a rule: indent it as far as \"level:\"".to_owned())
    } else if within.name == POLICY_RULE.name && named(&GROUP_RESOURCES) {
        Some("it belongs to an entry of \"resources:\"".to_owned())
    } else {
        did_you_mean(written, names)
    };
    advice.map_or_else(|| "it is ignored".to_owned(), |advice| format!("it is ignored, {advice}"))
}
