//! Which values of which resources are redacted in the record.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::paths::{Names, Path, PathError, Paths};

/// Paths to the values that are redacted in bodies of one resource.
pub type CompiledPaths = Paths<()>;

/// What is redacted unless redaction is turned off.
const BUILT_IN: [&str; 5] = [
    "core/secrets:data.*",
    "core/secrets:stringData.*",
    r#"core/secrets:metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]"#,
    "core/serviceaccounts/token:status.token",
    "authentication.k8s.io/tokenreviews:spec.token",
];

/// The rules of redaction: for each resource, where its secrets are.
///
/// A rule is written `GROUP/RESOURCE:PATH` or `GROUP/RESOURCE/SUBRESOURCE:PATH`, such as
/// `apps/deployments:spec.template.spec.containers[*].env[*].value`. The core group is `core`, or
/// left out together with the slash if there is no subresource. A rule without a subresource is for
/// all of them too. [`Path`] says how paths are written; a path is looked for
///
/// - in the object itself, and in patches that have its form (merge, strategic merge, apply);
/// - in each of a list's `items`, and in the object of each of a Table's `rows`.
///
/// In a JSON patch, which names places in a form of its own, every operation's `value` is redacted;
/// of a body that is but a string, all. Names of members match in either case: a misspelt
/// `stringdata` is no less secret. `null` stays. A body that is no JSON is for the caller to
/// redact, with [`redacted_whole`](super::redacted_whole).
#[derive(Debug)]
pub struct Redaction {
    resources: Vec<Resource>,
}

#[derive(Debug)]
struct Resource {
    group: String,
    resource: String,
    /// `None`: all for which there is no other entry.
    subresource: Option<String>,
    paths: Arc<CompiledPaths>,
}

impl Redaction {
    /// The built-in rules and `rules` besides.
    pub fn new<'r>(rules: impl IntoIterator<Item = &'r str>) -> Result<Redaction, RuleError> {
        let mut by_resource: BTreeMap<_, BTreeMap<_, Vec<Path>>> = BTreeMap::new();
        for text in BUILT_IN.into_iter().chain(rules) {
            let rule: Rule = text.parse()?;
            let subresources = by_resource.entry((rule.group, rule.resource)).or_default();
            subresources.entry(rule.subresource).or_default().push(rule.path);
        }
        let mut resources = Vec::new();
        for ((group, resource), subresources) in by_resource {
            let general = subresources.get(&None).cloned().unwrap_or_default();
            for (subresource, mut paths) in subresources {
                if subresource.is_some() {
                    paths.extend_from_slice(&general);
                }
                resources.push(Resource {
                    group: group.clone(),
                    resource: resource.clone(),
                    subresource,
                    paths: Arc::new(compile(&paths)),
                });
            }
        }
        Ok(Redaction { resources })
    }

    /// No redaction: the record is what kube-apiserver's would be.
    pub fn none() -> Redaction {
        Redaction { resources: Vec::new() }
    }

    /// What to redact in the bodies of requests to a resource and in the answers; `None` if
    /// nothing. The core group and no subresource are empty.
    pub fn for_request(
        &self,
        group: &[u8],
        resource: &[u8],
        subresource: &[u8],
    ) -> Option<&Arc<CompiledPaths>> {
        let of = |wanted: Option<&[u8]>| {
            self.resources.iter().find(|known| {
                known.resource.as_bytes() == resource
                    && known.group.as_bytes() == group
                    && known.subresource.as_deref().map(str::as_bytes) == wanted
            })
        };
        of(Some(subresource)).or_else(|| of(None)).map(|found| &found.paths)
    }
}

impl Default for Redaction {
    /// The built-in rules: values of Secrets, tokens asked of and reviewed by the API server.
    fn default() -> Redaction {
        Redaction::new([]).expect("the built-in rules are valid")
    }
}

fn compile(paths: &[Path]) -> CompiledPaths {
    let parse = |text: &str| text.parse::<Path>().expect("a valid path");
    let parents = [parse("items[*]"), parse("rows[*].object")];
    // An operation on its own is no JSON patch, but shows as much when someone sends it.
    let mut all = vec![(parse("[*].value"), ()), (parse("value"), ())];
    for path in paths {
        all.push((path.clone(), ()));
        all.extend(parents.iter().map(|parent| (path.below(parent), ())));
    }
    Paths::new(&all, Names::IgnoreCase)
}

struct Rule {
    group: String,
    resource: String,
    subresource: Option<String>,
    path: Path,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("redaction rule {rule:?}: {problem}")]
pub struct RuleError {
    /// The rule as given.
    pub rule: String,
    /// What is wrong, and what would be right.
    pub problem: RuleProblem,
}

/// What can be wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs)] // each says what it is
pub enum RuleProblem {
    #[error("there is no colon; write GROUP/RESOURCE:PATH, such as core/configmaps:data.password")]
    NoColon,
    #[error("{0:?} is not GROUP/RESOURCE or GROUP/RESOURCE/SUBRESOURCE, such as apps/deployments")]
    Resource(String),
    #[error(
        "{0:?} is a version, which does not belong here; write GROUP/RESOURCE, such as apps/deployments or core/configmaps"
    )]
    Version(String),
    #[error(
        "{0:?} is not a resource as in URLs; write it in lower case and plural, such as deployments"
    )]
    Spelling(String),
    #[error(transparent)]
    Path(#[from] PathError),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        parse_rule(text.trim()).map_err(|problem| RuleError { rule: text.to_owned(), problem })
    }
}

fn parse_rule(text: &str) -> Result<Rule, RuleProblem> {
    let (place, path) = text.split_once(':').ok_or(RuleProblem::NoColon)?;
    let parts: Vec<&str> = place.trim_end().split('/').collect();
    let (group, resource, subresource) = match parts[..] {
        [resource] => ("", resource, None),
        [group, resource] => (group, resource, None),
        [group, resource, subresource] => (group, resource, Some(subresource)),
        _ => return Err(RuleProblem::Resource(place.to_owned())),
    };
    if resource.is_empty() || subresource == Some("") {
        return Err(RuleProblem::Resource(place.to_owned()));
    }
    if let Some(version) = parts.iter().find(|part| is_version(part)) {
        return Err(RuleProblem::Version((*version).to_owned()));
    }
    let in_urls = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if let Some(odd) = parts.iter().find(|part| !part.chars().all(in_urls)) {
        return Err(RuleProblem::Spelling((*odd).to_owned()));
    }
    Ok(Rule {
        group: if group == "core" { String::new() } else { group.to_owned() },
        resource: resource.to_owned(),
        subresource: subresource.map(str::to_owned),
        path: path.trim().parse()?,
    })
}

/// `v1`, `v2beta1`
fn is_version(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = text.strip_prefix('v') else { return false };
    let parts = number.split_once("alpha").or_else(|| number.split_once("beta"));
    match parts {
        Some((major, minor)) => digits(major) && digits(minor),
        None => digits(number),
    }
}

#[cfg(test)]
mod tests;
