//! Rules that select which sessions are recorded. The first matching rule decides.

use serde::Deserialize;

use crate::cast::Description;

/// The rules of `--session-recording-rules`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The rules in order. A session that no rule matches is recorded.
    pub rules: Vec<Rule>,
}

/// A rule. Like in an audit policy, an empty list matches everything, and all lists must match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Whether matching sessions are recorded.
    pub record: bool,
    /// Names of authenticated users.
    #[serde(default)]
    pub users: Vec<String>,
    /// Groups; the user must be in one of them.
    #[serde(default)]
    pub user_groups: Vec<String>,
    /// Namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Pods; `*` stands for any characters.
    #[serde(default)]
    pub pods: Vec<String>,
    /// Containers, as the request names them; `*` stands for any characters.
    #[serde(default)]
    pub containers: Vec<String>,
    /// Commands with their arguments, separated by blanks; `*` stands for any characters. Only exec
    /// has a command.
    #[serde(default)]
    pub commands: Vec<String>,
    /// `exec`, `attach`, `portforward`
    #[serde(default)]
    pub subresources: Vec<String>,
}

/// Why a file of rules is invalid.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is not YAML, or not rules.
    #[error("{0}")]
    Yaml(String),
    /// A subresource has no sessions.
    #[error("rules[{0}].subresources: {1:?} is not one of exec, attach, portforward")]
    Subresource(usize, String),
}

impl Rules {
    /// Parses YAML or JSON.
    ///
    /// # Errors
    /// Names the line and column, or the field.
    pub fn parse(text: &str) -> Result<Rules, RulesError> {
        let rules: Rules =
            serde_yaml::from_str(text).map_err(|error| RulesError::Yaml(error.to_string()))?;
        for (index, rule) in rules.rules.iter().enumerate() {
            let known =
                |name: &&String| !matches!(name.as_str(), "exec" | "attach" | "portforward");
            if let Some(name) = rule.subresources.iter().find(known) {
                return Err(RulesError::Subresource(index, name.clone()));
            }
        }
        Ok(rules)
    }

    /// Returns whether a session is recorded.
    pub fn records(&self, session: &Description) -> bool {
        self.rules.iter().find(|rule| rule.matches(session)).is_none_or(|rule| rule.record)
    }
}

impl Rule {
    fn matches(&self, session: &Description) -> bool {
        let is_in = |list: &[String], value: &String| list.is_empty() || list.contains(value);
        let like = |list: &[String], value: &str| {
            list.is_empty() || list.iter().any(|pattern| is_like(pattern, value))
        };
        let groups = &session.user.groups;
        is_in(&self.users, &session.user.username)
            && (self.user_groups.is_empty() || self.user_groups.iter().any(|g| groups.contains(g)))
            && is_in(&self.namespaces, &session.namespace)
            && is_in(&self.subresources, &session.activity)
            && like(&self.pods, &session.pod)
            && like(&self.containers, &session.container)
            && (self.commands.is_empty()
                || !session.command.is_empty() && like(&self.commands, &session.command.join(" ")))
    }
}

/// Returns whether `text` matches `pattern`, in which `*` stands for any characters.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordedUser;

    fn session() -> Description {
        Description {
            activity: "exec".to_owned(),
            user: RecordedUser { username: "ci".to_owned(), groups: vec!["bots".to_owned()] },
            namespace: "build".to_owned(),
            pod: "runner-7".to_owned(),
            command: vec!["cat".to_owned(), "/healthz".to_owned()],
            ..Description::default()
        }
    }

    fn records(rules: &str) -> bool {
        Rules::parse(rules).unwrap().records(&session())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert!(records("rules: []"));
        assert!(!records("rules: [{record: false}]"));
        assert!(records("rules: [{record: true, users: [ci]}, {record: false}]"));
        for fields in [
            "users: [ci, other]",
            "userGroups: [bots]",
            "namespaces: [build]",
            "pods: ['runner-*']",
            "commands: ['cat /health*']",
            "subresources: [exec]",
            "containers: ['*']",
        ] {
            assert!(!records(&format!("rules: [{{record: false, {fields}}}]")), "{fields}");
        }
        for fields in [
            "users: [other]",
            "userGroups: [admins]",
            "namespaces: [build2]",
            "pods: [runner]",
            "commands: [cat]",
            "subresources: [attach]",
            "users: [ci], namespaces: [other]",
        ] {
            assert!(records(&format!("rules: [{{record: false, {fields}}}]")), "{fields}");
        }
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("a*", "a", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("*", "", true),
            ("ab", "abc", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn errors_say_where() {
        let error = Rules::parse("rules:\n- record: true\n  user: [a]\n").unwrap_err().to_string();
        assert!(error.contains("user") && error.contains("line 3"), "{error}");
        let error = Rules::parse("rules: [{record: true, subresources: [log]}]").unwrap_err();
        assert!(error.to_string().contains("rules[0].subresources"), "{error}");
    }
}
