//! The self-signed certificate that is generated at start if none is configured, like with
//! kube-apiserver's `--cert-dir`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::{CertificateError, ServingCertificate};

const CERTIFICATE: &str = "kube-audit-proxy.crt";
const KEY: &str = "kube-audit-proxy.key";
/// kube-apiserver's value.
const VALIDITY: Duration = Duration::days(365);
/// Certificates that expire within this time after the start are replaced.
const MARGIN: Duration = Duration::days(30);

/// Why there is no self-signed certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelfSignedError {
    /// The files cannot be written.
    #[error(
        "cannot store the self-signed certificate in {dir}: {source}; give a writable directory with --cert-dir, or a certificate with --tls-cert-file and --tls-private-key-file",
        dir = dir.display()
    )]
    Write {
        /// `--cert-dir`
        dir: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The certificate cannot be generated.
    #[error("cannot create a self-signed certificate: {0}")]
    Generate(#[from] rcgen::Error),
}

/// Returns the files of the self-signed certificate in `dir`: existing ones if they are a valid
/// pair for at least 30 more days, otherwise new ones for `localhost`, the host's name, the
/// loopback addresses and `bind`.
///
/// # Errors
/// Returns an error if the files cannot be written.
pub(crate) fn ensure(dir: &Path, bind: IpAddr) -> Result<(PathBuf, PathBuf), SelfSignedError> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
    if !reusable(&certificate, &key) {
        let (certificate_pem, key_pem) = generate(bind)?;
        write(dir, &key, &key_pem, 0o600)
            .and_then(|()| write(dir, &certificate, &certificate_pem, 0o644))
            .map_err(|source| SelfSignedError::Write { dir: dir.to_owned(), source })?;
        tracing::info!(file = %certificate.display(), "created a self-signed serving certificate");
    }
    Ok((certificate, key))
}

fn reusable(certificate: &Path, key: &Path) -> bool {
    match ServingCertificate::load(certificate, key) {
        Ok(pair) => X509Certificate::from_der(&pair.leaf()).is_ok_and(|(_, certificate)| {
            let validity = certificate.validity();
            let now = OffsetDateTime::now_utc();
            validity.not_before.to_datetime() <= now
                && now + MARGIN <= validity.not_after.to_datetime()
        }),
        Err(CertificateError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the self-signed certificate is replaced");
            false
        }
    }
}

fn generate(bind: IpAddr) -> Result<(String, String), rcgen::Error> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(host_name().filter(|name| name != "localhost"));
    let loopback = ["127.0.0.1", "::1"].map(str::to_owned);
    names.extend(loopback);
    if !bind.is_unspecified() && !bind.is_loopback() {
        names.push(bind.to_canonical().to_string());
    }
    let mut params = CertificateParams::new(names)?;
    let now = OffsetDateTime::now_utc();
    // One hour, for clocks that are behind.
    params.not_before = now - Duration::HOUR;
    params.not_after = now + VALIDITY;
    params.distinguished_name.push(DnType::CommonName, "kube-audit-proxy");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Returns the kernel's name of this host, if a certificate can contain it.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_ascii_lowercase();
    k8s_audit::request::label_selector::is_dns_subdomain(&name).then_some(name)
}

/// Writes a temporary file and renames it, so that no other process reads a partial file, or a key
/// before its mode is set.
fn write(dir: &Path, path: &Path, content: &str, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let aside = path.with_extension(format!("tmp{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&aside)
        .and_then(|mut file: File| file.write_all(content.as_bytes()))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use test_support::TempDir;

    #[test]
    fn the_key_is_created_once_and_readable_by_its_owner_only() {
        let dir = TempDir::new();
        let certs = dir.path().join("deeper/certs");
        let bind = IpAddr::from([192, 0, 2, 7]);
        let (certificate, key) = ensure(&certs, bind).unwrap();
        let first = fs::read(&certificate).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        ensure(&certs, bind).unwrap();
        assert_eq!(fs::read(&certificate).unwrap(), first);
        let pair = ServingCertificate::load(&certificate, &key).unwrap();
        let leaf = pair.leaf();
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap().value;
        let names: Vec<String> = names.general_names.iter().map(ToString::to_string).collect();
        for name in ["(localhost)", "(7f:00:00:01)", "(c0:00:02:07)"] {
            assert!(names.iter().any(|n| n.ends_with(name)), "{name} in {names:?}");
        }
        assert_eq!(fs::read_dir(&certs).unwrap().count(), 2);
    }

    #[test]
    fn a_broken_pair_is_replaced() {
        let dir = TempDir::new();
        let bind = IpAddr::from([0, 0, 0, 0]);
        let (certificate, key) = ensure(dir.path(), bind).unwrap();
        fs::write(&key, "").unwrap();
        ensure(dir.path(), bind).unwrap();
        ServingCertificate::load(&certificate, &key).unwrap();
    }

    #[test]
    fn an_unwritable_directory_is_an_error_with_a_remedy() {
        let dir = TempDir::new();
        let file = dir.write("file", "");
        let error = ensure(&file, IpAddr::from([0, 0, 0, 0])).unwrap_err().to_string();
        assert!(error.contains("--cert-dir"), "{error}");
    }
}
