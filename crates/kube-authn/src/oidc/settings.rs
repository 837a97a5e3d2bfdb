//! An issuer, and how its claims make users: `jwt[]` of an `AuthenticationConfiguration`.

use std::path::PathBuf;

use crate::cel::Expression;
use crate::jwt::Algorithm;

/// `jwt[]`
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSettings {
    /// `issuer`
    pub issuer: IssuerSettings,
    /// `issuer.audiences`, of which a token must be for one.
    pub audiences: Vec<String>,
    /// What tokens may be signed with: all of RS, ES and PS 256, 384 and 512, unless
    /// `--oidc-signing-algs` says less. kube-apiserver takes no EdDSA, so there is none here.
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
    /// `discoveryURL`, where its configuration is instead of at `url`.
    pub discovery_url: Option<String>,
    /// `certificateAuthority` or `--oidc-ca-file`.
    pub ca: CaSource,
}

/// By which CAs an issuer's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaSource {
    /// The CAs of the system.
    System,
    /// The CAs in this file.
    File(PathBuf),
    /// The CAs in this PEM text.
    Pem(String),
}

/// How user names or groups come about.
#[derive(Debug, Clone, PartialEq)]
pub enum NameMapping {
    /// From a claim.
    Claim {
        /// The name of the claim.
        claim: String,
        /// The prefix of the claim's value; may be empty.
        prefix: String,
    },
    /// By CEL.
    Expression(Expression),
}

/// How UIDs come about.
#[derive(Debug, Clone, PartialEq)]
pub enum UidMapping {
    /// From a claim.
    Claim(String),
    /// By CEL.
    Expression(Expression),
}

/// How a member of `extra` comes about.
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
    /// A claim has exactly this value, a text.
    Required {
        /// `claim`
        claim: String,
        /// `requiredValue`
        value: String,
    },
    /// By CEL.
    Rule(Rule),
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `expression`
    pub expression: Expression,
    /// `message`, for the log.
    pub message: String,
}
