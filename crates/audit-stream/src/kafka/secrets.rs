//! Certificates, passwords and tokens of a Kafka backend, read from their files.

use std::path::Path;

use krafka::auth::{AuthConfig, OAuthBearerToken, TlsConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use watched_files::regular_file;
use zeroize::Zeroizing;

use super::settings::{KafkaSettings, PasswordMechanism, SaslSettings};
use crate::SettingsError;

/// The contents of a file, overwritten when they are dropped.
type Secret = Zeroizing<Vec<u8>>;

/// The contents of the files that the settings name. Overwritten when they are dropped; `Debug`
/// shows nothing of them.
#[derive(PartialEq, Eq)]
pub(super) struct Secrets {
    ca: Option<Secret>,
    client_certificate: Option<(Secret, Secret)>,
    sasl: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Reads the files.
    ///
    /// # Errors
    /// The file that cannot be read or used, and its field.
    pub(super) fn read(settings: &KafkaSettings) -> Result<Secrets, SettingsError> {
        let tls = settings.tls.as_ref();
        let ca = match tls.and_then(|tls| tls.ca_file.as_deref()) {
            Some(path) => Some(certificates("ca-file", path)?),
            None => None,
        };
        let client_certificate = match tls.and_then(|tls| tls.client_certificate.as_ref()) {
            Some((certificate, key)) => Some((
                certificates("client-cert-file", certificate)?,
                private_key("client-key-file", key)?,
            )),
            None => None,
        };
        let sasl = match &settings.sasl {
            Some(SaslSettings::Password { password_file, .. }) => {
                Some(line("sasl-password-file", password_file)?)
            }
            Some(SaslSettings::Token { token_file, .. }) => {
                Some(line("sasl-token-file", token_file)?)
            }
            None => None,
        };
        Ok(Secrets { ca, client_certificate, sasl })
    }

    /// Returns the client's settings for TLS and SASL.
    pub(super) fn security(&self, settings: &KafkaSettings) -> AuthConfig {
        let secret = self.sasl.as_ref().map(|secret| secret.as_str()).unwrap_or_default();
        let sasl = settings.sasl.as_ref().map(|sasl| match sasl {
            SaslSettings::Password { mechanism, username, .. } => match mechanism {
                PasswordMechanism::Plain => AuthConfig::sasl_plain(username, secret),
                PasswordMechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(username, secret),
                PasswordMechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(username, secret),
            },
            SaslSettings::Token { extensions, .. } => {
                let token =
                    extensions.iter().fold(OAuthBearerToken::new(secret), |token, (k, v)| {
                        token.with_extension(k, v)
                    });
                AuthConfig::sasl_oauthbearer_token(token)
            }
        });
        match (sasl, self.tls(settings)) {
            (Some(sasl), Some(tls)) => sasl.with_tls(tls),
            (Some(sasl), None) => sasl,
            (None, Some(tls)) => AuthConfig::ssl(tls),
            (None, None) => AuthConfig::plaintext(),
        }
    }

    fn tls(&self, settings: &KafkaSettings) -> Option<TlsConfig> {
        let from = settings.tls.as_ref()?;
        // Without either, the client would trust the CAs that are compiled into it.
        let mut tls = match &self.ca {
            Some(ca) => TlsConfig::new().with_ca_cert_pem(ca.to_vec()),
            None => TlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.client_certificate {
            tls = tls.with_client_cert_pem(certificate.to_vec(), Zeroizing::new(key.to_vec()));
        }
        if let Some(name) = &from.server_name {
            tls = tls.with_sni_hostname(name);
        }
        Some(tls)
    }
}

fn certificates(field: &'static str, path: &Path) -> Result<Secret, SettingsError> {
    let pem = read(field, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => Err(wrong(field, path, "has no certificate; PEM text is expected here")),
    }
}

fn private_key(field: &'static str, path: &Path) -> Result<Secret, SettingsError> {
    let pem = read(field, path)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(wrong(
            field,
            path,
            "has no private key; an unencrypted key in PEM (PKCS #8, PKCS #1 or SEC 1) is \
             expected here",
        )),
    }
}

/// Reads a password or token, without the newline at its end.
fn line(field: &'static str, path: &Path) -> Result<Zeroizing<String>, SettingsError> {
    let bytes = read(field, path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| wrong(field, path, "is not UTF-8 text; put the secret alone into it"))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(wrong(field, path, "is empty; put the secret into it"));
    }
    if text.contains(char::is_control) {
        return Err(wrong(field, path, "has several lines; put the secret alone into it"));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn read(field: &'static str, path: &Path) -> Result<Secret, SettingsError> {
    match regular_file::read(path) {
        Ok(bytes) => Ok(Zeroizing::new(bytes)),
        Err(error) => Err(SettingsError::read(field, path, &error)),
    }
}

fn wrong(field: &'static str, path: &Path, reason: &str) -> SettingsError {
    SettingsError::new(field, format!("{} {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use test_support::TempDir;

    use super::*;

    fn with_password(path: PathBuf) -> KafkaSettings {
        let mut settings = KafkaSettings::new(vec!["kafka:9092".to_owned()], "audit".to_owned());
        settings.sasl = Some(SaslSettings::Password {
            mechanism: PasswordMechanism::Plain,
            username: "proxy".to_owned(),
            password_file: path,
        });
        settings
    }

    #[test]
    fn a_password_is_a_line_and_never_shown() {
        let dir = TempDir::new();
        let path = dir.path().join("password");
        let settings = with_password(path.clone());
        for text in ["pa ss\n", "pa ss\r\n", "pa ss"] {
            std::fs::write(&path, text).unwrap();
            let secrets = Secrets::read(&settings).unwrap();
            assert_eq!(secrets.sasl.as_ref().unwrap().as_str(), "pa ss");
            let shown = format!("{secrets:?} {:?} {settings:?}", secrets.security(&settings));
            assert!(!shown.contains("pa ss"), "{shown}");
        }
        for (text, reason) in [("", "is empty"), ("\n", "is empty"), ("a\nb\n", "several lines")] {
            std::fs::write(&path, text).unwrap();
            let error = Secrets::read(&settings).unwrap_err().to_string();
            assert!(error.starts_with("sasl-password-file: ") && error.contains(reason), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = Secrets::read(&settings).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }

    #[test]
    fn certificates_and_keys_are_checked() {
        let dir = TempDir::new();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let pair = rcgen::generate_simple_self_signed(["kafka".to_owned()]).unwrap();
        let certificate = write("tls.crt", &pair.cert.pem());
        let key = write("tls.key", &pair.signing_key.serialize_pem());
        let mut settings = KafkaSettings::new(vec!["kafka:9092".to_owned()], "audit".to_owned());
        let mut tls = |ca: &PathBuf, certificate: &PathBuf, key: &PathBuf| {
            settings.tls = Some(super::super::TlsSettings {
                ca_file: Some(ca.clone()),
                client_certificate: Some((certificate.clone(), key.clone())),
                server_name: None,
            });
            Secrets::read(&settings).map_err(|error| error.to_string())
        };
        assert!(tls(&certificate, &certificate, &key).is_ok());
        let error = tls(&key, &certificate, &key).unwrap_err();
        assert!(error.starts_with("ca-file: ") && error.contains("no certificate"), "{error}");
        let error = tls(&certificate, &certificate, &certificate).unwrap_err();
        assert!(error.starts_with("client-key-file: "), "{error}");
    }
}
