//! What is wrong with a file, in words for whoever wrote it.

use std::fmt;

use super::tree::Position;

/// A problem or a warning: where, what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub source: String,
    /// Where in the file; none where it is about the file as a whole.
    pub at: Option<Position>,
    /// In kube-apiserver's words, as far as it has any.
    pub message: String,
    /// What to write instead.
    pub remedy: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source)?;
        if let Some(at) = self.at {
            write!(f, "{at}:")?;
        }
        write!(f, " {}", self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// One a line.
pub(crate) fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Nobody reads more of them, and nonsense can have very many.
const MAX_PROBLEMS: usize = 100;

/// Problems being collected from one file.
#[derive(Debug)]
pub(crate) struct Problems {
    source: String,
    found: Vec<Problem>,
}

impl Problems {
    /// None yet.
    pub(crate) fn new(source: &str) -> Problems {
        Problems { source: source.to_owned(), found: Vec::new() }
    }

    /// Adds one, unless it is known already or there are enough.
    pub(crate) fn add(&mut self, at: impl Into<Option<Position>>, message: String, remedy: Remedy) {
        let problem = Problem {
            source: self.source.clone(),
            at: at.into(),
            message,
            remedy: remedy.filter(|text| !text.is_empty()),
        };
        if self.found.len() < MAX_PROBLEMS && !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All, in the order of the file.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.at);
        self.found
    }
}

/// What to write instead, if that can be told.
pub(crate) type Remedy = Option<String>;

/// `did you mean "x"?`, where one of the `known` names is close to what was written.
pub(crate) fn did_you_mean<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Remedy {
    let close = |name: &&str| distance(&written.to_lowercase(), &name.to_lowercase());
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    let (best, name) = known.map(|name| (close(&name), name)).min_by_key(|(d, _)| *d)?;
    (best <= allowed).then(|| format!("did you mean {name:?}?"))
}

/// Levenshtein distance. Long texts are not compared: they are no misspelt names.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_close() {
        let suggest = |written| did_you_mean(written, ["None", "Metadata", "Request"].into_iter());
        assert_eq!(suggest("Metdata").unwrap(), "did you mean \"Metadata\"?");
        assert_eq!(suggest("metadata").unwrap(), "did you mean \"Metadata\"?");
        assert_eq!(suggest("NONE").unwrap(), "did you mean \"None\"?");
        assert_eq!(suggest("FooBar"), None);
        assert_eq!(suggest(""), None);
    }
}
