//! ServiceAccount tokens: flags and their validation.

use std::path::PathBuf;

use clap::Args;

use super::super::boolean_flag::BooleanFlag;
use super::super::{ConfigError, fail};

/// Flags of ServiceAccount tokens.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = super::HEADING)]
pub(crate) struct ServiceAccountFlags {
    /// Keys that verify ServiceAccount tokens, PEM; may be repeated. Reloaded when they change.
    /// Whether the account or pod still exists is not checked
    #[arg(long, value_name = "FILE")]
    pub service_account_key_file: Vec<PathBuf>,
    /// Fetch the keys of ServiceAccount tokens from the API server (/openid/v1/jwks), and the
    /// issuer if --service-account-issuer is not set
    #[arg(long, default_value = "false", boolean())]
    pub service_account_keys_from_upstream: bool,
    /// Issuer of ServiceAccount tokens; may be repeated
    #[arg(long, value_name = "URL")]
    pub service_account_issuer: Vec<String>,
}

/// How ServiceAccount tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceAccountAuthentication {
    /// `--service-account-key-file`
    pub key_files: Vec<PathBuf>,
    /// `--service-account-keys-from-upstream`
    pub keys_from_upstream: bool,
    /// `--service-account-issuer`. If empty, the API server reports its issuer together with its
    /// keys.
    pub issuers: Vec<String>,
}

impl ServiceAccountFlags {
    /// Validates the flags. Returns `None` if ServiceAccount tokens are not verified.
    pub(super) fn validate(&self) -> Result<Option<ServiceAccountAuthentication>, ConfigError> {
        let (key_files, issuers) = (&self.service_account_key_file, &self.service_account_issuer);
        if issuers.iter().any(String::is_empty) {
            return fail("--service-account-issuer is empty; give the iss claim of the tokens");
        }
        let keys_from_upstream = self.service_account_keys_from_upstream;
        if !keys_from_upstream {
            match (key_files.is_empty(), issuers.is_empty()) {
                (true, true) => return Ok(None),
                (false, false) => {}
                (false, true) => {
                    return fail(
                        "--service-account-key-file needs --service-account-issuer, the iss claim of the tokens, usually https://kubernetes.default.svc.cluster.local",
                    );
                }
                (true, false) => {
                    return fail(
                        "--service-account-issuer needs --service-account-key-file, the file with the public key that verifies its tokens, usually /etc/kubernetes/pki/sa.pub; or \
                     --service-account-keys-from-upstream, to fetch it from the API server",
                    );
                }
            }
        }
        Ok(Some(ServiceAccountAuthentication {
            key_files: key_files.clone(),
            keys_from_upstream,
            issuers: issuers.clone(),
        }))
    }
}
