//! Authenticates client certificates.
//!
//! The TLS handshake only proves that the client has the key. Chain, validity and usage are
//! verified here for each request, so that an invalid certificate results in a 401 and an audit
//! event, and a changed CA file applies to open connections. The result is cached with the
//! connection for at most one minute.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::{Oid, asn1_rs::oid};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{User, UserInfo};
use pki::{
    Certificate, RevocationList, Roots, UnreadableCertificate, Usage, Verification, VerifyError,
    readable,
};
use watched_files::regular_file;

/// The subject attribute for a user's UID (Kubernetes).
const UID_ATTRIBUTE: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);
/// The `extra` key for the ID of the credential.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// How long the result of a verification is cached.
const VERDICT_TTL: Duration = Duration::from_secs(60);

/// The trusted CAs of client certificates (`--client-ca-file`), or of front proxies
/// (`--requestheader-client-ca-file`).
pub struct ClientCa {
    path: PathBuf,
    /// `--client-crl-file`
    crl_path: Option<PathBuf>,
    /// `--client-ca-allow-x509-v1`
    allow_v1: bool,
    current: ArcSwap<Anchors>,
    generations: AtomicU64,
}

struct Anchors {
    generation: u64,
    roots: Roots,
    /// The certificate revocation lists.
    crls: Vec<RevocationList>,
}

