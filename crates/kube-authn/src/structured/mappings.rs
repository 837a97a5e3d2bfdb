//! The mappings and rules of an issuer, each with either a claim or an expression.

use std::collections::HashSet;

use super::validate::Field;
use crate::cel::{Expression, Variable};
use crate::oidc::{ClaimRule, ExtraMapping, NameMapping, Rule, UidMapping};
use k8s_audit::document::diagnostic::Diagnostics;
use k8s_audit::request::label_selector::is_dns_subdomain;

const NOT_BOTH: &str = "claim and expression can't both be set";
const ONE_OF_TWO: &str = "claim or expression is required";
const KEEP_ONE: &str = "remove one of the two";

/// `claimMappings`
pub(super) struct Mappings {
    /// `None` only if the mapping is invalid.
    pub(super) username: Option<NameMapping>,
    pub(super) groups: Option<NameMapping>,
    pub(super) uid: Option<UidMapping>,
    pub(super) extra: Vec<ExtraMapping>,
}

pub(super) fn mappings(
    field: &Field<'_>,
    claim_rules: &[ClaimRule],
    problems: &mut Diagnostics,
) -> Mappings {
    let username = field.child("username");
    let found = Mappings {
        username: name(&username, true, problems),
        groups: name(&field.child("groups"), false, problems),
        uid: uid(&field.child("uid"), problems),
        extra: extra(&field.child("extra"), problems),
    };
    check_email(&username.child("expression"), &found, claim_rules, problems);
    found
}

/// If user names are email addresses, these must be verified.
fn check_email(
    field: &Field<'_>,
    found: &Mappings,
    claim_rules: &[ClaimRule],
    problems: &mut Diagnostics,
) {
    let Some(NameMapping::Expression(expression)) = &found.username else { return };
    let rules = claim_rules.iter().filter_map(|rule| match rule {
        ClaimRule::Rule(rule) => Some(&rule.expression),
        ClaimRule::Required { .. } => None,
    });
    let mut verifying = rules.chain(found.extra.iter().map(|e| &e.value)).chain([expression]);
    if expression.reads_email() && !verifying.any(Expression::reads_email_verified) {
        let message = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        let remedy =
            "add the rule \"claims.?email_verified.orValue(true) == true\" to claimValidationRules";
        field.invalid(expression.source(), message, remedy, problems);
    }
}

fn name(field: &Field<'_>, is_required: bool, problems: &mut Diagnostics) -> Option<NameMapping> {
    let (claim, prefix) = (field.child("claim"), field.child("prefix"));
    let expression = field.child("expression");
    match (claim.text(), expression.text()) {
        ("", "") => {
            if is_required {
                field.required(
                    ONE_OF_TWO,
                    "such as \"claim: sub\" with \"prefix: 'oidc:'\"",
                    problems,
                );
            }
            None
        }
        ("", _) => {
            if prefix.is_there() {
                let message = "may not be specified when expression is set";
                let remedy = "put it into the expression: 'prefix' + …";
                prefix.invalid(prefix.text(), message, remedy, problems);
            }
            compile(&expression, Variable::Claims, problems).map(NameMapping::Expression)
        }
        (name, "") => {
            if !prefix.is_there() {
                let message = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                prefix.required(message, "add \"prefix: ''\", or a prefix of yours", problems);
            }
            let (claim, prefix) = (name.to_owned(), prefix.text().to_owned());
            Some(NameMapping::Claim { claim, prefix })
        }
        _ => {
            field.invalid("", NOT_BOTH, KEEP_ONE, problems);
            None
        }
    }
}

fn uid(field: &Field<'_>, problems: &mut Diagnostics) -> Option<UidMapping> {
    let (claim, expression) = (field.child("claim"), field.child("expression"));
    match (claim.text(), expression.text()) {
        ("", "") => None,
        ("", _) => compile(&expression, Variable::Claims, problems).map(UidMapping::Expression),
        (claim, "") => Some(UidMapping::Claim(claim.to_owned())),
        _ => {
            field.invalid("", NOT_BOTH, KEEP_ONE, problems);
            None
        }
    }
}

fn extra(field: &Field<'_>, problems: &mut Diagnostics) -> Vec<ExtraMapping> {
    let mut keys = HashSet::new();
    let mut mappings = Vec::new();
    for mapping in field.elements() {
        let (key, value) = (mapping.child("key"), mapping.child("valueExpression"));
        check_key(&key, problems);
        if !keys.insert(key.text()) {
            key.duplicate(key.text(), problems);
        } else if value.text().is_empty() {
            value.required("", "such as \"claims.department\"", problems);
        } else if let Some(value) = compile(&value, Variable::Claims, problems) {
            mappings.push(ExtraMapping { key: key.text().to_owned(), value });
        }
    }
    mappings
}

