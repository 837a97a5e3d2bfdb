//! Constructs in a request body whose meaning depends on the decoder that reads it.

/// A construct that decoders disagree about: a reader of the body, or of the raw bytes in another
/// tool, may see another object than the API server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// An object or mapping has the same key twice.
    DuplicateKeys,
    /// Distinct YAML keys, such as `1` and `"1"`, become the same JSON key; which one Go keeps is
    /// random.
    CollidingKeys,
    /// `kind` or `apiVersion` is written in another case. Go's `encoding/json` accepts it there,
    /// the decoder of the object does not.
    CaseVariantKeys,
    /// A YAML merge key `<<` sets a key that the mapping has as well.
    MergeKeyOverride,
    /// The YAML stream has more than one document, or content after the first document. Only the
    /// first one is read.
    SeveralDocuments,
    /// The body has bytes that are not valid UTF-8.
    InvalidUtf8,
    /// A JSON string has half of a surrogate pair.
    UnpairedSurrogate,
    /// A protobuf field number above 2³¹−1 is truncated to 32 bits.
    WrappedFieldNumber,
    /// A protobuf field that is not repeated occurs more than once.
    RepeatedField,
    /// The protobuf envelope has its type or its object more than once.
    RepeatedEnvelopeMember,
    /// The protobuf message has groups, which are skipped.
    Groups,
    /// A protobuf integer has more than 32 bits, to which some fields truncate it.
    TruncatedInteger,
    /// The CBOR item has tags whose effect depends on the type that they are decoded into.
    CborTag,
}

impl Ambiguity {
    /// All of them, in the order of their bits.
    pub const ALL: [Ambiguity; 13] = [
        Ambiguity::DuplicateKeys,
        Ambiguity::CollidingKeys,
        Ambiguity::CaseVariantKeys,
        Ambiguity::MergeKeyOverride,
        Ambiguity::SeveralDocuments,
        Ambiguity::InvalidUtf8,
        Ambiguity::UnpairedSurrogate,
        Ambiguity::WrappedFieldNumber,
        Ambiguity::RepeatedField,
        Ambiguity::RepeatedEnvelopeMember,
        Ambiguity::Groups,
        Ambiguity::TruncatedInteger,
        Ambiguity::CborTag,
    ];

    /// Its stable name, as in annotations and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Ambiguity::DuplicateKeys => "duplicate-keys",
            Ambiguity::CollidingKeys => "colliding-keys",
            Ambiguity::CaseVariantKeys => "case-variant-keys",
            Ambiguity::MergeKeyOverride => "merge-key-override",
            Ambiguity::SeveralDocuments => "several-documents",
            Ambiguity::InvalidUtf8 => "invalid-utf8",
            Ambiguity::UnpairedSurrogate => "unpaired-surrogate",
            Ambiguity::WrappedFieldNumber => "wrapped-field-number",
            Ambiguity::RepeatedField => "repeated-field",
            Ambiguity::RepeatedEnvelopeMember => "repeated-envelope-member",
            Ambiguity::Groups => "protobuf-groups",
            Ambiguity::TruncatedInteger => "truncated-integer",
            Ambiguity::CborTag => "cbor-tag",
        }
    }

    /// What the body has, as a clause that completes "the request body is ambiguous: ".
    pub fn explanation(self) -> &'static str {
        match self {
            Ambiguity::DuplicateKeys => "an object has the same key more than once",
            Ambiguity::CollidingKeys => "two YAML keys become the same JSON key",
            Ambiguity::CaseVariantKeys => "kind or apiVersion is written in another case",
            Ambiguity::MergeKeyOverride => {
                "a YAML merge key (<<) sets a key that the mapping also sets"
            }
            Ambiguity::SeveralDocuments => "the YAML stream continues after its first document",
            Ambiguity::InvalidUtf8 => "it contains bytes that are not valid UTF-8",
            Ambiguity::UnpairedSurrogate => "a string contains half of a surrogate pair",
            Ambiguity::WrappedFieldNumber => "a protobuf field number does not fit in 31 bits",
            Ambiguity::RepeatedField => {
                "a protobuf field that is not repeated occurs more than once"
            }
            Ambiguity::RepeatedEnvelopeMember => {
                "the protobuf envelope has its type or its object more than once"
            }
            Ambiguity::Groups => "it contains protobuf groups",
            Ambiguity::TruncatedInteger => {
                "a protobuf integer has more than 32 bits, to which some fields truncate it"
            }
            Ambiguity::CborTag => "it contains CBOR tags that change the meaning of some types",
        }
    }
}

/// The ambiguities of one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ambiguities(u16);

impl Ambiguities {
    /// Returns whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds one.
    pub fn insert(&mut self, ambiguity: Ambiguity) {
        self.0 |= 1 << ambiguity as u16;
    }

    /// Returns whether it is one of them.
    pub fn contains(self, ambiguity: Ambiguity) -> bool {
        self.0 & 1 << ambiguity as u16 != 0
    }

    /// Returns those of both.
    pub fn union(self, other: Ambiguities) -> Ambiguities {
        Ambiguities(self.0 | other.0)
    }

    /// Returns them in the order of [`Ambiguity::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Ambiguity> {
        Ambiguity::ALL.into_iter().filter(move |ambiguity| self.contains(*ambiguity))
    }

    /// Returns their names, separated by commas: the value of an annotation.
    pub fn names(self) -> String {
        self.iter().map(Ambiguity::name).collect::<Vec<_>>().join(",")
    }

    /// Returns their explanations in one sentence: the message of a Status.
    pub fn explain(self) -> String {
        let explanations: Vec<_> = self.iter().map(Ambiguity::explanation).collect();
        format!("the request body is ambiguous: {}", explanations.join("; "))
    }
}

impl FromIterator<Ambiguity> for Ambiguities {
    fn from_iter<I: IntoIterator<Item = Ambiguity>>(ambiguities: I) -> Ambiguities {
        let mut all = Ambiguities::default();
        ambiguities.into_iter().for_each(|ambiguity| all.insert(ambiguity));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_named_in_order() {
        let set = Ambiguities::from_iter([Ambiguity::InvalidUtf8, Ambiguity::DuplicateKeys]);
        assert_eq!(set.names(), "duplicate-keys,invalid-utf8");
        assert_eq!(
            set.explain(),
            "the request body is ambiguous: an object has the same key more than once; it \
             contains bytes that are not valid UTF-8"
        );
        assert!(Ambiguities::default().is_empty() && !set.is_empty());
        assert!(set.contains(Ambiguity::InvalidUtf8) && !set.contains(Ambiguity::Groups));
    }

    #[test]
    fn every_ambiguity_has_a_bit_of_its_own() {
        for (bit, ambiguity) in Ambiguity::ALL.into_iter().enumerate() {
            assert_eq!(ambiguity as usize, bit);
            assert_eq!(Ambiguities::from_iter([ambiguity]).names(), ambiguity.name());
        }
    }
}
