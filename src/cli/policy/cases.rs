//! Test cases for a policy: requests, and what is expected to be recorded of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml::Spanned;

use super::request::{RequestError, RequestSpec};
use crate::policy::extension::yaml_message;
use crate::policy::{Explanation, Level, Loaded, Stage};

/// The `apiVersion` of test files.
pub(super) const API_VERSION: &str = "audit.kube-audit-proxy.io/v1alpha1";
/// Their `kind`.
pub(super) const KIND: &str = "PolicyTest";

/// A file of test cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PolicyTest {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    /// The policy under test, relative to this file.
    policy: PathBuf,
    /// The cases.
    cases: Vec<Spanned<Case>>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What is tested.
    pub(super) name: String,
    /// The request.
    pub(super) request: RequestSpec,
    /// What is expected.
    pub(super) expect: Expected,
}

/// The expected decision; what is not named may be anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Expected {
    /// The level.
    pub(super) level: String,
    /// The rule, counted from 0.
    pub(super) rule: Option<u32>,
    /// The omitted stages, in any order.
    pub(super) omit_stages: Option<Vec<String>>,
    /// Whether `managedFields` are left out.
    pub(super) omit_managed_fields: Option<bool>,
}

/// Why a test file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TestFileError {
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system reports.
        source: std::io::Error,
    },
    /// It is not a valid test file.
    #[error("{path}:{problem}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and what.
        problem: String,
    },
}

/// A case that can be run, and where it is.
#[derive(Debug)]
pub(super) struct Located {
    /// `FILE:LINE:COLUMN`
    pub(super) position: String,
    /// The case.
    pub(super) case: Case,
}

/// A difference between what is expected and what is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// `level`, `rule`, `omitStages`, or `omitManagedFields`.
    pub(super) field: &'static str,
    /// The expected value.
    pub(super) expected: String,
    /// The value that the policy decides.
    pub(super) actual: String,
}

impl PolicyTest {
    /// Reads a file: the path of its policy, and its cases.
    ///
    /// # Errors
    /// It cannot be read, or is not a valid test file.
    pub(super) fn load(path: &Path) -> Result<(PathBuf, Vec<Located>), TestFileError> {
        let read = |source| TestFileError::Read { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(read)?;
        let invalid = |problem: String| TestFileError::Invalid { path: path.to_owned(), problem };
        let test: PolicyTest = serde_yaml::from_str(&text).map_err(|error| {
            let at = error.location().map(|at| format!("{}:{}: ", at.line(), at.column()));
            invalid(format!("{}{}", at.unwrap_or_else(|| " ".to_owned()), yaml_message(&error)))
        })?;
        let at =
            |location: serde_yaml::Location| format!("{}:{}", location.line(), location.column());
        for (written, expected, member) in
            [(&test.api_version, API_VERSION, "apiVersion"), (&test.kind, KIND, "kind")]
        {
            if written.value != expected {
                return Err(invalid(format!(
                    "{}: {member} {:?}: write \"{member}: {expected}\"",
                    at(written.referenced),
                    written.value
                )));
            }
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut names = BTreeSet::new();
        let mut cases = Vec::new();
        for Spanned { value: case, referenced, .. } in test.cases {
            let at = at(referenced);
            let problem = check(&case).or_else(|| {
                let repeated = !names.insert(case.name.clone());
                repeated.then(|| format!("name {:?}: another case has it, too", case.name))
            });
            if let Some(problem) = problem {
                return Err(invalid(format!("{at}: {problem}")));
            }
            cases.push(Located { position: format!("{}:{at}", path.display()), case });
        }
        if cases.is_empty() {
            return Err(invalid(" cases: there are none; write at least one".to_owned()));
        }
        Ok((folder.join(test.policy), cases))
    }
}

/// What is wrong with a case.
fn check(case: &Case) -> Option<String> {
    let names = |names: &[&str]| names.join(", ");
    if Level::from_name(&case.expect.level).is_none() {
        let levels = names(&Level::ALL.map(Level::as_str));
        return Some(format!("expect.level {:?}: accepted are {levels}", case.expect.level));
    }
    let mut stages = case.expect.omit_stages.iter().flatten();
    if let Some(unknown) = stages.find(|stage| Stage::from_name(stage).is_none()) {
        let stages = names(&Stage::ALL.map(Stage::as_str));
        return Some(format!("expect.omitStages {unknown:?}: accepted are {stages}"));
    }
    case.request.resolve().err().map(|error| format!("request: {error}"))
}

impl Case {
    /// Evaluates the policy: how the decision differs from what is expected, and its explanation.
    ///
    /// # Errors
    /// The description is not one of a request.
    pub(super) fn run(
        &self,
        loaded: &Loaded,
    ) -> Result<(Vec<Difference>, Explanation), RequestError> {
        let request = self.request.resolve()?;
        let explanation = loaded.policy.explain(&loaded.spec, &request);
        let decision = explanation.decision;
        let mut differences = Vec::new();
        let mut compare = |field, expected: Option<String>, actual: String| match expected {
            Some(expected) if expected != actual => {
                differences.push(Difference { field, expected, actual });
            }
            _ => {}
        };
        let expect = &self.expect;
        compare("level", Some(expect.level.clone()), decision.level.as_str().to_owned());
        let rule = decision.rule.map_or("none".to_owned(), |rule| rule.to_string());
        compare("rule", expect.rule.map(|rule| rule.to_string()), rule);
        let listed = |has: &dyn Fn(Stage) -> bool| {
            let stages = Stage::ALL.into_iter().filter(|stage| has(*stage)).map(Stage::as_str);
            format!("[{}]", stages.collect::<Vec<_>>().join(", "))
        };
        let stages = expect.omit_stages.as_ref();
        let stages =
            stages.map(|stages| listed(&|stage| stages.iter().any(|s| s == stage.as_str())));
        compare("omitStages", stages, listed(&|stage| decision.omit_stages.contains(stage)));
        let omits = expect.omit_managed_fields.map(|omits| omits.to_string());
        compare("omitManagedFields", omits, decision.omit_managed_fields.to_string());
        Ok((differences, explanation))
    }
}
