//! A folder for one run, with certificates, tokens and answers in it; removed at its end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use demo_api::{Issued, Pki, write_private};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

/// What clients of every proxy send.
pub const TOKEN: &str = "c29tZS1jbGllbnQtb2YtdGhlLWNvbXBhcmlzb24";

/// The answers that the upstream has: name and bytes, about.
pub const BODIES: [(&str, usize); 4] =
    [("1.3kb", 1_300), ("10kb", 10_000), ("100kb", 100_000), ("1mb", 1_000_000)];

/// The folder.
pub struct Workspace {
    path: PathBuf,
    server: Issued,
}

impl Workspace {
    /// Makes it.
    pub fn new(parent: &Path) -> Result<Workspace> {
        let path = parent.join(format!("compare-{}", std::process::id()));
        let pki = Pki::new()?;
        let server = pki.issue_server("kubernetes")?;
        fs::create_dir_all(path.join("bodies"))
            .with_context(|| format!("cannot make {}", path.display()))?;
        let workspace = Workspace { path, server };
        workspace.fill(&pki)?;
        Ok(workspace)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file in it that only its owner can read.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.file(name);
        write_private(&path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The certificate that all servers have, and its key, for the one in this process.
    pub fn server(&self) -> (&Issued, PrivateKeyDer<'static>) {
        (&self.server, self.server.key())
    }

    fn fill(&self, pki: &Pki) -> Result<()> {
        self.write("ca.crt", pki.ca.pem())?;
        self.server.write(&self.path, "server")?;
        let together = format!("{}{}", self.server.certificate_pem, self.server.key_pem);
        self.write("server.pem", &together)?;
        self.write("tokens.csv", &format!("{TOKEN},jane,1001,\"developers,on-call\"\n"))?;
        for (name, bytes) in BODIES {
            self.write(&format!("bodies/{name}"), &config_map(name, bytes))?;
        }
        Ok(())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The path of an answer.
pub fn path_of(body: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/size-{body}")
}

/// A ConfigMap as kube-apiserver sends it, of about `bytes`.
fn config_map(name: &str, bytes: usize) -> String {
    let line = "listen 8080\nworkers \"4\"\tlog.level=info\n";
    let mut object = json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {
            "name": format!("size-{name}"),
            "namespace": "default",
            "uid": "0b2f3c5e-7a1d-4f7e-9d43-2f6f0f1c9a11",
            "resourceVersion": "48213",
            "creationTimestamp": "2026-01-05T08:30:00Z",
            "labels": {"app": "web", "tier": "front"},
            "managedFields": [{
                "manager": "kubectl-client-side-apply",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2026-01-05T08:30:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:data": {".": {}, "f:settings": {}},
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:tier": {}}},
                },
            }],
        },
        "data": {"settings": ""},
    });
    // Quotes, tabs and line breaks are escaped, so a line is longer in JSON.
    let escaped = json!(line).to_string().len() - 2;
    let room = bytes.saturating_sub(object.to_string().len());
    object["data"]["settings"] = line.repeat(room / escaped).into();
    object.to_string()
}
