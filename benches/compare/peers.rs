//! The other programs that are needed, and how to install them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The programs and their Debian packages.
const NEEDED: [(&str, &str); 3] =
    [("nginx", "nginx-light"), ("haproxy", "haproxy"), ("h2load", "nghttp2-client")];

/// Checks that all programs are installed.
///
/// # Errors
/// Names the missing ones, and the command that installs them.
pub fn check(install: bool) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    if install {
        apt_get(&["update", "-q"])?;
        let flags = ["install", "-qy", "--no-install-recommends"];
        apt_get(&[&flags[..], &missing].concat())?;
    }
    match self::missing()[..] {
        [] => Ok(()),
        ref missing => bail!(
            "programs to compare with are missing; give --install, or:\n  \
             sudo apt-get install -y --no-install-recommends {}",
            missing.join(" ")
        ),
    }
}

/// Finds a program in the path or in Debian's directories for administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Returns the first line of a program's version output.
pub fn version(program: &str, flag: &str) -> String {
    let Ok(output) = Command::new(find(program).unwrap_or_default()).arg(flag).output() else {
        return format!("{program} of an unknown version");
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

fn missing() -> Vec<&'static str> {
    let missing = NEEDED.into_iter().filter(|(program, _)| find(program).is_none());
    missing.map(|(_, package)| package).collect()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.arg("apt-get");
    }
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("cannot run apt-get")?;
    anyhow::ensure!(status.success(), "apt-get {} failed: {status}", arguments.join(" "));
    Ok(())
}
