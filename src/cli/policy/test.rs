//! `policy test`: cases for a policy, such as for CI in a repository of policies.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cases::{Difference, Located, PolicyTest};
use super::table::printable;
use crate::policy::{Explanation, Loaded};

/// Arguments of `policy test`.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Test files (audit.kube-audit-proxy.io/v1alpha1, kind PolicyTest)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Test this policy instead of the one that the files name
    #[arg(long, value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A case that was run.
struct Done {
    located: Located,
    /// What is wrong; empty if nothing is.
    failure: String,
}

impl TestArgs {
    /// Runs all cases; returns whether the policy decides as all of them expect.
    pub(super) fn run(&self) -> anyhow::Result<bool> {
        let mut policies = HashMap::<PathBuf, Loaded>::new();
        let mut suites = Vec::new();
        for file in &self.files {
            let (policy, cases) = PolicyTest::load(file)?;
            let policy = self.policy.clone().unwrap_or(policy);
            if !policies.contains_key(&policy) {
                let loaded = super::load(&policy)
                    .with_context(|| format!("{}: the policy cannot be loaded", file.display()))?;
                policies.insert(policy.clone(), loaded);
            }
            let done = cases.into_iter().map(|located| {
                let (differences, explanation) = located.case.run(&policies[&policy])?;
                let failure = match differences.is_empty() {
                    true => String::new(),
                    false => describe(&policies[&policy], &policy, &differences, &explanation),
                };
                Ok(Done { located, failure })
            });
            suites.push((file, done.collect::<anyhow::Result<Vec<Done>>>()?));
        }
        let mut out = BufWriter::new(io::stdout().lock());
        for done in suites.iter().flat_map(|(_, done)| done) {
            let Located { position, case } = &done.located;
            if !done.failure.is_empty() {
                writeln!(out, "FAIL {position}: {}\n{}", printable(&case.name), done.failure)?;
            }
        }
        let all = suites.iter().map(|(_, done)| done.len()).sum::<usize>();
        let failed = suites.iter().flat_map(|(_, done)| done).filter(|d| !d.failure.is_empty());
        let failed = failed.count();
        writeln!(out, "{} passed, {failed} failed", all - failed)?;
        out.flush()?;
        if let Some(path) = &self.junit {
            std::fs::write(path, junit(&suites)).with_context(|| path.display().to_string())?;
        }
        Ok(failed == 0)
    }
}

fn describe(
    loaded: &Loaded,
    policy: &Path,
    differences: &[Difference],
    explanation: &Explanation,
) -> String {
    let mut text = String::new();
    for Difference { field, expected, actual } in differences {
        let _ = writeln!(text, "  - {field}: {expected}\n  + {field}: {actual}");
    }
    let decided = explanation.decision.rule;
    let _ = match decided.map(|rule| (rule, loaded.spec.rules[rule as usize].at)) {
        Some((rule, Some(at))) => {
            writeln!(text, "  rule {rule} ({}:{at}) matches", policy.display())
        }
        Some((rule, None)) => writeln!(text, "  rule {rule} matches"),
        None => writeln!(text, "  no rule matches"),
    };
    for not in &explanation.not_matched {
        let _ = writeln!(text, "  rule {} does not: {}", not.rule, printable(&not.because));
    }
    text
}

/// JUnit XML, as CI systems read it: a suite a file.
fn junit(suites: &[(&PathBuf, Vec<Done>)]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for (file, done) in suites {
        let failed = done.iter().filter(|done| !done.failure.is_empty()).count();
        let name = escaped(&file.display().to_string());
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\">",
            done.len()
        );
        for Done { located, failure } in done {
            let case = escaped(&located.case.name);
            let _ = write!(xml, "    <testcase classname=\"{name}\" name=\"{case}\"");
            let _ = match failure.is_empty() {
                true => writeln!(xml, "/>"),
                false => writeln!(
                    xml,
                    ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                    escaped(&located.position),
                    escaped(failure)
                ),
            };
        }
        xml.push_str("  </testsuite>\n");
    }
    xml + "</testsuites>\n"
}

/// Text in XML. Control characters other than line breaks and tabs cannot be in it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(char),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            char => out.push(char),
        }
    }
    out
}
