//! The files of the demo's pods, in memory, and tar archives of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum size of all files of all pods in bytes.
const MAX_BYTES: usize = 256 << 20;
/// The block size of an archive.
const BLOCK: usize = 512;

/// The files of all pods.
#[derive(Clone, Default)]
pub(crate) struct Files(Arc<Mutex<HashMap<String, Pod>>>);

type Pod = BTreeMap<String, Vec<u8>>;

impl Files {
    fn with<T>(&self, pod: &str, act: impl FnOnce(&mut Pod) -> T) -> T {
        let mut pods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            BTreeMap::from([
                (
                    "/etc/hostname".to_owned(),
                    format!("{}\n", pod.rsplit('/').next().unwrap_or(pod)).into_bytes(),
                ),
                ("/etc/os-release".to_owned(), b"NAME=\"kube-audit-proxy demo\"\n".to_vec()),
                ("/tmp/.keep".to_owned(), Vec::new()),
            ])
        };
        act(pods.entry(pod.to_owned()).or_insert_with(new))
    }

    /// Returns a file.
    pub(super) fn read(&self, pod: &str, path: &str) -> Option<Vec<u8>> {
        self.with(pod, |files| files.get(path).cloned())
    }

    /// Writes a file. Returns `false` if the limit is reached.
    pub(super) fn write(&self, pod: &str, path: &str, bytes: Vec<u8>) -> bool {
        self.with(pod, |files| {
            let used: usize = files.values().map(Vec::len).sum();
            let fits = used + bytes.len() <= MAX_BYTES;
            if fits {
                files.insert(path.to_owned(), bytes);
            }
            fits
        })
    }

    /// Returns whether the directory exists.
    pub(super) fn is_dir(&self, pod: &str, path: &str) -> bool {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        self.with(pod, |files| files.keys().any(|file| file.starts_with(&prefix)))
    }

    /// Returns the names in a directory.
    pub(super) fn list(&self, pod: &str, path: &str) -> Vec<String> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let mut names: Vec<String> = self.with(pod, |files| {
            let inside = files.keys().filter_map(|file| file.strip_prefix(&prefix));
            inside.filter_map(|rest| rest.split('/').next()).map(str::to_owned).collect()
        });
        names.dedup();
        names.retain(|name| !name.starts_with('.'));
        names
    }

    /// Returns an archive of a file or directory, with names relative to `/`.
    pub(super) fn archive(&self, pod: &str, path: &str) -> Option<Vec<u8>> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let found: Vec<(String, Vec<u8>)> = self.with(pod, |files| {
            let wanted =
                files.iter().filter(|(file, _)| *file == path || file.starts_with(&prefix));
            wanted.map(|(file, bytes)| (file.clone(), bytes.clone())).collect()
        });
        if found.is_empty() {
            return None;
        }
        let mut archive = Vec::new();
        for (file, bytes) in found {
            archive.extend_from_slice(&header(file.trim_start_matches('/'), bytes.len()));
            archive.extend_from_slice(&bytes);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        Some(archive)
    }

    /// Writes the files of an archive below a directory. Returns `false` if it is invalid.
    pub(super) fn extract(&self, pod: &str, dir: &str, archive: &[u8]) -> bool {
        let mut rest = archive;
        while let Some((header, after)) = rest.split_first_chunk::<BLOCK>() {
            if header.iter().all(|byte| *byte == 0) {
                return true;
            }
            let text = |from: usize, to: usize| {
                let field = &header[from..to];
                let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
                String::from_utf8_lossy(&field[..end]).trim().to_owned()
            };
            let Ok(size) = usize::from_str_radix(&text(124, 136), 8) else { return false };
            let Some(bytes) = after.get(..size) else { return false };
            if matches!(header[156], 0 | b'0') {
                let (prefix, name) = (text(345, 500), text(0, 100));
                let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                let path =
                    format!("{}/{}", dir.trim_end_matches('/'), name.trim_start_matches('/'));
                if !self.write(pod, &path, bytes.to_vec()) {
                    return false;
                }
            }
            rest = after.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
        }
        true
    }
}

/// Returns the header of a file (ustar).
fn header(name: &str, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name.get(..99).unwrap_or(name));
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_bring_files_back() {
        let files = Files::default();
        assert!(files.write("a/p", "/tmp/x/data", vec![7; 1000]));
        let archive = files.archive("a/p", "/tmp/x").unwrap();
        assert_eq!(archive.len(), 512 + 1024 + 1024);
        assert!(files.extract("a/q", "/srv", &archive));
        assert_eq!(files.read("a/q", "/srv/tmp/x/data").unwrap(), vec![7; 1000]);
        assert!(files.is_dir("a/q", "/srv/tmp"));
        assert_eq!(files.list("a/q", "/"), ["etc", "srv", "tmp"]);
        assert!(!files.extract("a/q", "/srv", &archive[..600]));
    }
}
