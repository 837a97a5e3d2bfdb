//! Parses the second document of a policy file into an [`Extension`].

use std::time::Duration;

use serde::Deserialize;
use serde_yaml::{Location, Spanned};

use super::limit::Limiter;
use super::{
    API_VERSION, Action, Codes, Extension, ExtensionRule, KIND, READS, SUCCESSFUL, UPDATES,
};
use crate::policy::{Diagnostic, GroupResources, Level, PolicyRule, PolicySpec, Position};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Option<serde_json::Value>,
    rules: Vec<Spanned<Rule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    response_codes: Vec<Code>,
    #[serde(default)]
    unchanged: bool,
    action: String,
    rate: Option<f64>,
    limit: Option<u64>,
    window: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// A code such as `404`, or a class such as `4xx`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Number(u16),
    Text(String),
}

/// Parses the `PolicyExtension` in a policy file; `None` if there is none. Other documents after
/// the policy are ignored, like in kube-apiserver.
///
/// # Errors
/// Returns the faults of an invalid extension, or an error if there are several.
pub(crate) fn parse(text: &[u8], source: &str) -> Result<Option<Extension>, Vec<Diagnostic>> {
    let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
    let mut found = None;
    for document in later_documents(text) {
        let head = serde_yaml::from_str::<Option<Head>>(&document).ok().flatten();
        let Some(Head { api_version: Some(version), kind }) = head else { continue };
        if !version.starts_with("audit.kube-audit-proxy.io/") {
            continue;
        }
        let start =
            Position { line: 1 + document.chars().take_while(|c| *c == '\n').count(), column: 1 };
        let problem = |at: Position, message: String, remedy: &str| {
            let help = Some(remedy.to_owned()).filter(|text| !text.is_empty());
            vec![Diagnostic { source: source.to_owned(), at: Some(at), message, help }]
        };
        if version != API_VERSION || kind.as_deref() != Some(KIND) {
            let kind = kind.unwrap_or_default();
            let remedy = format!("use \"apiVersion: {API_VERSION}\" and \"kind: {KIND}\"");
            let message = format!("no kind {kind:?} is known for version {version:?}");
            return Err(problem(start, message, &remedy));
        }
        if found.is_some() {
            let message = "there are several PolicyExtensions".to_owned();
            return Err(problem(start, message, "put all rules into one"));
        }
        let document: Document = serde_yaml::from_str(&document).map_err(|error| {
            let at = error.location().map_or(start, |at| position(&at));
            problem(at, yaml_message(&error), "")
        })?;
        found = Some(build(document).map_err(|(at, message)| problem(at, message, ""))?);
    }
    Ok(found)
}

/// Returns the documents after the first, each preceded by as many line breaks as in the file, so
/// that positions are right. A line that begins with `---` always begins a document.
fn later_documents(text: &str) -> Vec<String> {
    let mut documents: Vec<String> = Vec::new();
    let (mut is_begun, mut current) = (false, None::<String>);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            documents.extend(current.take());
            // The first marker begins the first document, unless something precedes it.
            if is_begun {
                current = Some("\n".repeat(number + 1));
            }
            is_begun = true;
            continue;
        }
        is_begun |= !matches!(line.trim_start().chars().next(), None | Some('#' | '%'));
        if let Some(current) = &mut current {
            current.push_str(line);
        }
    }
    documents.extend(current);
    documents
}

fn position(at: &Location) -> Position {
    Position { line: at.line() as usize, column: at.column() as usize }
}

