//! Maps the claims of a verified token to a user, like kube-apiserver.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::authenticator::OidcError;
use super::settings::{ClaimRule, JwtSettings, NameMapping, Rule, UidMapping};
use crate::UserInfo;
use crate::cel::{EvaluationError, Input};

/// The prefix of names that are reserved for Kubernetes.
const RESERVED: &str = "system:";
/// The group of unauthenticated users.
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The `extra` key for the ID of the token.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// A user, and the groups that were removed.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) user: UserInfo,
    /// Groups that were removed because their names are reserved for Kubernetes.
    pub(super) reserved_groups: Vec<String>,
}

impl JwtSettings {
    /// Maps claims to a user.
    pub(super) fn user(&self, claims: &Map<String, Value>) -> Result<Mapped, OidcError> {
        let input = self.uses_expressions().then(|| Input::claims(claims));
        let claims = Claims { claims, input };
        let username = self.username(&claims)?;
        let groups = self.groups(&claims)?;
        let uid = match &self.uid {
            None => String::new(),
            Some(UidMapping::Claim(name)) => claims.text(name)?.to_owned(),
            Some(UidMapping::Expression(expression)) => {
                claims.evaluate("uid", |input| expression.text(input))?
            }
        };
        let mut user = UserInfo { username, uid, groups, extra: self.extra(&claims)? };
        for rule in &self.claim_rules {
            match rule {
                ClaimRule::Required { claim, value } => {
                    if claims.text(claim)? != value {
                        let problem = "does not have the required value";
                        return Err(OidcError::Claim(claim.clone(), problem));
                    }
                }
                ClaimRule::Rule(rule) => claims
                    .evaluate("claim validation", |input| rule.expression.is_true(input))?
                    .then_some(())
                    .ok_or_else(|| failed(rule))?,
            }
        }
        if !self.user_rules.is_empty() {
            let input = Input::user(&user);
            for rule in &self.user_rules {
                let result = rule.expression.is_true(&input);
                if !result.map_err(|error| OidcError::Expression("user validation", error))? {
                    return Err(failed(rule));
                }
            }
        }
        // Validation rules see all groups; reserved ones are removed afterwards.
        let is_reserved =
            |group: &String| self.groups.as_ref().is_some_and(|groups| groups.is_reserved(group));
        let (reserved_groups, groups): (Vec<String>, Vec<String>) =
            std::mem::take(&mut user.groups).into_iter().partition(is_reserved);
        // If the group were only removed, the user would have more permissions than in
        // kube-apiserver, which does not add such a user to `system:authenticated`.
        if reserved_groups.iter().any(|group| group == UNAUTHENTICATED) {
            return Err(OidcError::Unauthenticated(UNAUTHENTICATED));
        }
        user.groups = groups;
        Ok(Mapped { user: user.into_authenticated(), reserved_groups })
    }

    fn uses_expressions(&self) -> bool {
        matches!(self.username, NameMapping::Expression(_))
            || matches!(self.groups, Some(NameMapping::Expression(_)))
            || matches!(self.uid, Some(UidMapping::Expression(_)))
            || self.claim_rules.iter().any(|rule| matches!(rule, ClaimRule::Rule(_)))
            || !self.extra.is_empty()
    }

    fn username(&self, claims: &Claims<'_>) -> Result<String, OidcError> {
        let username = match &self.username {
            NameMapping::Expression(expression) => {
                claims.evaluate("username", |input| expression.text(input))?
            }
            NameMapping::Claim { claim, prefix } => {
                let value = claims.text(claim)?;
                let verified = claims.claims.get("email_verified");
                if claim == "email" && verified.is_some_and(|v| *v != Value::Bool(true)) {
                    return Err(OidcError::Claim("email_verified".to_owned(), "is not true"));
                }
                format!("{prefix}{value}")
            }
        };
        // kube-apiserver accepts such a user, but RBAC could not refer to it, nor could it be found
        // in the log.
        if username.is_empty() {
            return Err(OidcError::NoName);
        }
        // An issuer must not issue the names of cluster components.
        if self.username.is_reserved(&username) {
            return Err(OidcError::Reserved(username));
        }
        Ok(username)
    }

