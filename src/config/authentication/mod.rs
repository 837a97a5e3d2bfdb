//! Authentication of clients: flags and their validation.

mod oidc;
mod request_header;
mod service_account;
mod token_review;

use std::path::PathBuf;

use clap::Args;

use self::oidc::OidcFlags;
pub(crate) use self::request_header::RequestHeaderAuthentication;
use self::request_header::RequestHeaderFlags;
pub(crate) use self::service_account::ServiceAccountAuthentication;
use self::service_account::ServiceAccountFlags;
use self::token_review::TokenReviewFlags;
use super::boolean_flag::BooleanFlag;
use super::{ConfigError, fail};
use crate::request::source::{Cidr, TrustedProxies};
use crate::upstream::identity::Identity;
use kube_authn::{JwtSettings, TokenReviewSettings};

const HEADING: &str = "Authentication";

/// Flags of the authentication of clients.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct AuthenticationFlags {
    /// CAs of client certificates, PEM: the common name is the user, organizations are the groups;
    /// reloaded when it changes
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Certificate revocation lists for client certificates, PEM; reloaded when it changes.
    /// Certificates of CAs without a list are not checked
    #[arg(long, value_name = "FILE")]
    pub client_crl_file: Option<PathBuf>,
    /// Accept client certificates of X.509 version 1, which have no usages and no extensions, like
    /// kube-apiserver does; only if a CA of --client-ca-file itself signed them
    #[arg(long, default_value = "false", boolean())]
    pub client_ca_allow_x509_v1: bool,
    /// Front proxies.
    #[command(flatten)]
    pub request_header: RequestHeaderFlags,
    /// Static bearer tokens, CSV: token,user,uid,"group,group"
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// ServiceAccount tokens.
    #[command(flatten)]
    pub service_accounts: ServiceAccountFlags,
    /// Audiences that tokens may have, comma-separated; the issuers by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// AuthenticationConfiguration (apiserver.config.k8s.io): JWT issuers, and paths that allow
    /// anonymous requests; reloaded when it changes. Excludes --oidc-*
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// The OpenID Connect issuer.
    #[command(flatten)]
    pub oidc: OidcFlags,
    /// TokenReviews and the token webhook.
    #[command(flatten)]
    pub token_review: TokenReviewFlags,
    /// Treat requests without credentials as system:anonymous; true by default
    #[arg(long, boolean())]
    pub anonymous_auth: Option<bool>,
    /// Networks from which X-Forwarded-For is trusted, comma-separated; all by default, like in
    /// kube-apiserver
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub trusted_proxies: Vec<Cidr>,
}

/// The enabled authentication methods and their settings.
#[derive(Debug, Clone)]
pub(crate) struct Authentication {
    /// `--client-ca-file`
    pub client_ca_file: Option<PathBuf>,
    /// `--client-crl-file`
    pub client_crl_file: Option<PathBuf>,
    /// `--client-ca-allow-x509-v1`
    pub client_ca_allow_x509_v1: bool,
    /// `--requestheader-*`
    pub request_header: Option<RequestHeaderAuthentication>,
    /// `--token-auth-file`
    pub token_auth_file: Option<PathBuf>,
    /// `--service-account-*`
    pub service_accounts: Option<ServiceAccountAuthentication>,
    /// The issuers of trusted tokens.
    pub issuers: Issuers,
    /// `--authentication-token-review`, `--authentication-token-webhook-*`
    pub token_review: Option<TokenReviewSettings>,
    /// `--api-audiences`, or the ServiceAccount issuers
    pub audiences: Vec<String>,
    /// `--anonymous-auth`, if it was given
    pub anonymous_auth: Option<bool>,
    /// `--trusted-proxies`
    pub trusted_proxies: TrustedProxies,
}

/// The trusted issuers of JSON Web Tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Issuers {
    /// No issuer.
    None,
    /// The issuer configured by `--oidc-*`.
    Flags(Box<JwtSettings>),
    /// The issuers in the file of `--authentication-config`.
    File(PathBuf),
}

impl AuthenticationFlags {
    /// Validates the flags.
    ///
    /// # Errors
    /// Returns an error about the first invalid flag or combination of flags.
    pub(in crate::config) fn validate(
        &self,
        identity: Identity,
    ) -> Result<Authentication, ConfigError> {
        let nobody = self.client_ca_file.is_none()
            && self.request_header.requestheader_client_ca_file.is_none()
            && self.token_auth_file.is_none()
            && self.service_accounts.service_account_key_file.is_empty()
            && !self.service_accounts.service_account_keys_from_upstream
            && self.oidc.oidc_issuer_url.is_none()
            && self.authentication_config.is_none()
            && !self.token_review.authentication_token_review
            && self.token_review.authentication_token_webhook_config_file.is_none()
            && self.anonymous_auth == Some(false)
            && identity != Identity::PassThrough;
        if nobody {
            return fail(
                "--anonymous-auth=false without another way to authenticate would reject every request; \
             give --client-ca-file, --token-auth-file or another flag of that kind",
            );
        }
        if self.client_crl_file.is_some() && self.client_ca_file.is_none() {
            return fail(
                "--client-crl-file needs --client-ca-file, the CAs that issue the revocation lists",
            );
        }
        if self.client_ca_allow_x509_v1 && self.client_ca_file.is_none() {
            return fail(
                "--client-ca-allow-x509-v1 needs --client-ca-file, the CAs of the client certificates",
            );
        }
        let audiences = match self.api_audiences.is_empty() {
            true => &self.service_accounts.service_account_issuer,
            false => &self.api_audiences,
        };
        Ok(Authentication {
            client_ca_file: self.client_ca_file.clone(),
            client_crl_file: self.client_crl_file.clone(),
            client_ca_allow_x509_v1: self.client_ca_allow_x509_v1,
            request_header: self.request_header.validate(self.client_ca_file.as_ref())?,
            token_auth_file: self.token_auth_file.clone(),
            service_accounts: self.service_accounts.validate()?,
            issuers: self.issuers()?,
            token_review: self.token_review.validate(audiences, identity)?,
            audiences: audiences.clone(),
            anonymous_auth: self.anonymous_auth,
            trusted_proxies: match self.trusted_proxies.as_slice() {
                [] => TrustedProxies::Everyone,
                networks => TrustedProxies::Networks(networks.to_vec()),
            },
        })
    }

    /// Returns whether clients can authenticate with a certificate.
    pub(in crate::config) fn uses_certificates(&self) -> bool {
        self.client_ca_file.is_some() || self.request_header.requestheader_client_ca_file.is_some()
    }

    fn issuers(&self) -> Result<Issuers, ConfigError> {
        let is_given = self.oidc.is_given();
        match &self.authentication_config {
            Some(_) if is_given => fail(
                "--authentication-config and --oidc-* are mutually exclusive; write the issuer of \
                 the flags into the file, under jwt",
            ),
            Some(file) => Ok(Issuers::File(file.clone())),
            None if is_given => {
                let issuers = &self.service_accounts.service_account_issuer;
                Ok(Issuers::Flags(Box::new(self.oidc.validate(issuers)?)))
            }
            None => Ok(Issuers::None),
        }
    }
}

#[cfg(test)]
mod tests;
