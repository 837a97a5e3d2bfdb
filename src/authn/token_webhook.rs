//! Another server than the API server to ask whose a token is
//! (`--authentication-token-webhook-*`).

use std::path::PathBuf;

use api_client::{ApiClient, ConfigError};

use crate::upstream::webhook_config;

/// Who is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWebhook {
    /// `--authentication-token-webhook-config-file`: a kubeconfig whose cluster it is.
    pub file: PathBuf,
    /// `--authentication-token-webhook-version`
    pub version: WebhookVersion,
}

/// The version of `authentication.k8s.io` that is spoken with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WebhookVersion {
    /// `v1beta1`
    #[value(name = "v1beta1")]
    V1Beta1,
    /// `v1`
    #[value(name = "v1")]
    V1,
}

impl WebhookVersion {
    /// `apiVersion` of a TokenReview.
    pub fn api_version(self) -> &'static str {
        match self {
            WebhookVersion::V1Beta1 => "authentication.k8s.io/v1beta1",
            WebhookVersion::V1 => "authentication.k8s.io/v1",
        }
    }
}

impl TokenWebhook {
    /// Makes ready to ask. The path of the URL is the target of every request. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// Where the kubeconfig cannot be used.
    pub fn connect(&self) -> Result<ApiClient, ConfigError> {
        ApiClient::new(webhook_config(&self.file)?, "the token webhook")
    }
}