/// Returns the message of a YAML error, without the position and the text around it.
pub(crate) fn yaml_message(error: &serde_yaml::Error) -> String {
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default();
    first
        .split_once(": line ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map_or(first, |(_, message)| message)
        .to_owned()
}

/// The position and description of a fault.
type Fault = (Position, String);

fn build(document: Document) -> Result<Extension, Fault> {
    let mut rules = Vec::new();
    let mut conditions = PolicySpec::default();
    for (index, Spanned { value: rule, referenced, .. }) in document.rules.into_iter().enumerate() {
        let at = position(&referenced);
        let fault = |message: String| (at, format!("rules[{index}]: {message}"));
        let codes = rule.response_codes.iter().map(codes).collect::<Result<Vec<_>, _>>();
        let mut codes = codes.map_err(&fault)?;
        if codes.is_empty() {
            codes.push(SUCCESSFUL);
        }
        let objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        if objects && !rule.non_resource_urls.is_empty() {
            return Err(fault("a rule is about resources or nonResourceURLs, not both".to_owned()));
        }
        let action = action(&rule).map_err(&fault)?;
        let verbs = match (rule.verbs.is_empty(), rule.unchanged) {
            (false, _) => rule.verbs,
            (true, false) => READS.map(str::to_owned).into(),
            (true, true) => UPDATES.map(str::to_owned).into(),
        };
        if rule.unchanged && verbs.iter().any(|verb| !UPDATES.contains(&&verb[..])) {
            return Err(fault("unchanged is only for the verbs update and patch".to_owned()));
        }
        let resources = rule.resources.into_iter().map(|entry| GroupResources {
            group: entry.group,
            resources: entry.resources,
            resource_names: entry.resource_names,
        });
        conditions.rules.push(PolicyRule {
            users: rule.users,
            user_groups: rule.user_groups,
            verbs,
            resources: resources.collect(),
            namespaces: rule.namespaces,
            non_resource_urls: rule.non_resource_urls,
            ..PolicyRule::new(Level::None)
        });
        let name = rule.name.unwrap_or_else(|| index.to_string());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            return Err((
                at,
                format!(
                    "rules[{index}]: name {name:?}: accepted are 1 to 64 letters, digits, -, _, and ."
                ),
            ));
        }
        if rules.iter().any(|known: &ExtensionRule| known.name == name) {
            return Err((at, format!("rules[{index}]: name {name:?}: another rule has it, too")));
        }
        rules.push(ExtensionRule { name, at, codes, unchanged: rule.unchanged, action });
    }
    Ok(Extension::new(rules, &conditions))
}

fn action(rule: &Rule) -> Result<Action, String> {
    let only = |member: &str, is_given: bool, action: &str| match is_given {
        true => Err(format!("{member} is only for \"action: {action}\"")),
        false => Ok(()),
    };
    let is_limit = rule.action == "RateLimit";
    if rule.action != "Sample" {
        only("rate", rule.rate.is_some(), "Sample")?;
    }
    if !is_limit {
        only("limit", rule.limit.is_some(), "RateLimit")?;
        only("window", rule.window.is_some(), "RateLimit")?;
    }
    match &rule.action[..] {
        "Keep" => Ok(Action::Keep),
        "Drop" => Ok(Action::Drop),
        "Sample" => {
            let rate = rule.rate.ok_or("Sample needs a rate, such as \"rate: 0.01\"")?;
            if !(rate > 0.0 && rate < 1.0) {
                return Err(format!("rate {rate}: accepted is a number between 0 and 1"));
            }
            Ok(Action::Sample { rate, shown: rate.to_string() })
        }
        "RateLimit" => {
            let limit = rule.limit.ok_or("RateLimit needs a limit, such as \"limit: 10\"")?;
            if limit == 0 {
                return Err(
                    "limit 0: accepted is 1 or more; use \"action: Drop\" for none".to_owned()
                );
            }
            let written = rule.window.as_deref().unwrap_or("1m");
            let window = duration(written).ok_or_else(|| {
                format!("window {written:?}: accepted are 1s to 1h, such as 30s, 5m, or 1h")
            })?;
            Ok(Action::RateLimit(Limiter::new(limit, window)))
        }
        other => Err(format!("action {other:?}: accepted are Keep, Drop, Sample, RateLimit")),
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (1..=3600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn codes(code: &Code) -> Result<Codes, String> {
    let wrong = |code: &str| format!("responseCodes {code:?}: write a code such as 404, or 4xx");
    match code {
        Code::Number(code @ 100..=599) => Ok(Codes(*code, *code)),
        Code::Number(code) => Err(wrong(&code.to_string())),
        Code::Text(text) => match text.as_bytes() {
            [class @ b'1'..=b'5', b'x', b'x'] => {
                let first = u16::from(class - b'0') * 100;
                Ok(Codes(first, first + 99))
            }
            _ => match text.parse() {
                Ok(code @ 100..=599) => Ok(Codes(code, code)),
                _ => Err(wrong(text)),
            },
        },
    }
}
