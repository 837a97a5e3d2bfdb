//! Which kubeconfigs are loaded, in kubectl's order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Kubeconfig, Peer, Selection};
use crate::config::ClientConfig;
use crate::error::ConfigError;

/// Where the kubeconfig comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeconfigSource {
    /// One file, which must exist, named by the flag or field.
    File {
        /// The flag or field.
        field: String,
        /// The file.
        path: PathBuf,
    },
    /// The files of `$KUBECONFIG`, merged; those that do not exist are ignored.
    Environment(Vec<PathBuf>),
    /// `~/.kube/config`, which need not exist.
    Home(PathBuf),
    /// There is no home directory.
    None,
}

impl ClientConfig {
    /// Returns the settings of a webhook's endpoint: the current context of a kubeconfig of its
    /// own.
    ///
    /// # Errors
    /// Returns what is missing or invalid, with file, field and remedy.
    pub fn of_webhook(path: &Path) -> Result<ClientConfig, ConfigError> {
        let source = KubeconfigSource::find(Some(("the webhook's kubeconfig", path)));
        source.load()?.client_config(Selection::current(Peer::Webhook))?.checked()
    }
}

impl KubeconfigSource {
    /// The kubeconfigs that kubectl would load: the `explicit` one, else those of `$KUBECONFIG`,
    /// else `~/.kube/config`.
    pub fn find(explicit: Option<(&str, &Path)>) -> KubeconfigSource {
        let [files, home] = ["KUBECONFIG", "HOME"].map(std::env::var_os);
        KubeconfigSource::find_in(explicit, files, home)
    }

    fn find_in(
        explicit: Option<(&str, &Path)>,
        files: Option<OsString>,
        home: Option<OsString>,
    ) -> KubeconfigSource {
        if let Some((field, path)) = explicit {
            let (field, path) = (field.to_owned(), path.to_owned());
            return KubeconfigSource::File { field, path };
        }
        if let Some(files) = files.filter(|files| !files.is_empty()) {
            let mut paths: Vec<PathBuf> = Vec::new();
            for path in std::env::split_paths(&files) {
                if !path.as_os_str().is_empty() && !paths.contains(&path) {
                    paths.push(path);
                }
            }
            return KubeconfigSource::Environment(paths);
        }
        match home.filter(|home| !home.is_empty()) {
            Some(home) => KubeconfigSource::Home(Path::new(&home).join(".kube/config")),
            None => KubeconfigSource::None,
        }
    }

    /// Returns the files that are followed for changes.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            KubeconfigSource::File { path, .. } | KubeconfigSource::Home(path) => {
                std::slice::from_ref(path)
            }
            KubeconfigSource::Environment(paths) => paths,
            KubeconfigSource::None => &[],
        }
    }

    /// Returns the name of the source in messages.
    pub fn name(&self) -> &str {
        match self {
            KubeconfigSource::File { field, .. } => field,
            KubeconfigSource::Environment(_) => "KUBECONFIG",
            KubeconfigSource::Home(_) | KubeconfigSource::None => "~/.kube/config",
        }
    }

    /// Loads and merges the files. The result is empty if none of them exists and none has to.
    ///
    /// # Errors
    /// If a file cannot be read or parsed, or a file that must exist is missing.
    pub fn load(&self) -> Result<Kubeconfig, ConfigError> {
        let must_exist = matches!(self, KubeconfigSource::File { .. });
        let mut merged = Kubeconfig::default();
        for path in self.paths() {
            match watched_files::regular_file::read_to_string(path) {
                Ok(text) => merged.merge(&text, path)?,
                Err(error) if !must_exist && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    let (field, path) = (self.name().to_owned(), path.clone());
                    return Err(ConfigError::Read { field, path, source });
                }
            }
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kubectls() {
        let find = |explicit, files: &str, home: &str| {
            KubeconfigSource::find_in(explicit, Some(files.into()), Some(home.into()))
        };
        let flag = Some(("--kubeconfig", Path::new("/flag")));
        let source = find(flag, "/a", "/home");
        assert_eq!((source.paths(), source.name()), (&["/flag".into()][..], "--kubeconfig"));
        let source = find(None, "/a::/b:/a", "/home");
        assert_eq!(source, KubeconfigSource::Environment(vec!["/a".into(), "/b".into()]));
        let source = find(None, "", "/home");
        assert_eq!(source, KubeconfigSource::Home("/home/.kube/config".into()));
        assert_eq!(find(None, "", ""), KubeconfigSource::None);
        assert!(find(None, "/nowhere/a:/nowhere/b", "").load().unwrap().is_empty());
        let missing = Some(("--kubeconfig", Path::new("/nowhere/a")));
        let error = find(missing, "", "").load().err().unwrap().to_string();
        assert!(error.starts_with("--kubeconfig: cannot read /nowhere/a: "), "{error}");
    }
}
