//! Another server than the API server to ask whose a token is
//! (`--authentication-token-webhook-*`).

use std::path::PathBuf;

use crate::upstream::{ConfigError, Upstream, UpstreamConfig};

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
    /// Makes ready to ask; with the path of the URL, which is asked as it is. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// Where the kubeconfig cannot be used.
    pub fn connect(&self) -> Result<(Upstream, String), ConfigError> {
        let mut server = UpstreamConfig::from_kubeconfig(&self.file, None)?;
        let path = std::mem::take(&mut server.server.path_prefix);
        let path = if path.is_empty() { "/".to_owned() } else { path };
        Ok((Upstream::of_webhook(server, "the token webhook")?, path))
    }
}
