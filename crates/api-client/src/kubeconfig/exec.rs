//! `users[].user.exec`, and the advice about `auth-provider`, which it replaced.

use std::path::{Component, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::schema::{Cluster, Exec, given};
use super::{Place, Reader};
use crate::config::{ClientConfig, Trust};
use crate::error::ConfigError;
use crate::exec::{ApiVersion, ExecPlugin};

/// The cluster extension that plugins are given.
const EXTENSION: &str = "client.authentication.k8s.io/exec";

impl Reader<'_> {
    /// Reads the configuration of a plugin by the rules of client-go.
    pub(super) fn plugin(
        &self,
        exec: &Exec,
        place: Place<'_>,
        config: &ClientConfig,
        cluster: &Cluster,
    ) -> Result<ExecPlugin, ConfigError> {
        let wrong = |name: &str, reason: String| Err(place.wrong(&format!("exec.{name}"), &reason));
        if exec.command.is_empty() {
            return wrong(
                "command",
                "is missing; name the program that returns credentials".into(),
            );
        }
        let api_version = match exec.api_version.as_str() {
            "" => {
                let reason = "is missing; set it to client.authentication.k8s.io/v1 or v1beta1, \
                              whichever the program returns";
                return wrong("apiVersion", reason.into());
            }
            text => match text.parse::<ApiVersion>() {
                Ok(version) => version,
                Err(()) => {
                    let reason = format!(
                        "{text:?} is not supported; use client.authentication.k8s.io/v1 or \
                         v1beta1, which current versions of the program return"
                    );
                    return wrong("apiVersion", reason);
                }
            },
        };
        match (exec.interactive_mode.as_str(), api_version) {
            ("Never" | "IfAvailable", _) | ("", ApiVersion::V1Beta1) => {}
            ("", ApiVersion::V1) => {
                let reason = "is missing; client.authentication.k8s.io/v1 requires Never or \
                              IfAvailable";
                return wrong("interactiveMode", reason.into());
            }
            ("Always", _) => {
                let reason = "Always is not supported: the proxy has no terminal; set it to \
                              IfAvailable or Never if the program can run without one";
                return wrong("interactiveMode", reason.into());
            }
            (mode, _) => {
                let reason = format!("{mode:?} is not one of Never, IfAvailable and Always");
                return wrong("interactiveMode", reason);
            }
        }
        if let Some(index) = exec.env.iter().position(|variable| variable.name.is_empty()) {
            return wrong(&format!("env[{index}].name"), "is missing".into());
        }
        // Like client-go: a name without a slash is looked up in PATH, a relative path begins at
        // the kubeconfig's directory.
        let command = match exec.command.contains('/') {
            true => absolute(place.path(&exec.command)),
            false => PathBuf::from(&exec.command),
        };
        let plugin = ExecPlugin {
            field: place.member("exec"),
            command,
            args: exec.args.clone(),
            env: exec.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
            api_version,
            install_hint: given(&exec.install_hint).map(str::to_owned),
            cluster: match exec.provide_cluster_info {
                true => Some(cluster_info(config, cluster)?),
                false => None,
            },
            timeout: self.selection.plugin_timeout,
        };
        match plugin.is_installed() {
            true => Ok(plugin),
            false => wrong("command", plugin.not_found()),
        }
    }
}

/// Returns an absolute path without `..`, like Go's `filepath.Join`. A relative path would be
/// looked up in `PATH`.
fn absolute(path: PathBuf) -> PathBuf {
    let path = std::path::absolute(&path).unwrap_or(path);
    path.components().fold(PathBuf::new(), |mut clean, component| {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
        clean
    })
}

/// `spec.cluster` of an ExecCredential.
fn cluster_info(config: &ClientConfig, cluster: &Cluster) -> Result<Value, ConfigError> {
    let mut info = Map::new();
    let mut set = |name: &str, value: Value| info.insert(name.to_owned(), value);
    set("server", cluster.server.as_str().into());
    if let Some(name) = given(&cluster.tls_server_name) {
        set("tls-server-name", name.into());
    }
    if cluster.insecure_skip_tls_verify {
        set("insecure-skip-tls-verify", true.into());
    }
    if let Trust::Ca(pem) = &config.trust {
        set("certificate-authority-data", STANDARD.encode(pem.read()?).into());
    }
    if let Some(url) = given(&cluster.proxy_url) {
        set("proxy-url", url.into());
    }
    if cluster.disable_compression {
        set("disable-compression", true.into());
    }
    if let Some(extension) = cluster.extensions.iter().find(|e| e.name == EXTENSION) {
        set("config", extension.extension.clone());
    }
    Ok(Value::Object(info))
}

/// Returns the replacement of an `auth-provider`, which kubectl no longer supports either.
pub(super) fn replacement(provider: &str) -> String {
    let how = match provider {
        "gcp" => {
            "install gke-gcloud-auth-plugin and run `gcloud container clusters get-credentials`, \
             which writes an exec section that uses it"
        }
        "azure" => {
            "install kubelogin and run `kubelogin convert-kubeconfig`, which writes an exec \
             section that uses it"
        }
        "oidc" => {
            "use an exec section with a plugin such as `kubectl oidc-login get-token`, or give \
             the proxy a ServiceAccount token (tokenFile)"
        }
        "openstack" => "use an exec section with client-keystone-auth",
        _ => "use an exec section with the provider's credential plugin, or a token (tokenFile)",
    };
    format!("{provider:?} is not supported, kubectl has removed it; {how}")
}
