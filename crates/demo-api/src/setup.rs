//! The directory of the demo with certificates, policy and kubeconfig, and its running API.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::api::Api;
use super::object;
use super::pki::{Pki, PkiError, write_private};
use super::serve::serve;

/// The default policy of a demo.
const POLICY: &str = include_str!("../../../config/policy-recommended.yaml");

/// How the proxy passes the user to the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UpstreamIdentity {
    /// `X-Remote-*` headers, trusted for the front proxy's certificate.
    RequestHeader,
    /// `Impersonate-*` headers, allowed to the proxy's own user.
    Impersonate,
}

/// Why a demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file or directory cannot be created or read.
    #[error("cannot write {path}: {source}")]
    File {
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The API cannot listen.
    #[error("cannot listen on a loopback port: {0}")]
    Listen(io::Error),
    /// The certificates cannot be created.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// A running demo API, with everything that a proxy in front of it and kubectl need.
pub struct Demo {
    folder: PathBuf,
    temporary: bool,
    identity: UpstreamIdentity,
    policy: PathBuf,
    api_address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Demo {
    /// Creates the certificates and starts the API on a loopback port. Without `folder`, a
    /// temporary directory is used, which is removed when the demo ends. Without `policy`, the
    /// policy in the directory is used; if there is none, the recommended policy is written there.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub async fn start(
        folder: Option<&Path>,
        policy: Option<&Path>,
        identity: UpstreamIdentity,
    ) -> Result<Demo, SetupError> {
        let temporary = folder.is_none();
        let folder = match folder {
            Some(folder) => absolute(folder)?,
            None => std::env::temp_dir()
                .join(format!("kube-audit-proxy-demo-{}", object::name_suffix())),
        };
        let failed = |source| SetupError::File { path: folder.clone(), source };
        make_folder(&folder, temporary).map_err(failed)?;
        let pki = Pki::new()?;
        write_pki(&pki, &folder.join("pki"))?;
        let policy = match policy {
            Some(policy) => absolute(policy)?,
            None => own_policy(&folder)?,
        };

        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let listener = TcpListener::bind(loopback).await.map_err(SetupError::Listen)?;
        let api_address = listener.local_addr().map_err(SetupError::Listen)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, pki.server_config()?, Api::new(), async {
            // This also ends when the sender is dropped.
            let _ = stopped.await;
        });
        let serving = tokio::spawn(serving);
        let stop = Some(stop);
        Ok(Demo { folder, temporary, identity, policy, api_address, stop, serving })
    }

    /// Ends the API, and removes the directory if it is a temporary one.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        // A panic of the API's task is already on standard error.
        let _ = (&mut self.serving).await;
    }

    /// Returns the address of the API.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Returns the demo's directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the file of the audit policy, which can be edited while the demo runs.
    pub fn policy(&self) -> &Path {
        &self.policy
    }

    /// Returns the audit log that the proxy writes.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Returns the directory of the recordings that the proxy writes.
    pub fn sessions(&self) -> PathBuf {
        self.folder.join("sessions")
    }

    /// Returns the kubeconfig; see [`Demo::write_kubeconfig`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Returns a certificate or key of this demo, such as `ca.crt`.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.folder.join("pki").join(name)
    }

    /// Returns the arguments of `kube-audit-proxy` for a proxy in front of this API, which listens
    /// on a loopback port; 0 selects a free one.
    pub fn serve_args(&self, port: u16) -> Vec<String> {
        let (client, identity) = match self.identity {
            UpstreamIdentity::RequestHeader => ("front-proxy-client", "request-header"),
            UpstreamIdentity::Impersonate => ("kube-audit-proxy", "impersonate"),
        };
        let file = |name: &str| self.pki(name).display().to_string();
        let flags = [
            ("bind-address", Ipv4Addr::LOCALHOST.to_string()),
            ("secure-port", port.to_string()),
            ("tls-cert-file", file("proxy.crt")),
            ("tls-private-key-file", file("proxy.key")),
            ("client-ca-file", file("ca.crt")),
            ("upstream-server", format!("https://{}", self.api_address)),
            ("upstream-ca-file", file("ca.crt")),
            ("upstream-client-cert-file", file(&format!("{client}.crt"))),
            ("upstream-client-key-file", file(&format!("{client}.key"))),
            ("upstream-identity", identity.to_owned()),
            ("audit-policy-file", self.policy.display().to_string()),
            ("audit-log-path", self.audit_log().display().to_string()),
            ("session-recording-dir", self.sessions().display().to_string()),
            ("admin-bind-address", "127.0.0.1:0".to_owned()),
        ];
        let flags = flags.map(|(name, value)| format!("--{name}={value}"));
        std::iter::once("serve".to_owned()).chain(flags).collect()
    }

    /// Writes the kubeconfig for a proxy (or the API itself) at `server`, with the contexts `demo`,
    /// the current one, and `viewer`.
    ///
    /// # Errors
    /// Returns errors of the file system.
    pub fn write_kubeconfig(&self, server: SocketAddr) -> Result<PathBuf, SetupError> {
        let path = self.kubeconfig();
        let file = |name: &str| self.pki(name).display().to_string();
        let user = |name: &str| {
            serde_json::json!({"name": name, "user": {
                "client-certificate": file(&format!("{name}.crt")),
                "client-key": file(&format!("{name}.key")),
            }})
        };
        let context = |name: &str, user: &str| {
            let context = serde_json::json!({"cluster": "demo", "user": user});
            serde_json::json!({"name": name, "context": context})
        };
        // JSON is YAML.
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "demo",
            "clusters": [{"name": "demo", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority": file("ca.crt"),
            }}],
            "users": [user("demo-admin"), user("viewer")],
            "contexts": [context("demo", "demo-admin"), context("viewer", "viewer")],
        });
        let failed = |source| SetupError::File { path: path.clone(), source };
        write_private(&path, &format!("{config:#}\n")).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.serving.abort();
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot remove the demo's folder");
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, SetupError> {
    std::path::absolute(path).map_err(|source| SetupError::File { path: path.to_owned(), source })
}