    fn groups(&self, claims: &Claims<'_>) -> Result<Vec<String>, OidcError> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(NameMapping::Expression(expression)) => {
                claims.evaluate("groups", |input| expression.texts(input))
            }
            Some(NameMapping::Claim { claim, prefix }) => {
                let groups = claims.texts(claim)?;
                let groups: Vec<String> =
                    groups.into_iter().map(|group| format!("{prefix}{group}")).collect();
                // kube-apiserver accepts an empty group, but no header can pass it to the API
                // server.
                if groups.iter().any(String::is_empty) {
                    return Err(OidcError::Claim(claim.clone(), "has a group without a name"));
                }
                Ok(groups)
            }
        }
    }

    fn extra(&self, claims: &Claims<'_>) -> Result<BTreeMap<String, Vec<String>>, OidcError> {
        let mut extra = BTreeMap::new();
        if let Some(jti) =
            claims.claims.get("jti").and_then(Value::as_str).filter(|jti| !jti.is_empty())
        {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={jti}")]);
        }
        for mapping in &self.extra {
            let values = claims.evaluate("extra", |input| mapping.value.texts(input))?;
            if !values.is_empty() {
                extra.insert(mapping.key.clone(), values);
            }
        }
        Ok(extra)
    }
}

impl NameMapping {
    /// Returns whether a name is reserved for Kubernetes, unless it was configured explicitly: by a
    /// prefix that begins with `system:`, or by a literal in the expression, such as
    /// `'system:node:' + claims.host`.
    fn is_reserved(&self, name: &str) -> bool {
        let configured =
            |beginning: &str| beginning.starts_with(RESERVED) && name.starts_with(beginning);
        let is_configured = match self {
            NameMapping::Claim { prefix, .. } => configured(prefix),
            NameMapping::Expression(expression) => {
                expression.beginnings().iter().any(|beginning| configured(beginning))
            }
        };
        name.starts_with(RESERVED) && !is_configured
    }
}

fn failed(rule: &Rule) -> OidcError {
    let Rule { expression, message } = rule;
    OidcError::Rule { expression: expression.source().to_owned(), message: message.clone() }
}

struct Claims<'c> {
    claims: &'c Map<String, Value>,
    /// The variables for expressions; `None` if there are no expressions.
    input: Option<Input>,
}

impl Claims<'_> {
    fn text(&self, name: &str) -> Result<&str, OidcError> {
        let wrong = |problem| OidcError::Claim(name.to_owned(), problem);
        match self.claims.get(name).ok_or(wrong("is missing"))? {
            Value::String(text) => Ok(text),
            // Go decodes null as an empty string.
            Value::Null => Ok(""),
            _ => Err(wrong("is no string")),
        }
    }

    /// Returns the strings of a claim that is a string or a list of strings; none if it is missing.
    fn texts(&self, name: &str) -> Result<Vec<&str>, OidcError> {
        let wrong =
            || OidcError::Claim(name.to_owned(), "is neither a string nor a list of strings");
        match self.claims.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.as_str()]),
            Some(Value::Array(values)) => {
                let text = |value| match value {
                    &Value::Null => Ok(""),
                    value => Value::as_str(value).ok_or_else(wrong),
                };
                values.iter().map(text).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    fn evaluate<T>(
        &self,
        what: &'static str,
        run: impl FnOnce(&Input) -> Result<T, EvaluationError>,
    ) -> Result<T, OidcError> {
        let input = self.input.as_ref().expect("it is made where there are expressions");
        run(input).map_err(|error| OidcError::Expression(what, error))
    }
}

#[cfg(test)]
mod tests;