/// Keys must be prefixed with a domain, to avoid conflicts.
fn check_key(field: &Field<'_>, problems: &mut Diagnostics) {
    let key = field.text();
    let remedy = "write a domain of yours and a name, such as \"example.com/department\"";
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    match key.split_once('/') {
        _ if key.is_empty() => field.required("", remedy, problems),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            if !is_dns_subdomain(domain) {
                let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
                field.invalid(domain, message, remedy, problems);
            }
            if !path.bytes().all(in_path) {
                let message = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                field.invalid(path, message, remedy, problems);
            }
            let is_of = |owner: &str| {
                domain
                    .strip_suffix(owner)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            if is_of("k8s.io") || is_of("kubernetes.io") {
                let message =
                    "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                field.invalid(key, message, remedy, problems);
            }
        }
        _ => {
            let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            field.invalid(key, message, remedy, problems);
        }
    }
    if key != key.to_lowercase() {
        let remedy = format!("write \"{}\"", key.to_lowercase());
        field.invalid(key, "must be lowercase", &remedy, problems);
    }
}

pub(super) fn claim_rules(field: &Field<'_>, problems: &mut Diagnostics) -> Vec<ClaimRule> {
    let (mut claims, mut expressions) = (HashSet::new(), HashSet::new());
    let mut required = Vec::new();
    let mut rules = Vec::new();
    for rule in field.elements() {
        let [claim, value, expression, message] =
            ["claim", "requiredValue", "expression", "message"].map(|name| rule.child(name));
        match (claim.text(), expression.text()) {
            ("", "") => {
                let remedy =
                    "give \"claim\" and \"requiredValue\", or \"expression\" and \"message\"";
                rule.required(ONE_OF_TWO, remedy, problems);
            }
            ("", source) => {
                if !value.text().is_empty() {
                    let problem = "may not be specified when expression is set";
                    value.invalid(value.text(), problem, "compare in the expression", problems);
                }
                if !expressions.insert(source) {
                    expression.duplicate(source, problems);
                } else if let Some(expression) =
                    compile_rule(&expression, Variable::Claims, problems)
                {
                    let message = message.text().to_owned();
                    rules.push(ClaimRule::Rule(Rule { expression, message }));
                }
            }
            (name, "") => {
                if !message.text().is_empty() {
                    let problem = "may not be specified when claim is set";
                    message.invalid(message.text(), problem, "remove it", problems);
                }
                if !claims.insert(name) {
                    claim.duplicate(name, problems);
                }
                let (claim, value) = (name.to_owned(), value.text().to_owned());
                required.push(ClaimRule::Required { claim, value });
            }
            (name, _) => rule.invalid(name, NOT_BOTH, KEEP_ONE, problems),
        }
    }
    // Like kube-apiserver: first all rules about one claim.
    required.extend(rules);
    required
}

pub(super) fn user_rules(field: &Field<'_>, problems: &mut Diagnostics) -> Vec<Rule> {
    let mut seen = HashSet::new();
    let mut rules = Vec::new();
    for rule in field.elements() {
        let (expression, message) = (rule.child("expression"), rule.child("message"));
        let source = expression.text();
        if source.is_empty() {
            let remedy = "such as \"!user.username.startsWith('system:')\"";
            expression.required("", remedy, problems);
        } else if !seen.insert(source) {
            expression.duplicate(source, problems);
        } else if let Some(expression) = compile_rule(&expression, Variable::User, problems) {
            rules.push(Rule { expression, message: message.text().to_owned() });
        }
    }
    rules
}

fn compile(
    field: &Field<'_>,
    variable: Variable,
    problems: &mut Diagnostics,
) -> Option<Expression> {
    match Expression::compile(field.text(), variable) {
        Ok(expression) => Some(expression),
        Err(error) => {
            let remedy = match variable {
                Variable::Claims => "expressions here are about \"claims\", such as claims.sub",
                Variable::User => {
                    "expressions here are about \"user\": user.username, user.uid, user.groups, user.extra"
                }
            };
            field.invalid(field.text(), &error.to_string(), remedy, problems);
            None
        }
    }
}

/// Compiles an expression that must result in a boolean, as far as its type is known.
fn compile_rule(
    field: &Field<'_>,
    variable: Variable,
    problems: &mut Diagnostics,
) -> Option<Expression> {
    let expression = compile(field, variable, problems)?;
    if !expression.is_bool() {
        let remedy = "compare it, as in \"claims.admin == true\"";
        field.invalid(expression.source(), "must evaluate to bool", remedy, problems);
        return None;
    }
    Some(expression)
}
