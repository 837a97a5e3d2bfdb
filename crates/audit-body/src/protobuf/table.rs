//! What `generated.rs` is made of, and how kinds are found in it.

use super::generated::{KINDS, MESSAGES};

/// A field of a message as Go's struct has it.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u64,
    /// Its JSON name; none for [`Type::Inline`].
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) of: Type,
    pub(crate) empty: Empty,
}

/// A field, in one line of the table.
pub(crate) const fn f(
    number: u64,
    name: &'static str,
    shape: Shape,
    of: Type,
    empty: Empty,
) -> Field {
    Field { number, name, shape, of, empty }
}

/// How often a field occurs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    One,
    List,
    /// Entries with a string key (field 1) and a value (field 2).
    Map,
}

/// What a field, element or map value is; numbers are indexes of [`MESSAGES`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Type {
    Text,
    /// Base64 in JSON.
    Bytes,
    Bool,
    /// 64 bits.
    Int,
    /// 32 bits: of a longer number, Go keeps the lowest 32.
    Int32,
    Double,
    Message(u16),
    /// An item of a `PartialObjectMetadataList`: with `kind` and `apiVersion`, which kube-apiserver
    /// sets there and which those of other lists do not have.
    Item(u16),
    /// A volume claim template of a `StatefulSet`, likewise.
    Claim(u16),
    /// An embedded struct: its fields stand among those of the struct around it.
    Inline(u16),
    /// `metav1.Time`
    Time,
    /// `metav1.MicroTime`
    MicroTime,
    /// `resource.Quantity`
    Quantity,
    /// `intstr.IntOrString`
    IntOrString,
    /// JSON of its own: `runtime.RawExtension`, `metav1.FieldsV1`, `apiextensions.JSON`
    Raw,
    /// A list of strings that is a message: `ExtraValue`, `Verbs`
    Strings,
    /// `apiextensions.JSONSchemaPropsOrBool`
    SchemaOrBool(u16),
    /// `apiextensions.JSONSchemaPropsOrArray`
    SchemaOrList(u16),
    /// `apiextensions.JSONSchemaPropsOrStringArray`
    SchemaOrStrings(u16),
}

/// What JSON has for a field that is not on the wire, or zero there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Empty {
    /// A pointer with `omitempty`: absent unless on the wire, where zero counts.
    Pointer,
    /// A value with `omitempty`: absent when zero or empty, also on the wire.
    Omit,
    /// A pointer, list or map without `omitempty`: `null` unless on the wire.
    Null,
    /// A value without `omitempty`, or a struct: its zero value.
    Zero,
}

/// Kinds of `meta.k8s.io/v1` that go by the version of whatever API they are used with.
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

/// The message of a kind; `None` if the table does not have it.
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

/// The names of all members of all messages.
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
