//! Sets of rules.

/// A set of rules, by index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Returns the set of the first `count` rules.
    pub(super) fn first(count: usize) -> Bits {
        (0..count).collect()
    }

    pub(super) fn and(&self, other: &Bits) -> Bits {
        Bits(self.0.iter().zip(&other.0).map(|(one, other)| one & other).collect())
    }

    /// Returns whether all rules of this set are in `other`.
    pub(super) fn is_subset(&self, other: &Bits) -> bool {
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        self.0.iter().zip(others).all(|(one, other)| one & !other == 0)
    }

    /// Returns whether the sets have a rule in common.
    pub(super) fn meets(&self, other: &Bits) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one & other != 0)
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(rules: I) -> Bits {
        let mut words = Vec::new();
        for rule in rules {
            let word = rule / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (rule % 64);
        }
        Bits(words)
    }
}