/// Writes the recommended policy into the directory, unless a policy is there from an earlier demo,
/// which may have been edited.
fn own_policy(folder: &Path) -> Result<PathBuf, SetupError> {
    let path = folder.join("policy.yaml");
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(POLICY.as_bytes()));
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
        Err(source) => Err(SetupError::File { path, source }),
        Ok(()) => Ok(path),
    }
}

fn make_folder(folder: &Path, temporary: bool) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    // A temporary directory must be new, so that it has no files of other users.
    builder.recursive(!temporary).create(folder)?;
    builder.recursive(true).create(folder.join("pki"))
}

fn write_pki(pki: &Pki, folder: &Path) -> Result<(), SetupError> {
    let failed = |source| SetupError::File { path: folder.to_owned(), source };
    for (name, authority) in [("ca", &pki.ca), ("front-proxy-ca", &pki.front_proxy_ca)] {
        fs::write(folder.join(format!("{name}.crt")), authority.pem()).map_err(failed)?;
    }
    let issued = [
        ("proxy", pki.issue_server("kube-audit-proxy")?),
        ("front-proxy-client", pki.issue_front_proxy()?),
        ("kube-audit-proxy", pki.issue_client("kube-audit-proxy", &["system:masters"])?),
        ("demo-admin", pki.issue_client("demo-admin", &["demo"])?),
        ("viewer", pki.issue_client("viewer", &["demo"])?),
    ];
    for (name, issued) in issued {
        issued.write(folder, name).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_given_folder_and_its_policy_are_kept() {
        let folder = std::env::temp_dir().join(format!("demo-{}", object::uid()));
        let identity = UpstreamIdentity::Impersonate;
        let demo = Demo::start(Some(&folder), None, identity).await.unwrap();
        assert_eq!(fs::read_to_string(demo.policy()).unwrap(), POLICY);
        fs::write(demo.policy(), "edited").unwrap();
        demo.stop().await;
        let demo = Demo::start(Some(&folder), None, identity).await.unwrap();
        assert_eq!(fs::read_to_string(demo.policy()).unwrap(), "edited");
        let arguments = demo.serve_args(0);
        assert_eq!(arguments[0], "serve");
        assert!(arguments.contains(&"--upstream-identity=impersonate".to_owned()));
        demo.stop().await;
        fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    #[cfg(unix)]
    async fn only_the_owner_can_read_keys() {
        use std::os::unix::fs::PermissionsExt;
        let demo = Demo::start(None, None, UpstreamIdentity::RequestHeader).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(demo.folder()), 0o700);
        assert_eq!(mode(&demo.pki("demo-admin.key")), 0o600);
        demo.stop().await;
    }
}
