//! Validates the values of an `AuthenticationConfiguration` like kube-apiserver, with its messages.

use std::collections::HashSet;

use k8s_audit::go::quote;

use super::mappings;
use crate::anonymous::Anonymous;
use crate::issuer_url;
use crate::jwt::Algorithm;
use crate::oidc::{CaSource, IssuerSettings, JwtSettings, pem_roots};
use k8s_audit::document::diagnostic::Diagnostics;
use k8s_audit::document::tree::{Node, Value};

/// Maximum number of issuers.
const MAX_ISSUERS: usize = 64;

/// A member of the document, or the place where it is missing, with its path for messages.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    pub(super) node: Option<&'n Node>,
    /// The enclosing node, if the node itself is missing.
    around: &'n Node,
}

impl<'n> Field<'n> {
    pub(super) fn child(&self, name: &str) -> Field<'n> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let around = self.node.unwrap_or(self.around);
        let node = self.node.and_then(|node| node.member(name));
        Field { path: format!("{}{dot}{name}", self.path), node, around }
    }

    pub(super) fn elements(&self) -> Vec<Field<'n>> {
        let nodes = self.node.map(Node::elements).unwrap_or_default();
        let element = |(index, node)| Field {
            path: format!("{}[{index}]", self.path),
            node: Some(node),
            around: node,
        };
        nodes.iter().enumerate().map(element).collect()
    }

    /// Returns the string; empty if it is missing or null, like in Go.
    pub(super) fn text(&self) -> &'n str {
        self.node.map(Node::text).unwrap_or_default()
    }

    /// Returns whether the member exists, even if it is empty.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some_and(|node| !matches!(node.value, Value::Null))
    }

    pub(super) fn invalid(
        &self,
        value: &str,
        message: &str,
        remedy: &str,
        found: &mut Diagnostics,
    ) {
        let message =
            format!("{}: Invalid value: {}: {message}", self.path, quote(value.as_bytes()));
        self.add(message, remedy, found);
    }

    pub(super) fn required(&self, message: &str, remedy: &str, found: &mut Diagnostics) {
        let colon = if message.is_empty() { "" } else { ": " };
        self.add(format!("{}: Required value{colon}{message}", self.path), remedy, found);
    }

    pub(super) fn duplicate(&self, value: &str, found: &mut Diagnostics) {
        let message = format!("{}: Duplicate value: {}", self.path, quote(value.as_bytes()));
        self.add(message, "remove one of the two", found);
    }

    pub(super) fn add(&self, message: String, remedy: &str, found: &mut Diagnostics) {
        let at = self.node.unwrap_or(self.around).at;
        found.add(at, message, Some(remedy.to_owned()));
    }
}

/// Builds the settings from a document with correct types. They are only valid if there are no
/// problems.
pub(super) fn build(
    root: &Node,
    disallowed_issuers: &[String],
    problems: &mut Diagnostics,
    warnings: &mut Diagnostics,
) -> (Vec<JwtSettings>, Option<Anonymous>) {
    let root = Field { path: String::new(), node: Some(root), around: root };
    let jwt = root.child("jwt");
    let authenticators = jwt.elements();
    if authenticators.len() > MAX_ISSUERS {
        let count = authenticators.len();
        let message = format!("jwt: Too many: {count}: must have at most {MAX_ISSUERS} items");
        jwt.add(message, "remove issuers", problems);
        return (Vec::new(), None);
    }
    let (mut urls, mut discovery_urls) = (HashSet::new(), HashSet::new());
    let mut settings = Vec::new();
    for authenticator in &authenticators {
        let issuer = authenticator.child("issuer");
        settings.extend(jwt_settings(authenticator, disallowed_issuers, problems));
        let (url, discovery) = (issuer.child("url"), issuer.child("discoveryURL"));
        if !url.text().is_empty() && !urls.insert(url.text()) {
            url.duplicate(url.text(), problems);
        }
        if !discovery.text().is_empty() && !discovery_urls.insert(discovery.text()) {
            discovery.duplicate(discovery.text(), problems);
        }
        let egress = issuer.child("egressSelectorType");
        if matches!(egress.text(), "controlplane" | "cluster") {
            let message = format!("{}: has no effect, there are no egress selectors", egress.path);
            egress.add(message, "issuers are contacted directly", warnings);
        }
    }
    let anonymous = root.child("anonymous");
    (settings, anonymous.is_there().then(|| self::anonymous(&anonymous, problems)))
}

fn anonymous(field: &Field<'_>, problems: &mut Diagnostics) -> Anonymous {
    let enabled = field.child("enabled").node.map(|node| &node.value);
    let conditions = field.child("conditions");
    let paths: Vec<String> =
        conditions.elements().iter().map(|c| c.child("path").text().to_owned()).collect();
    match (matches!(enabled, Some(Value::Bool(true))), paths.is_empty()) {
        (true, true) => Anonymous::Everywhere,
        (true, false) => Anonymous::Paths(paths),
        (false, true) => Anonymous::Nowhere,
        (false, false) => {
            let message = format!(
                "{}: Invalid value: [{}]: enabled should be set to true when conditions are defined",
                conditions.path,
                paths.iter().map(|p| quote(p.as_bytes())).collect::<Vec<_>>().join(",")
            );
            conditions.add(message, "write \"enabled: true\", or remove them", problems);
            Anonymous::Nowhere
        }
    }
}

