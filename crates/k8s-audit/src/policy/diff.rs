//! Compares two policies.

use std::fmt;

use super::spec::{PolicyRule, PolicySpec};
use super::{Level, Position, StageSet};

/// The differences between two policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rules that only the new policy has.
    pub added: Vec<Changed>,
    /// Rules that only the old policy has.
    pub removed: Vec<Changed>,
    /// Rules of the new policy that replace other rules.
    pub changed: Vec<Changed>,
    /// Whether the policies differ in `omitStages` or `omitManagedFields`.
    pub settings: bool,
}

/// A rule in a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The index of the rule, from 0.
    pub rule: usize,
    /// The level of the rule.
    pub level: Level,
    /// The level of the replaced rule.
    pub before: Option<Level>,
    /// The position of the rule in its file.
    pub at: Option<Position>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.rule)?;
        match self.before {
            Some(before) if before != self.level => {
                write!(f, "{} -> {}", before.as_str(), self.level.as_str())?;
            }
            _ => f.write_str(self.level.as_str())?,
        }
        match self.at {
            Some(at) => write!(f, " at {at}"),
            None => Ok(()),
        }
    }
}

/// Maximum number of comparisons for matching rules one by one.
const MOST: usize = 4_000_000;

impl Difference {
    /// Compares two policies. Rules that only moved to another line are equal.
    pub fn between(old: &PolicySpec, new: &PolicySpec) -> Difference {
        let plain = |spec: &PolicySpec| -> Vec<PolicyRule> {
            spec.rules.iter().map(|rule| PolicyRule { at: None, ..rule.clone() }).collect()
        };
        let (before, after) = (plain(old), plain(new));
        let start = before.iter().zip(&after).take_while(|(one, other)| one == other).count();
        let most = before.len().min(after.len()) - start;
        let pairs = before.iter().rev().zip(after.iter().rev());
        let end = pairs.take(most).take_while(|(one, other)| one == other).count();
        let (old_end, new_end) = (before.len() - end, after.len() - end);
        let mut difference = Difference {
            settings: (old.omit_stages, old.omit_managed_fields)
                != (new.omit_stages, new.omit_managed_fields),
            ..Difference::default()
        };
        let kept = common(&before[start..old_end], &after[start..new_end]);
        let kept = kept.into_iter().map(|(one, other)| (start + one, start + other));
        let (mut old_at, mut new_at) = (start, start);
        for (old_kept, new_kept) in kept.chain([(old_end, new_end)]) {
            difference.gap((old, old_at..old_kept), (new, new_at..new_kept));
            (old_at, new_at) = (old_kept + 1, new_kept + 1);
        }
        difference
    }

    /// Adds the rules between two common ones: rules at the same place are changed, the rest are
    /// removed or added.
    fn gap(
        &mut self,
        (old, removed): (&PolicySpec, std::ops::Range<usize>),
        (new, added): (&PolicySpec, std::ops::Range<usize>),
    ) {
        let named = |spec: &PolicySpec, rule: usize, before| {
            let PolicyRule { level, at, .. } = &spec.rules[rule];
            Changed { rule, level: *level, before, at: *at }
        };
        let both = removed.len().min(added.len());
        for (before, after) in removed.clone().zip(added.clone()) {
            self.changed.push(named(new, after, Some(old.rules[before].level)));
        }
        self.removed.extend(removed.skip(both).map(|rule| named(old, rule, None)));
        self.added.extend(added.skip(both).map(|rule| named(new, rule, None)));
    }

    /// Returns whether the policies are equal.
    pub fn is_empty(&self) -> bool {
        *self == Difference::default()
    }
}

/// Returns the longest common subsequence, as pairs of indexes.
fn common(old: &[PolicyRule], new: &[PolicyRule]) -> Vec<(usize, usize)> {
    if old.len().saturating_mul(new.len()) > MOST {
        return Vec::new();
    }
    let width = new.len() + 1;
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for (i, one) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            lengths[i * width + j] = match one == other {
                true => lengths[(i + 1) * width + j + 1] + 1,
                false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// Returns whether the policy records no request: each reachable rule has level `None` or omits all
/// stages.
pub fn records_nothing(spec: &PolicySpec, policy: &super::Policy) -> bool {
    let all: StageSet = super::Stage::ALL.into_iter().collect();
    let omits_all = |rule: &PolicyRule| spec.omit_stages.union(rule.omit_stages) == all;
    let records = |rule: &PolicyRule| rule.level > Level::None && !omits_all(rule);
    (0..spec.rules.len()).filter(|rule| records(&spec.rules[*rule])).all(|rule| {
        matches!(super::reach::reach_of(spec, policy, rule), super::Reach::Never { .. })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn loaded(members: &str, rules: &[&str]) -> crate::policy::Loaded {
        let rules: String = rules.iter().map(|rule| format!("- {{{rule}}}\n")).collect();
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{members}rules:\n{rules}");
        parse(text.as_bytes(), "test").unwrap()
    }

    fn difference(old: &[&str], new: &[&str]) -> [Vec<String>; 3] {
        let between = Difference::between(&loaded("", old).spec, &loaded("", new).spec);
        [between.added, between.removed, between.changed]
            .map(|rules| rules.iter().map(ToString::to_string).collect())
    }

    const A: &str = "level: None, users: [a]";
    const B: &str = "level: Metadata, users: [b]";
    const C: &str = "level: Request";

    #[test]
    fn rules_are_added_removed_and_changed() {
        let none: Vec<String> = Vec::new();
        assert_eq!(difference(&[A, B], &[A, B]), [none.clone(), none.clone(), none.clone()]);
        assert_eq!(
            difference(&[A, C], &[A, B, C]),
            [vec!["1 Metadata at 5:3".into()], none.clone(), none.clone()]
        );
        assert_eq!(
            difference(&[A, B, C], &[B, C]),
            [none.clone(), vec!["0 None at 4:3".into()], none.clone()]
        );
        let changed = difference(&[A, B, C], &[A, "level: None, users: [b]", C]);
        assert_eq!(
            changed,
            [none.clone(), none.clone(), vec!["1 Metadata -> None at 5:3".to_owned()]]
        );
        let moved = difference(&[A, B, C], &[B, A, C]);
        assert_eq!(moved.map(|rules| rules.len()), [1, 1, 0]);
    }

    #[test]
    fn settings_of_the_policy_are_a_difference() {
        let (old, new) = (loaded("", &[A]), loaded("omitManagedFields: true\n", &[A]));
        let between = Difference::between(&old.spec, &new.spec);
        assert!(between.settings && !between.is_empty());
    }

    #[test]
    fn a_policy_can_record_nothing_in_several_ways() {
        let nothing = |members: &str, rules: &[&str]| {
            let loaded = loaded(members, rules);
            records_nothing(&loaded.spec, &loaded.policy)
        };
        assert!(nothing("", &["level: None", C]));
        assert!(nothing("", &[A]));
        assert!(!nothing("", &[A, C]));
        let stages = "[RequestReceived, ResponseStarted, ResponseComplete, Panic]";
        assert!(nothing(&format!("omitStages: {stages}\n"), &[C]));
        assert!(nothing(
            "",
            &["level: None, nonResourceURLs: ['*']", "level: None, resources: [{group: '*'}]", C]
        ));
    }
}
