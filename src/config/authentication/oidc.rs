//! The OpenID Connect issuer configured by `--oidc-*`: flags and their validation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::super::{ConfigError, fail};
use kube_authn::{
    Algorithm, CaSource, ClaimRule, IssuerSettings, JwtSettings, NameMapping, issuer_url,
    issuers_or_usual,
};

/// Flags of the OpenID Connect issuer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = super::HEADING)]
pub(crate) struct OidcFlags {
    /// URL of the OpenID Connect issuer (https), from which its keys are fetched
    #[arg(long, value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// Client ID that OIDC tokens must be issued for
    #[arg(long, value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// Claim with the user name [default: sub]
    #[arg(long, value_name = "NAME")]
    pub oidc_username_claim: Option<String>,
    /// Prefix of user names, - for none. By default the issuer's URL and #, except for the claim
    /// email
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// Claim with the groups
    #[arg(long, value_name = "NAME")]
    pub oidc_groups_claim: Option<String>,
    /// Prefix of groups
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub oidc_groups_prefix: Option<String>,
    /// Claim that must have the given value, which may contain commas; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE")]
    pub oidc_required_claim: Vec<String>,
    /// Accepted signature algorithms, comma-separated: RS256, RS384, RS512, ES256, ES384, ES512,
    /// PS256, PS384, PS512 [default: RS256]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
    /// CAs of the issuer, PEM; the system's CAs by default
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
}

impl OidcFlags {
    /// Returns whether any of the flags is set.
    pub(super) fn is_given(&self) -> bool {
        self.oidc_issuer_url.is_some()
            || self.oidc_client_id.is_some()
            || self.oidc_username_claim.is_some()
            || self.oidc_username_prefix.is_some()
            || self.oidc_groups_claim.is_some()
            || self.oidc_groups_prefix.is_some()
            || self.oidc_ca_file.is_some()
            || !self.oidc_required_claim.is_empty()
            || !self.oidc_signing_algs.is_empty()
    }

    /// Validates the flags. Like in kube-apiserver, they are converted to an
    /// `AuthenticationConfiguration` with one issuer.
    pub(super) fn validate(
        &self,
        service_account_issuers: &[String],
    ) -> Result<JwtSettings, ConfigError> {
        let given = |flag: &Option<String>| flag.clone().filter(|value| !value.is_empty());
        let (issuer_url, client_id) = match (
            given(&self.oidc_issuer_url),
            given(&self.oidc_client_id),
        ) {
            (Some(url), Some(id)) => (url, id),
            _ => {
                return fail(
                    "--oidc-* flags need --oidc-issuer-url, the iss claim of the tokens, and --oidc-client-id, their aud claim; neither may be empty",
                );
            }
        };
        if let Some(problem) = issuer_url::problems(&issuer_url).first() {
            return Err(ConfigError(format!(
                "--oidc-issuer-url: {issuer_url:?}: {problem}; give the iss claim of the tokens, such as \
             https://login.example.com"
            )));
        }
        if issuers_or_usual(service_account_issuers).contains(&issuer_url) {
            return fail(
                "--oidc-issuer-url is the issuer of ServiceAccount tokens (--service-account-issuer); \
             the two must be different issuers",
            );
        }
        let claim = self.oidc_username_claim.as_deref().unwrap_or("sub");
        if claim.is_empty() {
            return fail(
                "--oidc-username-claim is empty; give the claim with the user name, such as sub",
            );
        }
        let username_prefix = match (self.oidc_username_prefix.as_deref().unwrap_or(""), claim) {
            ("-", _) | ("", "email") => String::new(),
            ("", _) => format!("{issuer_url}#"),
            (prefix, _) => prefix.to_owned(),
        };
        let groups_claim = self.oidc_groups_claim.clone().filter(|claim| !claim.is_empty());
        // An empty list means the default, like in kube-apiserver.
        let signing_algs: Vec<&str> = match self.oidc_signing_algs.as_slice() {
            [] => vec!["RS256"],
            [one] if one.is_empty() => vec!["RS256"],
            names => names.iter().map(String::as_str).collect(),
        };
        Ok(JwtSettings {
            issuer: IssuerSettings {
                url: issuer_url,
                discovery_url: None,
                ca: self.oidc_ca_file.clone().map_or(CaSource::System, CaSource::File),
            },
            audiences: vec![client_id],
            algorithms: signing_algs
                .into_iter()
                .map(signing_algorithm)
                .collect::<Result<_, _>>()?,
            claim_rules: required_claims(&self.oidc_required_claim)?,
            username: NameMapping::Claim { claim: claim.to_owned(), prefix: username_prefix },
            groups: groups_claim.map(|claim| NameMapping::Claim {
                claim,
                prefix: self.oidc_groups_prefix.clone().unwrap_or_default(),
            }),
            uid: None,
            extra: Vec::new(),
            user_rules: Vec::new(),
        })
    }
}

/// Returns the required claims. If a claim has several values, the last one counts, like in
/// kube-apiserver.
fn required_claims(pairs: &[String]) -> Result<Vec<ClaimRule>, ConfigError> {
    let pairs = pairs.iter().map(|pair| required_claim(pair));
    let pairs = pairs.collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(pairs.into_iter().map(|(claim, value)| ClaimRule::Required { claim, value }).collect())
}

fn required_claim(pair: &str) -> Result<(String, String), ConfigError> {
    match pair.split_once('=').map(|(claim, value)| (claim.trim(), value.trim())) {
        Some((claim, value)) if !claim.is_empty() => Ok((claim.to_owned(), value.to_owned())),
        _ => Err(ConfigError(format!(
            "--oidc-required-claim: {pair:?} is not of the form claim=value"
        ))),
    }
}

fn signing_algorithm(name: &str) -> Result<Algorithm, ConfigError> {
    Algorithm::from_name(name).ok_or_else(|| {
        ConfigError(format!(
            "--oidc-signing-algs: {name:?} is not supported; supported are: RS256, RS384, RS512, \
             ES256, ES384, ES512, PS256, PS384, PS512"
        ))
    })
}