/// Why a CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// The file cannot be read, or is not PEM.
    #[error("{path}: cannot read the client CA file: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        source: rustls_pki_types::pem::Error,
    },
    /// The file contains no certificate.
    #[error("{path}: no certificate in the client CA file; it takes PEM blocks that begin with -----BEGIN CERTIFICATE-----", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// One of its certificates cannot be used.
    #[error("{path}: certificate {index} of the client CA file {reason}", path = path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The number of the certificate, from 1.
        index: usize,
        /// The reason.
        reason: UnreadableCertificate,
    },
    /// The revocation list cannot be read or parsed.
    #[error("{path}: cannot read the certificate revocation lists: {reason}; the file takes PEM blocks that begin with -----BEGIN X509 CRL-----", path = path.display())]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// Why a client certificate is rejected, for the log; clients only receive `Unauthorized`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain, validity or usage is invalid.
    #[error(transparent)]
    Chain(#[from] VerifyError),
    /// It cannot be parsed.
    #[error("the certificate is malformed")]
    Malformed,
    /// The UID attribute is invalid.
    #[error("the certificate's UID attribute is {0}")]
    Uid(&'static str),
}

impl ClientCa {
    /// Loads the PEM file at `path`, and the revocation lists at `crl_path`.
    ///
    /// # Errors
    /// See [`ClientCaError`].
    pub fn load(path: &Path, crl_path: Option<&Path>) -> Result<ClientCa, ClientCaError> {
        let current = Anchors::read(0, path, crl_path)?;
        Ok(ClientCa {
            path: path.into(),
            crl_path: crl_path.map(Path::to_owned),
            allow_v1: false,
            current: ArcSwap::from_pointee(current),
            generations: AtomicU64::new(0),
        })
    }

    /// Sets whether users' certificates of X.509 version 1 are accepted, like in kube-apiserver.
    #[must_use]
    pub fn allowing_x509_v1(self, allow: bool) -> ClientCa {
        ClientCa { allow_v1: allow, ..self }
    }

    /// Reloads the files; the new content also applies to open connections.
    ///
    /// # Errors
    /// See [`ClientCaError`]; the current content stays active.
    pub fn reload(&self) -> Result<(), ClientCaError> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let current = Anchors::read(generation, &self.path, self.crl_path.as_deref())?;
        self.current.store(Arc::new(current));
        Ok(())
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Anchors {
    fn read(
        generation: u64,
        path: &Path,
        crl_path: Option<&Path>,
    ) -> Result<Anchors, ClientCaError> {
        let crls = crl_path.map(read_crls).transpose()?.unwrap_or_default();
        Ok(Anchors { generation, roots: read(path)?, crls })
    }
}

fn read_crls(path: &Path) -> Result<Vec<RevocationList>, ClientCaError> {
    let wrong = |reason: String| ClientCaError::RevocationList { path: path.into(), reason };
    let mut crls = Vec::new();
    let text = regular_file::read(path).map_err(|error| wrong(error.to_string()))?;
    for block in CertificateRevocationListDer::pem_slice_iter(&text) {
        let der = block.map_err(|error| wrong(error.to_string()))?;
        crls.push(RevocationList::parse(&der).map_err(|error| wrong(error.to_string()))?);
    }
    if crls.is_empty() { Err(wrong("there is none in it".to_owned())) } else { Ok(crls) }
}

/// Returns all certificates of the file.
fn read(path: &Path) -> Result<Roots, ClientCaError> {
    let read = |source| ClientCaError::Read { path: path.into(), source };
    let mut roots = Roots::new(path.display().to_string());
    let text = regular_file::read(path).map_err(|error| read(pem::Error::Io(error)))?;
    for (index, certificate) in CertificateDer::pem_slice_iter(&text).enumerate() {
        roots.add(certificate.map_err(read)?).map_err(|reason| ClientCaError::Certificate {
            path: path.into(),
            index: index + 1,
            reason,
        })?;
    }
    if roots.is_empty() { Err(ClientCaError::Empty { path: path.into() }) } else { Ok(roots) }
}

/// The certificates that a client presented, and the cached results of verifying them.
pub struct ClientCertificates {
    /// The client's own certificate first; never empty.
    chain: Vec<CertificateDer<'static>>,
    /// The result as a user's certificate.
    user: ArcSwapOption<Verdict<Option<Arc<User>>>>,
    /// The result as a front proxy's certificate: its common name.
    proxy: ArcSwapOption<Verdict<Arc<str>>>,
}

struct Verdict<T> {
    generation: u64,
    verified_at: SystemTime,
    /// The expiry of the client's own certificate.
    expires: SystemTime,
    outcome: Result<T, CertificateError>,
}

impl ClientCertificates {
    /// Creates it from the certificates of the TLS handshake; `None` if there were none.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Option<ClientCertificates> {
        (!chain.is_empty()).then(|| ClientCertificates {
            chain,
            user: ArcSwapOption::empty(),
            proxy: ArcSwapOption::empty(),
        })
    }

    /// Returns the user of the certificate; `None` if its subject has no common name.
    ///
    /// # Errors
    /// Returns an error if the certificate is not trusted.
    pub fn user(&self, ca: &ClientCa) -> Result<Option<Arc<User>>, CertificateError> {
        self.cached_verdict(&self.user, ca, |leaf, parsed| {
            Ok(user_of(leaf, parsed)?.map(|user| Arc::new(user.into())))
        })
    }

    /// Returns the common name of the front proxy that the certificate belongs to; empty if it has
    /// none.
    ///
    /// # Errors
    /// Returns an error if the certificate is not trusted.
    pub fn proxy(&self, ca: &ClientCa) -> Result<Arc<str>, CertificateError> {
        self.cached_verdict(&self.proxy, ca, |_, parsed| {
            Ok(common_name(parsed).unwrap_or("").into())
        })
    }

    /// Verifies the certificate and returns the result of `read`, or the cached result in
    /// `verdict`.
    fn cached_verdict<T: Clone>(
        &self,
        verdict: &ArcSwapOption<Verdict<T>>,
        ca: &ClientCa,
        read: impl Fn(&[u8], &X509Certificate<'_>) -> Result<T, CertificateError>,
    ) -> Result<T, CertificateError> {
        let now = SystemTime::now();
        let anchors = ca.current.load();
        if let Some(last) = &*verdict.load() {
            let age = now.duration_since(last.verified_at).unwrap_or(VERDICT_TTL);
            if last.generation == anchors.generation && age < VERDICT_TTL && now < last.expires {
                return last.outcome.clone();
            }
        }
        let leaf = &self.chain[0];
        let verified = self.verify(&anchors, ca.allow_v1, now).and_then(|()| {
            let (_, parsed) =
                X509Certificate::from_der(leaf).map_err(|_| CertificateError::Malformed)?;
            let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
            // `notAfter` is the last second of validity.
            let expires = UNIX_EPOCH + Duration::from_secs(expires.saturating_add(1));
            Ok((read(leaf, &parsed)?, expires))
        });
        let (outcome, expires) = match verified {
            Ok((found, expires)) => (Ok(found), expires),
            Err(error) => (Err(error), now + VERDICT_TTL),
        };
        verdict.store(Some(Arc::new(Verdict {
            generation: anchors.generation,
            verified_at: now,
            expires,
            outcome: outcome.clone(),
        })));
        outcome
    }

    fn verify(
        &self,
        trusted: &Anchors,
        allow_v1: bool,
        now: SystemTime,
    ) -> Result<(), CertificateError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let end_entity =
            Certificate::parse(&self.chain[0]).map_err(|_| CertificateError::Malformed)?;
        let verification = Verification {
            roots: &trusted.roots,
            revoked: &trusted.crls,
            usage: Usage::Client,
            allow_v1,
            now: i64::try_from(now).unwrap_or(i64::MAX),
        };
        Ok(verification.verify(&end_entity, &readable(&self.chain[1..]))?)
    }
}

/// Returns the last common name of the subject.
fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    // Like in Go, values whose encoding is not text count as missing.
    certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).last()
}

/// Maps the common name to the user name, and organizations to groups, like kube-apiserver.
fn user_of(
    der: &[u8],
    certificate: &X509Certificate<'_>,
) -> Result<Option<UserInfo>, CertificateError> {
    let subject = certificate.subject();
    let Some(username) = common_name(certificate).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let groups =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    let mut uids = subject.iter_by_oid(&UID_ATTRIBUTE);
    let uid = match uids.next() {
        None => "",
        Some(uid) => match uid.as_str() {
            Err(_) => return Err(CertificateError::Uid("no string")),
            Ok("") => return Err(CertificateError::Uid("empty")),
            Ok(uid) => uid,
        },
    };
    if uids.next().is_some() {
        return Err(CertificateError::Uid("present more than once"));
    }
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let hex: String = fingerprint.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let user = UserInfo {
        username: username.to_owned(),
        uid: uid.to_owned(),
        groups,
        extra: [(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hex}")])].into(),
    };
    Ok(Some(user.into_authenticated()))
}

#[cfg(test)]
mod tests;
