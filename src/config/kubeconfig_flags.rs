//! The flags of `serve` about kubeconfigs and credential plugins.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::flags::UPSTREAM;
use super::parse::parse_duration;

/// Flags of `serve` about kubeconfigs and credential plugins.
#[derive(Debug, Clone, Args)]
pub(crate) struct KubeconfigFlags {
    /// Kubeconfig with the API server's address and the proxy's own credentials. By default, in
    /// kubectl's order: the files of $KUBECONFIG, ~/.kube/config, the ServiceAccount of the proxy's
    /// pod. With --upstream-server and without --kubeconfig, none of them is used
    #[arg(long, value_name = "FILE", help_heading = UPSTREAM)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current context by default
    #[arg(long, value_name = "NAME", help_heading = UPSTREAM)]
    pub context: Option<String>,
    /// Maximum run time of a credential plugin (users[].user.exec in the kubeconfig)
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = UPSTREAM)]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub credential_plugin_timeout: Duration,
}
