//! Which values of which resources are redacted in the record.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use super::paths::{Names, Path, PathError, Paths};

/// Paths to the values that are redacted in bodies of one resource.
pub type CompiledPaths = Paths<()>;

/// The rules that apply unless redaction is turned off.
const BUILT_IN: [&str; 5] = [
    "core/secrets:data.*",
    "core/secrets:stringData.*",
    r#"core/secrets:metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]"#,
    "core/serviceaccounts/token:status.token",
    "authentication.k8s.io/tokenreviews:spec.token",
];

/// Redaction rules: for each resource, the paths of its secrets.
///
/// A rule is written `GROUP/RESOURCE:PATH` or `GROUP/RESOURCE/SUBRESOURCE:PATH`, such as
/// `apps/deployments:spec.template.spec.containers[*].env[*].value`. The core group is `core`, or
/// omitted with its slash if there is no subresource. A rule without a subresource also applies to
/// all subresources. For the syntax of paths see [`Path`]. A path is applied
///
/// - in the object itself, and in patches that have its form (merge, strategic merge, apply);
/// - in each of a list's `items`, and in the object of each of a Table's `rows`.
///
/// In a JSON patch, which has its own syntax for paths, the `value` of every operation is redacted;
/// a body that is only a string is redacted completely. Names of members match case-insensitively,
/// since a misspelt `stringdata` also contains a secret. `null` is not redacted. A body that is not
/// JSON must be redacted by the caller, with [`redacted_whole`](super::redacted_whole).
#[derive(Debug)]
pub struct Redaction {
    resources: Vec<Resource>,
}

#[derive(Debug)]
struct Resource {
    group: String,
    resource: String,
    /// `None`: all subresources without an entry of their own.
    subresource: Option<String>,
    paths: Arc<CompiledPaths>,
}

impl Redaction {
    /// Creates redaction with the built-in rules and `rules`.
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

    /// No redaction, as in kube-apiserver.
    pub fn none() -> Redaction {
        Redaction { resources: Vec::new() }
    }

    /// Returns what to redact in the bodies of requests to a resource and of their responses;
    /// `None` if nothing. An empty group is the core group; an empty subresource is none.
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
    /// The built-in rules: values of Secrets, and tokens in `TokenRequest` and `TokenReview`.
    fn default() -> Redaction {
        Redaction::new([]).expect("the built-in rules are valid")
    }
}

fn compile(paths: &[Path]) -> CompiledPaths {
    let parse = |text: &str| text.parse::<Path>().expect("a valid path");
    let parents = [parse("items[*]"), parse("rows[*].object")];
    // An operation outside an array is not a JSON patch, but contains the same secrets.
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

/// A redaction rule that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("redaction rule {rule:?}: {problem}")]
pub struct RuleError {
    /// The rule.
    pub rule: String,
    /// What is wrong, and how to correct it.
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
