//! Errors and warnings about a file, for the person who wrote it.

use std::fmt;

use super::tree::Position;

/// An error or a warning: where, what, and how to fix it.
///
/// Displayed as `file:line:column: message; help`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name.
    pub source: String,
    /// The position in the file; `None` if it concerns the file as a whole.
    pub at: Option<Position>,
    /// The message, in kube-apiserver's words where it has any.
    pub message: String,
    /// The remedy.
    pub help: Help,
}

/// The remedy for an error, if known.
pub type Help = Option<String>;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source)?;
        if let Some(at) = self.at {
            write!(f, "{at}:")?;
        }
        write!(f, " {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Returns the diagnostics as text, one per line.
pub fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n")
}

/// More are not reported: the first ones explain the rest, and arbitrary bytes can have very many.
const MAX_DIAGNOSTICS: usize = 100;

/// Collects the diagnostics of one file.
#[derive(Debug)]
pub struct Diagnostics {
    source: String,
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Starts with none. `source` is the name of the file.
    pub fn new(source: &str) -> Diagnostics {
        Diagnostics { source: source.to_owned(), found: Vec::new() }
    }

    /// Adds a diagnostic, unless it is a duplicate or there are 100 already.
    pub fn add(&mut self, at: impl Into<Option<Position>>, message: String, help: Help) {
        let diagnostic = Diagnostic {
            source: self.source.clone(),
            at: at.into(),
            message,
            help: help.filter(|text| !text.is_empty()),
        };
        if self.found.len() < MAX_DIAGNOSTICS && !self.found.contains(&diagnostic) {
            self.found.push(diagnostic);
        }
    }

    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns all diagnostics in the order of the file.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|diagnostic| diagnostic.at);
        self.found
    }
}

/// Returns `did you mean "x"?` if one of the `known` names is close to what was written.
pub fn did_you_mean<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Help {
    let close = |name: &&str| distance(&written.to_lowercase(), &name.to_lowercase());
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    let (best, name) = known.map(|name| (close(&name), name)).min_by_key(|(d, _)| *d)?;
    (best <= allowed).then(|| format!("did you mean {name:?}?"))
}

/// Returns the Levenshtein distance; `usize::MAX` for texts too long to be a misspelt name.
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
