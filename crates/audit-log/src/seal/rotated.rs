//! Lists the rotated files of a directory, and their seals.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::files::with_suffix;
use crate::rotate::{BackupNames, GZ, RETIRED, SEAL, ZST, without_suffix};

/// A rotated file, with those of its files that exist.
#[derive(Debug)]
pub(super) struct Rotated {
    pub log: Option<PathBuf>,
    pub seal: PathBuf,
    /// Whether the seal exists, perhaps without a record.
    pub has_seal: bool,
    /// Whether retention has begun to delete the file, and has renamed the seal.
    pub retired: bool,
    /// The path of the log before it was compressed.
    pub plain: PathBuf,
    /// The time in its name.
    pub time: SystemTime,
}

/// Returns the rotated files, the oldest first.
pub(super) fn rotated(names: &BackupNames) -> io::Result<Vec<Rotated>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&names.folder)? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name())
        };
        let Some((time, suffix)) = names.parse(&name) else { continue };
        let Ok(suffix) = std::str::from_utf8(suffix) else { continue };
        if !["", GZ, ZST, SEAL, RETIRED].contains(&suffix) {
            continue;
        }
        let plain = names.folder.join(without_suffix(&name, suffix));
        let seal = with_suffix(&plain, SEAL);
        let file = found.entry((time, plain.clone())).or_insert(Rotated {
            log: None,
            seal,
            has_seal: false,
            retired: false,
            plain,
            time,
        });
        match suffix {
            SEAL => file.has_seal = true,
            RETIRED => file.retired = true,
            // A compressed copy next to a plain file may be incomplete.
            "" => file.log = Some(path),
            _ if file.log.is_none() => file.log = Some(path),
            _ => {}
        }
    }
    let mut found: Vec<Rotated> = found.into_values().collect();
    for file in found.iter_mut().filter(|file| file.retired) {
        if file.has_seal {
            // Another process has created both; the seal under the regular name counts.
            file.retired = false;
        } else {
            file.seal = with_suffix(&file.plain, RETIRED);
            file.has_seal = true;
        }
    }
    Ok(found)
}
