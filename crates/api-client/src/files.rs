//! The token and certificate files of a server, which are reloaded when they change.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;
use watched_files::file_watch::{FileWatcher, POLL_INTERVAL, Stamps};
use watched_files::reload::{Outcome, Reload, Reloader};

use crate::config::{ClientCertificate, Pem, Trust};
use crate::credentials::{Credentials, HeaderCredentials};
use crate::error::ConfigError;
use crate::target::Target;
use crate::tls::Settings;

/// Files that are followed until this is dropped.
#[derive(Debug)]
pub struct FollowedFiles(watch::Sender<()>);

impl FollowedFiles {
    /// Has the files reloaded now.
    pub fn reload(&self) {
        self.0.send_replace(());
    }
}

/// Called when certificates have changed, so that open connections should take no more requests.
type Changed = Arc<dyn Fn() + Send + Sync>;

impl Target {
    /// Follows the token and certificate files, and the certificate of the credential plugin. Calls
    /// `changed` when certificates have changed, so that open connections should take no more
    /// requests. Call it before [`Target::start`].
    #[must_use]
    pub fn follow(
        &self,
        runtime: &Handle,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> FollowedFiles {
        let (force, forced) = watch::channel(());
        if let Some(Credentials::Header(header)) = &self.credentials
            && let Some(path) = header.file()
        {
            let files = FileWatcher::new(vec![path.to_owned()]);
            let token = Reloader::new(files, None, TokenFile(Arc::clone(header)));
            runtime.spawn(token.follow(forced.clone(), POLL_INTERVAL));
        }
        if let Some(settings) = self.tls.as_ref().map(|tls| tls.settings()) {
            let changed: Changed = Arc::new(changed);
            if let Some(ClientCertificate::Plugin(plugin)) = &settings.client_certificate {
                let (weak, changed) = (Arc::downgrade(settings), Arc::clone(&changed));
                plugin.observe(move || match weak.upgrade() {
                    Some(settings) => {
                        refresh(&settings, &*changed);
                        true
                    }
                    None => false,
                });
            }
            let paths = paths(settings);
            if !paths.is_empty() {
                let certificates = Certificates { settings: Arc::clone(settings), changed };
                let certificates = Reloader::new(FileWatcher::new(paths), None, certificates);
                runtime.spawn(certificates.follow(forced, POLL_INTERVAL));
            }
        }
        FollowedFiles(force)
    }
}

/// Uses the certificate that a plugin has returned.
fn refresh(settings: &Settings, changed: &dyn Fn()) {
    match settings.refresh() {
        Ok(true) => changed(),
        Ok(false) => {}
        Err(error) => not_reloaded(&error),
    }
}

fn not_reloaded(error: &ConfigError) {
    tracing::warn!(%error, "upstream certificates not reloaded, the current ones stay active");
}

fn paths(settings: &Settings) -> Vec<PathBuf> {
    let ca = match &settings.trust {
        Trust::Ca(pem) => Some(pem),
        Trust::System | Trust::Insecure | Trust::Unset => None,
    };
    let pair = match &settings.client_certificate {
        Some(ClientCertificate::Pem { certificate, key }) => vec![certificate, key],
        Some(ClientCertificate::Plugin(_)) | None => Vec::new(),
    };
    let path = |pem: &Pem| match pem {
        Pem::File { path, .. } => Some(path.clone()),
        Pem::Data { .. } => None,
    };
    ca.into_iter().chain(pair).filter_map(path).collect()
}

/// A token file. Its content is not active before the first poll, so a change that came before is
/// noticed by it; reading the same token again changes nothing.
struct TokenFile(Arc<HeaderCredentials>);

impl Reload for TokenFile {
    type Content = Option<Stamps>;
    type Error = ConfigError;

    fn read(&mut self, files: &FileWatcher) -> Result<Option<Stamps>, ConfigError> {
        Ok(Some(files.stamps()))
    }

    fn apply(&mut self, _: &Option<Stamps>, _: bool) -> Result<(), ConfigError> {
        self.0.refresh()
    }

    fn report(&mut self, outcome: Outcome<'_, ConfigError>) {
        if let Outcome::Rejected(error) = outcome {
            tracing::warn!(%error, "upstream token not reloaded, the current one stays active");
        }
    }
}

/// The files of CAs and of a client certificate, like [`TokenFile`].
struct Certificates {
    settings: Arc<Settings>,
    changed: Changed,
}

impl Reload for Certificates {
    type Content = Option<Stamps>;
    type Error = ConfigError;

    fn read(&mut self, files: &FileWatcher) -> Result<Option<Stamps>, ConfigError> {
        Ok(Some(files.stamps()))
    }

    fn apply(&mut self, _: &Option<Stamps>, _: bool) -> Result<(), ConfigError> {
        if self.settings.refresh()? {
            (self.changed)();
        }
        Ok(())
    }

    fn report(&mut self, outcome: Outcome<'_, ConfigError>) {
        if let Outcome::Rejected(error) = outcome {
            not_reloaded(error);
        }
    }
}
