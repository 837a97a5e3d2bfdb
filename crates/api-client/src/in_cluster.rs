//! The upstream of a proxy that runs as a pod: the service account's files.

use std::path::Path;

use crate::config::{ClientConfig, Pem, Trust};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::ConfigError;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl ClientConfig {
    /// Returns the API server of the cluster that the proxy runs in, as client-go's
    /// `InClusterConfig`.
    ///
    /// # Errors
    /// If this is no pod, or it has no service account token.
    pub fn in_cluster() -> Result<ClientConfig, ConfigError> {
        let host = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_default();
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_default();
        from_service_account(&host, &port, Path::new(SERVICE_ACCOUNT))
    }
}

fn from_service_account(
    host: &str,
    port: &str,
    folder: &Path,
) -> Result<ClientConfig, ConfigError> {
    if host.is_empty() || port.is_empty() {
        return Err(ConfigError::field(
            "upstream",
            "no API server is configured: give --kubeconfig or --upstream-server, set KUBECONFIG, \
             create ~/.kube/config, or run in a pod (KUBERNETES_SERVICE_HOST and \
             KUBERNETES_SERVICE_PORT are not set)",
        ));
    }
    let field = "in-cluster configuration";
    let url = if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    };
    Ok(ClientConfig {
        server: Endpoint::parse(&url, "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT")?,
        more_servers: Vec::new(),
        trust: Trust::Ca(Pem::file(field, folder.join("ca.crt"))),
        tls_server_name: None,
        client_certificate: None,
        credentials: Some(Credentials::token_file(&folder.join("token"), field)?),
        proxy: None,
        is_front_proxy: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_account_files() {
        let folder = std::env::temp_dir().join(format!("kap-sa-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let error = from_service_account("10.96.0.1", "443", &folder).unwrap_err().to_string();
        assert!(error.starts_with("in-cluster configuration: cannot read "), "{error}");
        std::fs::write(folder.join("token"), "t").unwrap();
        let config = from_service_account("10.96.0.1", "443", &folder).unwrap();
        assert_eq!(config.server.authority.as_str(), "10.96.0.1:443");
        assert_eq!(config.credentials.unwrap().header().unwrap(), "Bearer t");
        let config = from_service_account("fd00::1", "443", &folder).unwrap();
        assert_eq!(config.server.host, "fd00::1");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn outside_of_a_pod_missing_settings_are_reported() {
        let error = from_service_account("", "", Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("--kubeconfig or --upstream-server"), "{error}");
    }
}
