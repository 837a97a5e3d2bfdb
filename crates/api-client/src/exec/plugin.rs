//! The configuration of a credential plugin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde_json::Value;

/// A credential plugin: `users[].user.exec` of a kubeconfig.
#[derive(Clone, PartialEq)]
pub struct ExecPlugin {
    /// The file and field, for error messages.
    pub field: String,
    /// The program: a name that is looked up in `PATH`, or an absolute path.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables that are added to the environment of this process.
    pub env: Vec<(String, String)>,
    /// Its version of `client.authentication.k8s.io`.
    pub api_version: ApiVersion,
    /// How to install the program.
    pub install_hint: Option<String>,
    /// `spec.cluster`, with `provideClusterInfo`.
    pub cluster: Option<Value>,
    /// How long one run may take.
    pub timeout: Duration,
}

/// A version of `client.authentication.k8s.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiVersion {
    /// `client.authentication.k8s.io/v1`
    V1,
    /// `client.authentication.k8s.io/v1beta1`
    V1Beta1,
}

impl ApiVersion {
    /// Returns the value of `apiVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiVersion::V1 => "client.authentication.k8s.io/v1",
            ApiVersion::V1Beta1 => "client.authentication.k8s.io/v1beta1",
        }
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<ApiVersion, ()> {
        [ApiVersion::V1, ApiVersion::V1Beta1].into_iter().find(|v| v.as_str() == text).ok_or(())
    }
}

/// Without the values of variables, which may be secrets.
impl fmt::Debug for ExecPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecPlugin")
            .field("field", &self.field)
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl ExecPlugin {
    /// The time that one run may take if nothing else is configured.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Returns whether the program can be executed: the absolute path, or some file in `PATH`.
    pub fn is_installed(&self) -> bool {
        if self.command.is_absolute() {
            return is_executable(&self.command);
        }
        // The plugin's own variables do not change where it is looked up, as in Go.
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| is_executable(&folder.join(&self.command)))
    }

    /// Describes that the program is missing, and how to install it.
    pub fn not_found(&self) -> String {
        let command = self.command.display();
        let install = match &self.install_hint {
            Some(hint) => format!("install it: {}", hint.trim()),
            None => "install it, or correct the command".to_owned(),
        };
        format!("exec: executable {command} not found; it is a credential plugin: {install}")
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_like_a_shell_does() {
        let plugin = |command: &str| ExecPlugin {
            field: "f: users[u].user.exec".into(),
            command: command.into(),
            args: Vec::new(),
            env: vec![("SECRET".into(), "hunter2".into())],
            api_version: ApiVersion::V1,
            install_hint: None,
            cluster: None,
            timeout: ExecPlugin::TIMEOUT,
        };
        assert!(plugin("sh").is_installed() && plugin("/bin/sh").is_installed());
        for missing in ["no-such-plugin", "/bin/no-such-plugin", "/etc/passwd", "/bin"] {
            assert!(!plugin(missing).is_installed(), "{missing}");
        }
        assert!(!format!("{:?}", plugin("sh")).contains("hunter2"));
    }
}
