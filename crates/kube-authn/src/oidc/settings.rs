//! The settings of an issuer: `jwt[]` of an `AuthenticationConfiguration`.

use std::path::PathBuf;

use crate::cel::Expression;
use crate::jwt::Algorithm;

/// `jwt[]`
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSettings {
    /// `issuer`
    pub issuer: IssuerSettings,
    /// `issuer.audiences`. A token must have at least one of them.
    pub audiences: Vec<String>,
    /// The accepted signature algorithms: all of RS, ES and PS with 256, 384 and 512 bits, unless
    /// `--oidc-signing-algs` restricts them. Like kube-apiserver, EdDSA is not supported.
    pub algorithms: Vec<Algorithm>,
    /// `claimValidationRules`
    pub claim_rules: Vec<ClaimRule>,
    /// `claimMappings.username`
    pub username: NameMapping,
    /// `claimMappings.groups`
    pub groups: Option<NameMapping>,
    /// `claimMappings.uid`
    pub uid: Option<UidMapping>,
    /// `claimMappings.extra`
    pub extra: Vec<ExtraMapping>,
    /// `userValidationRules`
    pub user_rules: Vec<Rule>,
}

/// The location of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// `url`: the claim `iss` of its tokens.
    pub url: String,
    /// `discoveryURL`: the URL of the discovery document, if it is not below `url`.
    pub discovery_url: Option<String>,
    /// `certificateAuthority` or `--oidc-ca-file`.
    pub ca: CaSource,
}

/// The CAs that verify an issuer's server certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaSource {
    /// The CAs of the operating system.
    System,
    /// The CAs in this file.
    File(PathBuf),
    /// The CAs in this PEM text.
    Pem(String),
}

/// The source of user names or groups.
#[derive(Debug, Clone, PartialEq)]
pub enum NameMapping {
    /// A claim.
    Claim {
        /// The name of the claim.
        claim: String,
        /// The prefix for the value; may be empty.
        prefix: String,
    },
    /// A CEL expression.
    Expression(Expression),
}

/// The source of UIDs.
#[derive(Debug, Clone, PartialEq)]
pub enum UidMapping {
    /// A claim.
    Claim(String),
    /// A CEL expression.
    Expression(Expression),
}

/// The source of an `extra` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraMapping {
    /// `key`
    pub key: String,
    /// `valueExpression`
    pub value: Expression,
}

/// A condition on claims.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimRule {
    /// A claim must be a string with exactly this value.
    Required {
        /// `claim`
        claim: String,
        /// `requiredValue`
        value: String,
    },
    /// A CEL expression must be true.
    Rule(Rule),
}

/// A CEL expression that must be true.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `expression`
    pub expression: Expression,
    /// `message`, for the log.
    pub message: String,
}
