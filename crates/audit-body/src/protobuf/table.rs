//! The types of `generated.rs`, and the lookup of kinds in it.

use super::generated::{KINDS, MESSAGES};

/// A field of a message, as in the Go struct.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u64,
    /// Its JSON name; empty for [`Type::Inline`].
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) of: Type,
    pub(crate) empty: Empty,
}

/// Creates a field; the table has one line for each.
pub(crate) const fn f(
    number: u64,
    name: &'static str,
    shape: Shape,
    of: Type,
    empty: Empty,
) -> Field {
    Field { number, name, shape, of, empty }
}

/// The cardinality of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    One,
    List,
    /// Entries with a string key (field 1) and a value (field 2).
    Map,
}

/// The type of a field, element or map value; numbers are indexes into [`MESSAGES`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Type {
    Text,
    /// Base64 in JSON.
    Bytes,
    Bool,
    /// 64 bits.
    Int,
    /// 32 bits; Go truncates longer numbers to the lowest 32 bits.
    Int32,
    Double,
    Message(u16),
    /// An item of a `PartialObjectMetadataList`. It has `kind` and `apiVersion`, which
    /// kube-apiserver sets only for items of these lists.
    Item(u16),
    /// A volume claim template of a `StatefulSet`, which has them too.
    Claim(u16),
    /// An embedded struct, whose fields become members of the object around it.
    Inline(u16),
    /// `metav1.Time`
    Time,
    /// `metav1.MicroTime`
    MicroTime,
    /// `resource.Quantity`
    Quantity,
    /// `intstr.IntOrString`
    IntOrString,
    /// Types that contain JSON: `runtime.RawExtension`, `metav1.FieldsV1`, `apiextensions.JSON`.
    Raw,
    /// A message that represents a list of strings: `ExtraValue`, `Verbs`
    Strings,
    /// `apiextensions.JSONSchemaPropsOrBool`
    SchemaOrBool(u16),
    /// `apiextensions.JSONSchemaPropsOrArray`
    SchemaOrList(u16),
    /// `apiextensions.JSONSchemaPropsOrStringArray`
    SchemaOrStrings(u16),
}

/// The JSON for a field that is absent on the wire, or zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Empty {
    /// A pointer with `omitempty`: absent unless on the wire; a zero value on the wire is written.
    Pointer,
    /// A value with `omitempty`: absent when zero or empty, even if it is on the wire.
    Omit,
    /// A pointer, list or map without `omitempty`: `null` unless on the wire.
    Null,
    /// A value without `omitempty`, or a struct: its zero value.
    Zero,
}

/// Kinds of `meta.k8s.io/v1` that have the version of the API with which they are used.
const COMMON: [&str; 12] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "Status",
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
    "GetOptions",
    "ListOptions",
    "ApplyOptions",
];

/// Returns the message of a kind; `None` if the table does not contain it.
pub(crate) fn kind(api_version: &[u8], kind: &[u8]) -> Option<&'static [Field]> {
    let (api_version, kind) = (str::from_utf8(api_version).ok()?, str::from_utf8(kind).ok()?);
    let api_version = if COMMON.contains(&kind) { "meta.k8s.io/v1" } else { api_version };
    let kind = kind.to_ascii_lowercase();
    let found = KINDS.binary_search_by(|(v, k, _)| (*v, *k).cmp(&(api_version, &kind))).ok()?;
    Some(message(KINDS[found].2))
}

/// The fields of a message of the table.
pub(crate) fn message(index: u16) -> &'static [Field] {
    MESSAGES[usize::from(index)]
}

/// Returns the names of all members of all messages.
pub(crate) fn all_names() -> impl Iterator<Item = &'static str> {
    let fields = MESSAGES.iter().flat_map(|fields| fields.iter());
    fields.filter(|field| !matches!(field.of, Type::Inline(_))).map(|field| field.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found() {
        assert_eq!(kind(b"v1", b"Pod").unwrap()[0].name, "metadata");
        assert!(kind(b"lab.example.com/v1", b"DeleteOptions").is_some());
        assert!(kind(b"lab.example.com/v1", b"Widget").is_none());
        for (api_version, name) in [
            ("v1", "Binding"),
            ("v1", "List"),
            ("autoscaling/v1", "Scale"),
            ("policy/v1", "Eviction"),
            ("authentication.k8s.io/v1", "TokenRequest"),
            ("authentication.k8s.io/v1", "TokenReview"),
            ("authorization.k8s.io/v1", "SubjectAccessReview"),
            ("authorization.k8s.io/v1", "SelfSubjectRulesReview"),
            ("meta.k8s.io/v1", "PartialObjectMetadata"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io/v1", "APIServiceList"),
            ("storage.k8s.io/v1beta1", "CSIStorageCapacity"),
        ] {
            assert!(kind(api_version.as_bytes(), name.as_bytes()).is_some(), "{name}");
        }
        assert!(kind(b"v1", b"\xff").is_none());
    }

    #[test]
    fn the_table_is_whole() {
        assert!(KINDS.is_sorted());
        let indexes = MESSAGES.iter().flat_map(|fields| fields.iter()).filter_map(|f| match f.of {
            Type::Message(i) | Type::Item(i) | Type::Claim(i) | Type::Inline(i) => Some(i),
            Type::SchemaOrBool(i) | Type::SchemaOrList(i) | Type::SchemaOrStrings(i) => Some(i),
            _ => None,
        });
        assert!(indexes.max().is_some_and(|index| usize::from(index) < MESSAGES.len()));
        let names = |fields: &[Field]| {
            fields.iter().all(|f| (f.name == "-") == matches!(f.of, Type::Inline(_)))
        };
        assert!(MESSAGES.iter().all(|fields| names(fields)));
    }
}