fn jwt_settings(
    field: &Field<'_>,
    disallowed_issuers: &[String],
    problems: &mut Diagnostics,
) -> Option<JwtSettings> {
    let issuer = field.child("issuer");
    let settings = issuer_settings(&issuer, disallowed_issuers, problems);
    let audiences = audiences(&issuer, problems);
    let (claim_rules, user_rules) = (
        mappings::claim_rules(&field.child("claimValidationRules"), problems),
        mappings::user_rules(&field.child("userValidationRules"), problems),
    );
    let mapped = mappings::mappings(&field.child("claimMappings"), &claim_rules, problems);
    let mappings::Mappings { username, groups, uid, extra } = mapped;
    Some(JwtSettings {
        issuer: settings,
        audiences,
        algorithms: Algorithm::ALL.to_vec(),
        claim_rules,
        username: username?,
        groups,
        uid,
        extra,
        user_rules,
    })
}

fn issuer_settings(
    field: &Field<'_>,
    disallowed_issuers: &[String],
    problems: &mut Diagnostics,
) -> IssuerSettings {
    let (url, discovery) = (field.child("url"), field.child("discoveryURL"));
    let (url_text, discovery_text) = (url.text(), discovery.text());
    if url_text.is_empty() {
        url.required("", "give the iss claim of its tokens", problems);
    } else {
        if disallowed_issuers.iter().any(|issuer| issuer == url_text) {
            let message = format!(
                "URL must not overlap with disallowed issuers: [{}]",
                disallowed_issuers.join(" ")
            );
            let remedy = "it is a --service-account-issuer; the two must be different issuers";
            url.invalid(url_text, &message, remedy, problems);
        }
        check_url(&url, problems);
    }
    if !discovery_text.is_empty() {
        if url_text.trim_end_matches('/') == discovery_text.trim_end_matches('/') {
            let remedy = "remove it, or give the URL of the document itself, such as https://host/.well-known/openid-configuration";
            discovery.invalid(
                discovery_text,
                "discoveryURL must be different from URL",
                remedy,
                problems,
            );
        }
        check_url(&discovery, problems);
    }
    let authority = field.child("certificateAuthority");
    let ca = match authority.text() {
        "" => CaSource::System,
        pem => {
            if let Err(reason) = pem_roots(pem) {
                let remedy = "give PEM blocks that begin with -----BEGIN CERTIFICATE-----, after \"certificateAuthority: |\"";
                authority.invalid("<omitted>", &reason, remedy, problems);
            }
            CaSource::Pem(pem.to_owned())
        }
    };
    let egress = field.child("egressSelectorType");
    if !matches!(egress.text(), "" | "controlplane" | "cluster") {
        let message = "egress selector must be either controlplane or cluster";
        egress.invalid(
            egress.text(),
            message,
            "remove it: issuers are contacted directly",
            problems,
        );
    }
    IssuerSettings {
        url: url_text.to_owned(),
        discovery_url: Some(discovery_text.to_owned()).filter(|url| !url.is_empty()),
        ca,
    }
}

fn check_url(field: &Field<'_>, problems: &mut Diagnostics) {
    let remedy = "give a plain https URL, such as https://login.example.com";
    for problem in issuer_url::problems(field.text()) {
        field.invalid(field.text(), problem, remedy, problems);
    }
}

fn audiences(issuer: &Field<'_>, problems: &mut Diagnostics) -> Vec<String> {
    let (field, policy) = (issuer.child("audiences"), issuer.child("audienceMatchPolicy"));
    let audiences = field.elements();
    if audiences.is_empty() {
        let message = format!("at least one {} is required", field.path);
        field.required(&message, "give the clients that tokens are for", problems);
        return Vec::new();
    }
    let mut seen = HashSet::new();
    for audience in &audiences {
        if audience.text().is_empty() {
            audience.required("", "give the client that tokens are for", problems);
        }
        if !seen.insert(audience.text()) {
            audience.duplicate(audience.text(), problems);
        }
    }
    let remedy = "write \"audienceMatchPolicy: MatchAny\"";
    match (audiences.len(), policy.text()) {
        (_, "MatchAny") | (1, "") => {}
        (1, other) => {
            let message = "audienceMatchPolicy must be empty or MatchAny for single audience";
            policy.invalid(other, message, remedy, problems);
        }
        (_, other) => {
            let message = "audienceMatchPolicy must be MatchAny for multiple audiences";
            policy.invalid(other, message, remedy, problems);
        }
    }
    audiences.iter().map(|audience| audience.text().to_owned()).collect()
}
