//! The serving certificate, which is reloaded when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

use crate::file_watch::FileWatcher;
use pki::{KeyError, certified_key};

/// Why a certificate cannot be served. Messages contain nothing of a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is not valid PEM of the expected kind.
    #[error("{path}: no usable PEM {what}: {source}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The expected contents.
        what: &'static str,
        /// The fault.
        source: pem::Error,
    },
    /// No key is usable, or the certificate cannot be parsed.
    #[error("{path}: {reason}", path = path.display())]
    Unusable {
        /// The file with the fault.
        path: PathBuf,
        /// The fault.
        reason: KeyError,
    },
    /// The private key does not belong to the certificate.
    #[error(
        "the private key in {key} does not belong to the first certificate in {certificate} (the \
         server's own certificate has to come first, its intermediates after it)",
        certificate = certificate.display(),
        key = key.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The certificate for new connections. Open connections keep the one that they started with.
#[derive(Debug)]
pub(crate) struct ServingCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// Loads a certificate chain (the server's own first) and its private key, both PEM; one file
    /// may contain both.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is not such PEM, or if the key does not belong to
    /// the certificate.
    pub(crate) fn load(
        certificate: &Path,
        key: &Path,
    ) -> Result<ServingCertificate, CertificateError> {
        Ok(ServingCertificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: ArcSwap::from_pointee(read_pair(certificate, key)?),
        })
    }

    /// Reloads the files.
    ///
    /// # Errors
    /// Like [`ServingCertificate::load`]; the current certificate stays active.
    pub(crate) fn reload(&self) -> Result<(), CertificateError> {
        self.current.store(Arc::new(read_pair(&self.certificate, &self.key)?));
        Ok(())
    }

    /// Returns the server's own certificate, without its intermediates.
    pub(crate) fn leaf(&self) -> CertificateDer<'static> {
        self.current.load().cert[0].clone()
    }

    /// Returns a watcher of these files. Create it before loading them, so that no change is
    /// missed.
    pub(crate) fn watcher(certificate: &Path, key: &Path) -> FileWatcher {
        FileWatcher::new(vec![certificate.to_owned(), key.to_owned()])
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let read = |path: &Path| {
        watched_files::regular_file::read(path)
            .map_err(|source| CertificateError::Read { path: path.into(), source })
    };
    let not_pem =
        |path: &Path, what, source| CertificateError::Pem { path: path.into(), what, source };
    let chain_pem = read(certificate)?;
    let chain = CertificateDer::pem_slice_iter(&chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|source| not_pem(certificate, "certificate", source))?;
    certified_key(chain, &read(key)?, &pki::crypto_provider()).map_err(|reason| {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        match reason {
            KeyError::Mismatch => CertificateError::Mismatch { certificate, key },
            KeyError::Certificate => CertificateError::Unusable { path: certificate, reason },
            reason => CertificateError::Unusable { path: key, reason },
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::file_watch::{POLL_INTERVAL, ReloadMetrics, Reloaded, SelfReading};
    use crate::server::test_support::{certificate, leaf_of};
    use test_support::TempDir;
    use tokio::sync::watch;

    #[tokio::test]
    async fn changed_files_are_read_and_so_are_unchanged_ones_by_force() {
        let dir = TempDir::new();
        let (old, new) = (certificate("old"), certificate("new"));
        let crt = dir.write("tls.crt", &old.certificate);
        let key = dir.write("tls.key", &old.key);
        let watcher = ServingCertificate::watcher(&crt, &key);
        let serving = Arc::new(ServingCertificate::load(&crt, &key).unwrap());
        dir.write("tls.crt", &new.certificate);
        dir.write("tls.key", &new.key);
        let metrics = Arc::new(ReloadMetrics::default());
        let (force, forced) = watch::channel(());
        let reload = {
            let serving = serving.clone();
            move || serving.reload()
        };
        let what = Reloaded::ServingCertificate;
        let files = SelfReading { what, metrics: metrics.clone(), reload, count: |_| {} };
        let task = tokio::spawn(files.reloader(watcher).follow(forced, POLL_INTERVAL));
        reloads(&metrics, true, 1).await;
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
        force.send_replace(());
        reloads(&metrics, true, 2).await;
        dir.write("tls.key", "");
        force.send_replace(());
        reloads(&metrics, false, 1).await;
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
        drop(force);
        task.await.unwrap();
    }

    async fn reloads(metrics: &ReloadMetrics, succeeded: bool, count: u64) {
        while metrics.count(Reloaded::ServingCertificate, succeeded) < count {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_bad_new_pair_keeps_the_old_one() {
        let dir = TempDir::new();
        let (old, new) = (certificate("old"), certificate("new"));
        let crt = dir.write("tls.crt", &old.certificate);
        let key = dir.write("tls.key", &old.key);
        let serving = ServingCertificate::load(&crt, &key).unwrap();
        dir.write("tls.crt", &new.certificate);
        let error = serving.reload().unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
        assert_eq!(serving.leaf(), leaf_of(&old.certificate));
        dir.write("tls.key", &new.key);
        serving.reload().unwrap();
        assert_eq!(serving.leaf(), leaf_of(&new.certificate));
    }

    #[test]
    fn errors_name_the_file_and_nothing_of_the_key() {
        let dir = TempDir::new();
        let pair = certificate("a");
        let crt = dir.write("tls.crt", &pair.certificate);
        let key = dir.write("tls.key", &pair.key);
        let broken = pair.key.replacen("MIG", "SECRET!", 1);
        assert_ne!(broken, pair.key);
        let bad = dir.write("bad.key", &broken);
        let cut = dir.write("cut.key", "-----BEGIN PRIVATE SECRET\nSECRET\n");
        let armor =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let pkcs8 = dir.write("pkcs8.key", armor);
        let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                      DEK-Info: AES-128-CBC,AB\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
        let legacy = dir.write("legacy.key", legacy);
        let absent = dir.path().join("absent");
        let cases = [
            (&absent, &key, "absent: No such file"),
            (&crt, &absent, "absent: No such file"),
            (&key, &key, "tls.key: no usable PEM certificate: no items found"),
            (&crt, &crt, "tls.crt: has no private key in PEM (no items found)"),
            (&crt, &bad, "bad.key: has no private key in PEM"),
            (&crt, &cut, "cut.key: has no private key in PEM"),
            (&crt, &pkcs8, "pkcs8.key: the private key is encrypted"),
            (&crt, &legacy, "legacy.key: the private key is encrypted"),
        ];
        for (crt, key, expected) in cases {
            let error = ServingCertificate::load(crt, key).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
    }
}
